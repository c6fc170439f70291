"""Whether a language model can be searched with beams as query tokens of one sequence, found out by trying."""

from functools import partial

import torch

from spacy_gemel.language.causal_lm import CausalLM
from spacy_gemel.language.continuations import Branches, PlainRows
from spacy_gemel.language.memory import is_out_of_memory

_PROMPT_TOKENS = 12
# Three beams, two tokens deep; the second and the third grow out of the first one's branch.
_FIRST = (3, 5, 7)
_SECOND = (11, 13, 2)
_PARENTS = (2, 0, 0)
_BEYOND = 7
# Floating point operations of a check that are worth doing at load: about a second on two cores, and on a GPU.
_CHEAP = {"cpu": 2e11, "cuda": 2e14}


def check_branches(model: CausalLM) -> None:
    """Find the model's branch_limit: compare three branches after short prompts, and after one beyond its windows.

    The second is put off to the first longer prompt where it would take long (a window of thousands on a CPU): it then
    costs about as much as searching four mentions. A model whose branches differ from plain forward passes is searched
    by such passes, which is said in a warning. Raises ValueError for a model that does not even take embeddings.
    """
    problem = _difference(model, [_PROMPT_TOKENS, _PROMPT_TOKENS - 4])
    if problem is not None:
        _check_plain(model)
        model.never_branch(problem)
        return
    window = model.reach.shortest
    if window is None or window >= model.longest_branch:
        return

    beyond = min(window + _BEYOND, model.longest_branch - len(_FIRST))
    model.longer_check = partial(_difference, model, [beyond])
    if _cost(model, window) <= _CHEAP.get(model.device.type, _CHEAP["cpu"]):
        model.can_branch(window + 1)


def _cost(model: CausalLM, tokens: int) -> float:
    """Floating point operations of a check on a prompt of so many tokens: it is read four times."""
    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    return 2.0 * parameters * tokens * (1 + len(_FIRST))


def _check_plain(model: CausalLM) -> None:
    try:
        PlainRows(model, [model.embed([1, 2, 3])])
    except Exception as error:  # whatever a model says of an argument that it does not know
        raise ValueError(
            f"The language model {model.name!r} cannot be searched: it does not take inputs_embeds, as Llama, OPT, "
            f"GPT-2, Mistral, Qwen and Gemma do ({error})."
        ) from error


def _difference(model: CausalLM, lengths: list[int]) -> str | None:
    """None where branches after prompts of these lengths give what plain passes give, else what went wrong."""
    try:
        return _compare(model, lengths)
    except Exception as error:  # whatever a model says of an argument that it does not know
        if is_out_of_memory(error):
            return "there is not enough memory to check them"
        return f"{type(error).__name__}: {str(error).strip()[:200]}"


def _compare(model: CausalLM, lengths: list[int]) -> str | None:
    tokens = min(model.vocab_size, 500) - 1
    ids = [[1 + place * 7 % tokens for place in range(length)] for length in lengths]
    first, second = ([1 + token % tokens for token in row] for row in (_FIRST, _SECOND))
    beams = len(first)
    state = Branches(model, [model.embed(row) for row in ids], room=2 * beams)
    eye = torch.eye(beams, dtype=torch.bool, device=model.device)
    found = [
        state.logits[:, None].expand(-1, beams, -1),
        state.extend(*_step(model, [first] * len(ids), eye), 0)[:, list(_PARENTS)],
        state.extend(*_step(model, [second] * len(ids), torch.cat([eye[list(_PARENTS)], eye], dim=1)), 1),
    ]
    for prompt, row in enumerate(ids):
        branches = [[*row, first[parent], token] for parent, token in zip(_PARENTS, second, strict=True)]
        whole = torch.stack([model.embed(branch) for branch in branches])  # (beams, tokens, width)
        keep = torch.arange(len(row) - 1, len(row) + 2, device=model.device)
        with torch.no_grad():
            plain = model.forward(whole, keep, use_cache=False).float()  # (beams, 3, vocab)
        tolerance = (1e-3 if model.dtype == torch.float32 else 0.1) * max(float(plain.abs().max()), 1.0)
        for depth, logits in enumerate(found):
            off = float((logits[prompt] - plain[:, depth]).abs().max())
            if not off <= tolerance:  # also where it is no number
                return f"a branch differs from a plain forward pass by {off:.2g} after {len(row)} tokens"
    return None


def _step(model: CausalLM, tokens: list[list[int]], seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(tokens, device=model.device), seen.expand(len(tokens), -1, -1)
