"""Whether a language model can be searched with beams as query tokens of one sequence, found out by trying."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from spacy_gemel.decoding.decoder import SequentialDecoder, SharedPrefixDecoder
from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.models.memory import is_out_of_memory

_PROMPT_TOKENS = 12
# Three beams, two tokens deep; the second and the third grow out of the first one's branch.
_FIRST = (3, 5, 7)
_SECOND = (11, 13, 2)
_PARENTS = (2, 0, 0)
_BEAMS, _DEPTH = len(_FIRST), 2
# Of the largest logit, what rounding may change.
_TOLERANCE = {torch.float32: 1e-3}
_TOLERANCE_OF_HALF = 0.1
# Floating point operations of a check that are worth doing at load: about a second on two cores, and on a GPU.
_CHEAP = {"cpu": 2e11, "cuda": 2e14}


def check_shared_prefix(model: CausalLM) -> None:
    """Find the model's branch_limit: compare three branches after short prompts, and after one beyond its windows.

    The second is put off to the first longer prompt where it would take long (a window of thousands on a CPU): it then
    costs about as much as searching eight mentions. A model whose branches differ from plain forward passes is searched
    by such passes, which is said in a warning. Raises ValueError for a model that does not even take embeddings, or
    whose scores are no numbers.
    """
    problem = _difference(model, [_PROMPT_TOKENS, _PROMPT_TOKENS - 4], windows=False)
    if problem is not None:
        _check_plain(model)
        model.never_shares_prefix(problem)
        return
    window = model.reach.shortest
    # Twice the widest window, so that a mask that forgot it would let through as much as it should.
    beyond = min(2 * model.reach.longest, model.longest_shared_prefix - _DEPTH)
    if window is None or beyond <= window:
        return
    model.longer_check = partial(_difference, model, [beyond], windows=True)
    if _cost(model, beyond) <= _CHEAP.get(model.device.type, _CHEAP["cpu"]):
        model.can_share_prefix(window + 1, 0, 0)


def _cost(model: CausalLM, tokens: int) -> float:
    """Floating point operations of a check on a prompt of so many tokens: it is read four times."""
    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    return 2.0 * parameters * tokens * (1 + _BEAMS)


def _check_plain(model: CausalLM) -> None:
    try:
        logits = SequentialDecoder(model, [model.embed([1, 2, 3])]).logits
    except Exception as error:  # whatever a model says of an argument that it does not know
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"The language model {model.name!r} cannot be searched: it does not take inputs_embeds, as Llama, OPT, "
            f"GPT-2, Mistral, Qwen and Gemma do ({error})."
        ) from error
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"The language model {model.name!r} cannot be searched: its scores are no numbers. If its dtype is "
            '"float16", use "bfloat16" or "float32"; else its weights are damaged.'
        )


def _difference(model: CausalLM, lengths: list[int], *, windows: bool) -> str | None:
    """None where branches after prompts of these lengths give what plain passes give, else what went wrong.

    windows: see _compare. Raises what says that memory ran out.
    """
    try:
        return _compare(model, lengths, windows=windows)
    except Exception as error:  # whatever a model says of an argument that it does not know
        if is_out_of_memory(error):
            raise
        return f"{type(error).__name__}: {str(error).strip()[:200]}"


def _compare(model: CausalLM, lengths: list[int], *, windows: bool) -> str | None:
    """What is wrong with branches after prompts of these lengths, or None.

    They must be near to plain passes, and at most half as far from them as the branches of a wrong mask, which sees
    beyond the windows, or, if not windows, sees the other beams: a model that ignores masks passes no such test,
    however little they matter.
    """
    tokens = min(model.vocab_size, 500) - 1
    ids = [[1 + index * 7 % tokens for index in range(length)] for length in lengths]
    first, second = ([1 + token % tokens for token in row] for row in (_FIRST, _SECOND))
    state = SharedPrefixDecoder(model, [model.embed(row) for row in ids], room=3 * _BEAMS)
    eye = torch.eye(_BEAMS, dtype=torch.bool, device=model.device)
    parents = eye[list(_PARENTS)]
    found = [
        state.logits[:, None].expand(-1, _BEAMS, -1),
        _step(state, first, eye, 0)[:, list(_PARENTS)],
        _step(state, second, torch.cat([parents, eye], dim=1), 1),
    ]
    seen = torch.cat([parents, torch.zeros_like(eye), eye], dim=1)
    if windows:
        state.reach = replace(model.reach, windows=dict.fromkeys(model.reach.windows))
    else:
        seen = torch.ones_like(seen)
    wrong = _step(state, second, seen, 1)
    for prompt, row in enumerate(ids):
        branches = [[*row, first[parent], token] for parent, token in zip(_PARENTS, second, strict=True)]
        plain = torch.stack([_plain(model, branch) for branch in branches])  # (beams, 3, vocab)
        share = _TOLERANCE_OF_HALF if model.quantized else _TOLERANCE.get(model.dtype, _TOLERANCE_OF_HALF)
        tolerance = share * max(float(plain.abs().max()), 1.0)
        for depth, logits in enumerate(found):
            off = float((logits[prompt] - plain[:, depth]).abs().max())
            if not off <= tolerance:  # also where it is no number
                return f"a branch differs from a plain forward pass by {off:.2g} after {len(row)} tokens"
        off, wrong_off = (float((each[prompt] - plain[:, -1]).norm()) for each in (found[-1], wrong))
        if not off <= wrong_off / 2:
            return f"after {len(row)} tokens a mask makes no difference that could be told from rounding"
    return None


def _plain(model: CausalLM, branch: list[int]) -> Tensor:
    """The logits at the last three tokens of a branch, (3, vocab)."""
    keep = torch.arange(len(branch) - 1 - _DEPTH, len(branch), device=model.device)
    with torch.no_grad():
        return model.forward(model.embed(branch)[None], keep, use_cache=False)[0].float()


def _step(state: SharedPrefixDecoder, tokens: Sequence[int], seen: Tensor, depth: int) -> Tensor:
    """The same tokens after each prompt, (prompts, beams, vocab)."""
    rows = torch.tensor(list(tokens), device=seen.device).expand(len(state.lengths), -1)
    return state.extend(rows, seen.expand(len(rows), -1, -1), depth)
