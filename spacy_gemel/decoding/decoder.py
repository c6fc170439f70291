"""Reading prompts and the beams after them: over a shared prefix, or with a plain forward pass per beam and step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spacy_gemel.decoding.beginnings import Beginning, Sharing, Source, find_sources
from spacy_gemel.decoding.kv_cache import AttentionWindows, SharedCache
from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.models.memory import is_out_of_memory
from spacy_gemel.utils.messages import ModelWarning, warn_once

# Prompt tokens in one pass. On a CPU two prompts of a thousand tokens keep all cores busy, and the activations of more
# outgrow its caches: seven at once took up to a fifth longer.
_MAX_PASS_TOKENS = {"cpu": 2048}
# Tokens appended in one pass that take less than twice the time of one, which has all weights to read: on two cores
# with 135M parameters, fewer cost more passes and more cost longer ones. A GPU (not measured) could take more.
FREE_SLOTS = 20
# Numbers in the logits of one pass: prompts of different lengths need the logits at all their ends.
MAX_PASS_LOGITS = 2**26


class DecoderState(Protocol):
    """Prompts that the model has read, and its scores of what follows.

    logits: scores of the first token after each prompt, (mentions, vocab), in fp32.
    room: tokens that may be appended to each prompt.
    free_slots: tokens of one `extend`, all mentions counted, that take hardly longer than a single one.
    """

    logits: Tensor
    room: int
    free_slots: int

    def extend(self, tokens: Tensor, seen: Tensor, depth: Tensor, mentions: slice = slice(None)) -> Tensor:
        """Append tokens to prompts, one per beam, or several of a beam, a parent before its child.

        Args:
            tokens: (mentions, new).
            seen: a token's ancestors and itself among the slots so far, of which `tokens` take the last, (mentions,
                new, slots) bool. What was in these or in later slots is dropped: with the first, other names follow a
                prompt that is not read again.
            depth: the number of tokens of a name before each, (mentions, new).
            mentions: those whose prompts are followed.

        Returns:
            The logits after each token, (mentions, new, vocab), in fp32.
        """
        ...


class SharedPrefixDecoder:
    """The beams of a mention as query tokens of one sequence, over one copy of its prompt.

    Args:
        model: the language model.
        prompts: embedded prompts, (tokens, width) each.
        room: tokens that will be appended to a prompt at most.
        windows: the model's.
        sharing: which of them begin alike, or as earlier ones; None if each is read whole.
    """

    def __init__(
        self,
        model: CausalLM,
        prompts: Sequence[Tensor],
        room: int,
        windows: AttentionWindows,
        sharing: Sharing | None = None,
    ) -> None:
        self.model = model
        self.windows = windows
        lengths = [len(prompt) for prompt in prompts]
        self.lengths = torch.tensor(lengths, device=model.device)
        self.width = max(lengths)
        self.depths = self.lengths.new_zeros((len(prompts), room))  # of the appended tokens, (mentions, slots)
        self.room = room
        self.free_slots = FREE_SLOTS
        self.cache = SharedCache(len(prompts), self.width, room)
        prompts = [prompt.to(model.dtype) for prompt in prompts]
        sources = [None] * len(prompts) if sharing is None else find_sources(prompts, sharing)
        logits = self._read_all(prompts, sources)
        self.logits = torch.stack([logits[index] for index in range(len(prompts))])
        if sharing is not None:
            self._keep_beginnings(prompts, sources, sharing)

    def _read_all(self, prompts: Sequence[Tensor], sources: Sequence[Source | None]) -> dict[int, Tensor]:
        """Read the prompts, each after its source. Returns the logits after them, (vocab,) each."""
        waves: list[list[int]] = []
        wave_of: list[int] = []
        for index, source in enumerate(sources):
            wave = 0 if source is None else 1 if source.beginning is not None else wave_of[source.prompt] + 1
            wave_of.append(wave)
            waves += [[] for _ in range(wave + 1 - len(waves))]
            waves[wave].append(index)
        logits: dict[int, Tensor] = {}
        for indices in filter(None, waves):
            starts = [0 if (source := sources[index]) is None else source.length for index in indices]
            rests = [prompts[index][start:] for index, start in zip(indices, starts, strict=True)]
            for index in indices:
                self._take(index, sources[index])
            for batch in self._batches([len(rest) for rest in rests]):
                logits |= zip(indices[batch], self._read(indices[batch], rests[batch], starts[batch]), strict=True)
        return logits

    def _take(self, index: int, source: Source | None) -> None:
        """Let a prompt begin as its source."""
        if source is not None and source.beginning is not None:
            self.cache.put(index, source.beginning.layers)
        elif source is not None:
            self.cache.copy(index, source.prompt, source.length)

    def _keep_beginnings(self, prompts: Sequence[Tensor], sources: Sequence[Source | None], sharing: Sharing) -> None:
        """Cache the beginnings that later prompts will have, if none came from there."""
        first = {sharing.key(index): index for index in reversed(range(len(prompts)))}
        known = {sharing.key(index) for index, source in enumerate(sources) if source and source.beginning}
        for key, index in first.items():
            length = sharing.kept[index]
            if length >= sharing.min_shared and key not in known:
                beginning = Beginning(prompts[index][:length].clone(), self.cache.beginning(index, length))
                sharing.cache.entries.put(key, beginning)

    def _batches(self, lengths: Sequence[int]) -> Iterator[slice]:
        """The prompts in passes, in their order."""
        max_tokens = _MAX_PASS_TOKENS.get(self.model.device.type)
        start = 0
        for stop in range(1, len(lengths) + 1):
            batch = lengths[start : stop + 1]
            too_long = max_tokens is not None and len(batch) * max(batch) > max_tokens
            too_many_logits = len(batch) * len(set(batch)) * self.model.vocab_size > MAX_PASS_LOGITS
            if stop == len(lengths) or too_long or too_many_logits:
                yield slice(start, stop)
                start = stop

    def _read(self, indices: Sequence[int], rests: Sequence[Tensor], starts: Sequence[int]) -> Tensor:
        """Read what is left of some prompts from its start on into the cache.

        Returns the logits after them, (prompts, vocab).
        """
        rows = torch.tensor(indices, device=self.lengths.device)
        padded = pad_sequence([*rests], batch_first=True)  # on the right
        options: dict[str, Any] = {}
        if any(starts):
            first = torch.tensor(starts, device=rows.device)[:, None]
            columns = first + torch.arange(padded.shape[1], device=rows.device)  # (prompts, tokens)
            columns = columns.clamp(max=self.width + self.room - 1)  # padding alone comes so far
            self.cache.read(rows, columns)
            mask = self.windows.rest_mask(columns, int(columns.max()) + 1, self.model.dtype)
            # A model may have no positions for padding.
            options = {"attention_mask": mask, "position_ids": columns.minimum(self.lengths[rows][:, None] - 1)}
        else:
            self.cache.read(rows)  # plain causal attention needs no mask
        options[self.model.cache_argument] = self.cache
        with torch.no_grad():
            ends = torch.tensor([len(rest) - 1 for rest in rests], device=rows.device)
            keep, ends = torch.unique(ends, return_inverse=True)
            logits = self.model.forward(padded, keep, use_cache=True, **options)
            return logits[torch.arange(len(padded), device=padded.device), ends].float()

    def extend(self, tokens: Tensor, seen: Tensor, depth: Tensor, mentions: slice = slice(None)) -> Tensor:
        """See DecoderState."""
        stop = seen.shape[-1]
        start = stop - tokens.shape[1]
        self.cache.append(mentions, start, tokens.shape[1])
        self.depths[mentions, start:stop] = depth
        lengths, depths = self.lengths[mentions], self.depths[mentions, :stop]
        mask = self.windows.beam_mask(lengths, self.width, depths, seen, depth, self.model.dtype)
        positions = lengths[:, None] + depth
        options = {"attention_mask": mask, "position_ids": positions, self.model.cache_argument: self.cache}
        with torch.no_grad():
            embeddings = self.model.embeddings(tokens)
            return self.model.model(inputs_embeds=embeddings, use_cache=True, **options).logits.float()


class SequentialDecoder:
    """Each beam a plain forward pass over the whole prompt, without cache or mask, for models that need it.

    The answers are the same, at the cost of a prefill per beam and step, one at a time to save memory.
    """

    room = 2**16
    free_slots = 1  # each is a pass of its own

    def __init__(self, model: CausalLM, prompts: Sequence[Tensor]) -> None:
        self.model = model
        self.prompts = [prompt.to(model.dtype) for prompt in prompts]
        self.appended = [torch.zeros(0, dtype=torch.long, device=model.device)] * len(prompts)  # (slots,) each
        self.logits = torch.stack([self._last_logits(prompt) for prompt in self.prompts])

    def extend(self, tokens: Tensor, seen: Tensor, depth: Tensor, mentions: slice = slice(None)) -> Tensor:
        """See DecoderState."""
        start = seen.shape[-1] - tokens.shape[1]
        logits = []
        for mention, new, beams in zip(range(len(self.prompts))[mentions], tokens, seen, strict=True):
            slots = self.appended[mention] = torch.cat([self.appended[mention][:start], new])
            prompt = self.prompts[mention]
            rows = [torch.cat([prompt, self.model.embeddings(slots[ancestors])]) for ancestors in beams]
            logits.append(torch.stack([self._last_logits(row) for row in rows]))
        return torch.stack(logits)

    def _last_logits(self, row: Tensor) -> Tensor:
        """The logits after a row, (tokens, width) -> (vocab,)."""
        with torch.no_grad():
            keep = torch.tensor([len(row) - 1], device=self.model.device)
            return self.model.forward(row[None], keep, use_cache=False)[0, 0].float()


@dataclass(eq=False)
class PrefixLimits:
    """What self_check has found out about a model; all its decoders share it. Lengths are of a prompt with its name."""

    windows: AttentionWindows
    supported_length: int  # tokens beyond which positions depend on the length of the input
    max_length: int  # tokens of the longest prompt whose beams may share the prefix, as far as is known
    is_checked: bool = True  # False while prompts beyond the shortest window have not been tried


class Decoder:
    """Reads prompts with a language model, over shared prefixes if it supports them (made by `self_check`).

    Args:
        model: the language model.
        limits: prompts that may share their prefix.
        check_windows: tries prompts beyond the windows, if that was put off; returns what is wrong, or None.
    """

    def __init__(
        self, model: CausalLM, limits: PrefixLimits, check_windows: Callable[[CausalLM, PrefixLimits], str | None]
    ) -> None:
        self.model = model
        self.limits = limits
        self._check_windows = check_windows

    def prefill(
        self, prompts: Sequence[Tensor], *, tokens: int, room: int, sharing: Sharing | None = None
    ) -> DecoderState:
        """Read embedded prompts, (tokens, width) each, to be followed by names of at most so many tokens.

        `room` is the number of tokens of all the names that will be tried after a prompt. By `sharing` what prompts
        have in common is read once.
        """
        if self.can_share_prefix(max(len(prompt) for prompt in prompts), tokens, room):
            return SharedPrefixDecoder(self.model, prompts, room, self.limits.windows, sharing)
        return SequentialDecoder(self.model, prompts)

    def can_share_prefix(self, prompt: int, tokens: int, room: int) -> bool:
        """Whether a prompt of so many tokens can be decoded over a shared prefix (see `prefill`); warns once if not.

        Runs the check that was put off if this is the first prompt to need it.
        """
        limits, problem = self.limits, None
        positions = limits.windows.max_cache_length
        if positions is not None and prompt + room > positions:
            self.warn_sequential(f"prompts that take more than {positions} cache positions with their beams are", None)
            return False
        if prompt + tokens > limits.max_length and not limits.is_checked:
            limits.is_checked = True
            try:
                problem = self._check_windows(self.model, limits)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                problem = "there is not enough memory to check the shared prefix"
            if problem is None:
                limits.max_length = limits.supported_length
        if prompt + tokens <= limits.max_length:
            return True
        self.warn_sequential(f"prompts of more than {limits.max_length} tokens with their names are", problem)
        return False

    def warn_sequential(self, prompts: str, problem: str | None, remedy: str = "Show fewer demonstrations") -> None:
        """Warn once for each model that some prompts are decoded sequentially."""
        message = (
            f"The language model {self.model.name!r}: {prompts} decoded sequentially, with a plain forward pass per "
            f"beam and step{f' ({problem})' if problem else ''}, which is slow. The answers are the same. {remedy}."
        )
        warn_once(self.limits, message, ModelWarning)
