"""Finding out by trying whether a language model decodes beams as query tokens of one sequence."""

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from spacy_gemel.decoding.beginnings import BeginningCache, Sharing
from spacy_gemel.decoding.decoder import Decoder, PrefixLimits, SequentialDecoder, SharedPrefixDecoder
from spacy_gemel.decoding.kv_cache import AttentionWindows
from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.models.frozen import model_lock
from spacy_gemel.models.memory import is_out_of_memory
from spacy_gemel.utils.messages import first_line

# Three beams, two tokens deep; the second and the third continue the first one's branch.
_FIRST = (3, 5, 7)
_SECOND = (11, 13, 2)
_PARENTS = (2, 0, 0)
_BEAMS, _DEPTH = len(_FIRST), 2
_PROMPT_LENGTHS = (12, 8)
# What rounding may change, relative to the largest logit.
_TOLERANCE, _HALF_PRECISION_TOLERANCE = 1e-3, 0.1
# Floating point operations of a check that may run at load: about a second on two cores, and on a GPU.
_MAX_OPERATIONS_AT_LOAD = {"cpu": 2e11, "cuda": 2e14}

_LIMITS: "WeakKeyDictionary[CausalLM, PrefixLimits]" = WeakKeyDictionary()


def make_decoder(model: CausalLM) -> Decoder:
    """A decoder of a language model, which is checked once in its life: three beams after short and long prompts.

    A long prompt, beyond the model's attention windows, is put off to the first prompt that needs it if it would take
    long (a window of thousands on a CPU); it then costs about as much as searching eight mentions. If the beams differ
    from plain forward passes, the model is decoded by such passes, with a warning.

    Raises:
        ValueError: if the model does not take embeddings, or its scores are not finite.
    """
    with model_lock():
        if model in _LIMITS:
            return Decoder(model, _LIMITS[model], check_windows)
        windows = AttentionWindows.of(model.model)
        supported = min(model.max_length, windows.same_positions or model.max_length)
        limits = PrefixLimits(windows, supported, min(supported, windows.shortest or supported))
        decoder = Decoder(model, limits, check_windows)
        problem = _find_problem(model, limits, _PROMPT_LENGTHS, beyond_windows=False)
        if problem is not None:
            _check_forward_pass(model)
            limits.max_length = 0
            decoder.warn_sequential("all prompts are", problem, "Llama, OPT, GPT-2, Mistral, Qwen and Gemma are not")
        else:
            length = _length_beyond_windows(limits)
            limits.is_checked = windows.shortest is None or length <= windows.shortest
            max_operations = _MAX_OPERATIONS_AT_LOAD.get(model.device.type, _MAX_OPERATIONS_AT_LOAD["cpu"])
            # The prompt is read four times: with the beams, and as each of three branches.
            operations = 2.0 * sum(parameter.numel() for parameter in model.model.parameters()) * length * (1 + _BEAMS)
            if not limits.is_checked and operations <= max_operations:
                decoder.can_share_prefix(limits.max_length + 1, 0, 0)
        _LIMITS[model] = limits
        return decoder


def check_windows(model: CausalLM, limits: PrefixLimits) -> str | None:
    """Try a prompt beyond the model's windows. Returns what is wrong, or None. Raises if memory runs out."""
    return _find_problem(model, limits, [_length_beyond_windows(limits)], beyond_windows=True)


def _length_beyond_windows(limits: PrefixLimits) -> int:
    # Twice the widest window, so that a mask that forgot it would let through twice as much as it should.
    return min(2 * limits.windows.longest, limits.supported_length - _DEPTH)


def _check_forward_pass(model: CausalLM) -> None:
    try:
        logits = SequentialDecoder(model, [model.embed([1, 2, 3])]).logits
    except Exception as error:  # models differ in what they raise for an argument that they do not know
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"The language model {model.name!r} cannot be searched: it does not take inputs_embeds, as Llama, OPT, "
            f"GPT-2, Mistral, Qwen and Gemma do ({error})."
        ) from error
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"The language model {model.name!r} cannot be searched: its scores are not finite. If its dtype is "
            '"float16", use "bfloat16" or "float32"; otherwise its weights are damaged.'
        )


