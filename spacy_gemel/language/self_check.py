"""Whether a language model can be searched with beams as query tokens of one sequence."""

import torch

from spacy_gemel.language.causal_lm import CausalLM

_PROMPT_TOKENS = 12


def check_branches(model: CausalLM, name: str) -> None:
    """Compare two branches after one prompt, two tokens deep, with plain forward passes.

    Raises ValueError for a model that has no position ids, or does not take a mask per query: its search would be
    wrong, most of the time in silence.
    """
    ids = [1 + place * 7 % (min(model.vocab_size, 500) - 1) for place in range(_PROMPT_TOKENS)]
    branches = torch.tensor([[3, 5], [7, 11]], device=model.device)  # (beams, depth)
    eye = torch.eye(2, dtype=torch.bool, device=model.device)
    try:
        # Two prompts of different lengths, so that padding is tried as well.
        state = model.prefill([model.embed(ids), model.embed(ids[:-4])])
        tokens = branches.T[:, None].expand(-1, 2, -1)  # (depth, prompts, beams)
        model.extend(state, tokens[0], eye.expand(2, -1, -1), 0)
        found = model.extend(state, tokens[1], torch.cat([eye, eye], dim=1).expand(2, -1, -1), 1)
        for prompt, length in enumerate((len(ids), len(ids) - 4)):
            for beam, branch in enumerate(branches.tolist()):
                plain = model.prefill([model.embed(ids[:length] + branch)]).logits[0]
                size = float(plain.abs().max())
                tolerance = (1e-3 if model.dtype == torch.float32 else 0.1) * max(size, 1.0)
                if float((found[prompt, beam] - plain).abs().max()) > tolerance:
                    raise ValueError("its branches differ from plain forward passes")
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"The language model {name!r} cannot be searched: it must take inputs_embeds, a 4-D attention mask, "
            f"position_ids and a key-value cache as Llama, OPT, GPT-2, Mistral, Qwen and Gemma do ({error})."
        ) from error