def _find_problem(model: CausalLM, limits: PrefixLimits, lengths: Sequence[int], *, beyond_windows: bool) -> str | None:
    """See _compare; what it raises is a problem too, unless memory ran out."""
    try:
        return _compare(model, limits, lengths, beyond_windows=beyond_windows)
    except Exception as error:  # models differ in what they raise for an argument that they do not know
        if is_out_of_memory(error):
            raise
        return f"{type(error).__name__}: {first_line(error)[:200]}"


def _compare(model: CausalLM, limits: PrefixLimits, lengths: Sequence[int], *, beyond_windows: bool) -> str | None:
    """What is wrong with beams after prompts of these lengths, or None.

    Their logits must be near to those of plain passes, and at most half as far from them as with a wrong mask, which
    sees beyond the windows or, if not `beyond_windows`, the other beams. A model that ignores masks fails this test.
    """
    tokens = min(model.vocab_size, 500) - 1
    prompts = [[1 + index * 7 % tokens for index in range(length)] for length in lengths]
    first, second = ([1 + token % tokens for token in row] for row in (_FIRST, _SECOND))
    # The shorter prompt begins as the longer one.
    sharing = Sharing(prompts, [0] * len(prompts), BeginningCache(), min_shared=1)
    state = SharedPrefixDecoder(model, [model.embed(ids) for ids in prompts], 3 * _BEAMS, limits.windows, sharing)
    eye = torch.eye(_BEAMS, dtype=torch.bool, device=model.device)
    parents = eye[list(_PARENTS)]
    zeros, ones = [0] * _BEAMS, [1] * _BEAMS
    whole = torch.cat([torch.cat([eye, torch.zeros_like(eye)], dim=1), torch.cat([parents, eye], dim=1)])
    at_once = _extend(state, [*first, *second], whole, [*zeros, *ones])  # as score_names does
    by_depth = [  # (depth, logits), (prompts, beams, vocab) each
        (1, at_once[:, list(_PARENTS)]),
        (2, at_once[:, _BEAMS:]),
        (0, state.logits[:, None].expand(-1, _BEAMS, -1)),
        (1, _extend(state, first, eye, zeros)[:, list(_PARENTS)]),
        (2, _extend(state, second, torch.cat([parents, eye], dim=1), ones)),
    ]
    seen = torch.cat([parents, torch.zeros_like(eye), eye], dim=1)
    if beyond_windows:
        state.windows = replace(limits.windows, windows=dict.fromkeys(limits.windows.windows))
    else:
        seen = torch.ones_like(seen)
    wrong = _extend(state, second, seen, ones)
    for index, ids in enumerate(prompts):
        branches = [[*ids, first[parent], token] for parent, token in zip(_PARENTS, second, strict=True)]
        keep = torch.arange(len(ids) - 1, len(ids) + _DEPTH, device=model.device)
        with torch.no_grad():
            reference = [model.forward(model.embed(branch)[None], keep, use_cache=False)[0] for branch in branches]
        expected = torch.stack(reference).float()  # (beams, 3, vocab)
        exact = model.dtype == torch.float32 and not model.quantized
        tolerance = (_TOLERANCE if exact else _HALF_PRECISION_TOLERANCE) * max(float(expected.abs().max()), 1.0)
        for depth, logits in by_depth:
            difference = float((logits[index] - expected[:, depth]).abs().max())
            if not difference <= tolerance:  # also if it is not a number
                return f"a beam differs from a plain forward pass by {difference:.2g} after {len(ids)} tokens"
        right = by_depth[-1][1]
        if not (right[index] - expected[:, -1]).norm() <= (wrong[index] - expected[:, -1]).norm() / 2:
            return f"after {len(ids)} tokens the effect of a mask cannot be told from rounding"
    return None


def _extend(state: SharedPrefixDecoder, tokens: Sequence[int], seen: Tensor, depth: Sequence[int]) -> Tensor:
    """Append the same tokens to each prompt, each at its depth. Returns the logits, (prompts, new, vocab)."""
    rows, depths = (
        torch.tensor(list(each), device=seen.device).expand(len(state.lengths), -1) for each in (tokens, depth)
    )
    return state.extend(rows, seen.expand(len(rows), -1, -1), depths)
