"""Prompts and the beams after them: together in one pass, or the slow way, a plain forward pass per beam."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spacy_gemel.decoding.attention import beam_mask

if TYPE_CHECKING:
    from spacy_gemel.models.causal_lm import CausalLM

# Prompt tokens in one pass. On a CPU two prompts of a thousand tokens keep all cores busy, and the activations of more
# outgrow its caches: seven at once took up to a fifth longer.
_AT_ONCE = {"cpu": 2048}
# Numbers in the logits of one pass: prompts of unlike length ask for the logits at all their ends.
_LOGITS = 2**26


class DecoderState(Protocol):
    """Prompts that the model has read, and what it says next.

    logits: scores of the first token after each prompt, (mentions, vocab), in fp32.
    """

    logits: Tensor

    def extend(self, tokens: Tensor, seen: Tensor, depth: int) -> Tensor:
        """Append one token per beam; the logits after each, (mentions, beams, vocab), in fp32.

        tokens: (mentions, beams) token ids.
        seen: (mentions, beams, slots) bool, which of all tokens appended so far are a beam's ancestors or itself.
            The slots of these tokens are the last ones.
        depth: tokens of a name before these.
        """
        ...

    def rewind(self) -> None:
        """Forget what was appended, so that other names may follow the prompts; they are not read again."""
        ...


class SharedPrefixDecoder:
    """The fast way: the beams of a mention are query tokens of one sequence, over one copy of its prompt.

    room: tokens that will be appended at most, all beams counted.
    """

    def __init__(self, model: "CausalLM", prompts: Sequence[Tensor], room: int) -> None:
        from spacy_gemel.decoding.kv_cache import SharedCache

        self.model = model
        self.reach = model.reach
        lengths = [len(prompt) for prompt in prompts]
        self.lengths = torch.tensor(lengths, device=model.device)
        self.width = max(lengths)
        self.depths = self.lengths.new_zeros(0)  # of the appended tokens, (slots,)
        self.cache = SharedCache(len(prompts), self.width, room)
        self.logits = torch.cat([self._read(prompts, part) for part in self._parts(lengths)])

    def _parts(self, lengths: Sequence[int]) -> Iterator[slice]:
        """The prompts in passes, in their order."""
        tokens = _AT_ONCE.get(self.model.device.type)
        start = 0
        for stop in range(1, len(lengths) + 1):
            taken = lengths[start : stop + 1]
            full = tokens is not None and len(taken) * max(taken) > tokens
            full |= len(taken) * len(set(taken)) * self.model.vocab_size > _LOGITS
            if stop == len(lengths) or full:
                yield slice(start, stop)
                start = stop

    def _read(self, prompts: Sequence[Tensor], part: slice) -> Tensor:
        """The logits after some of the prompts, (prompts, vocab), their keys and values kept."""
        # Padded on the right, so that plain causal attention needs no mask.
        padded = pad_sequence([prompt.to(self.model.dtype) for prompt in prompts[part]], batch_first=True)
        with torch.no_grad(), self.cache.reading(part):
            keep, where = torch.unique(self.lengths[part] - 1, return_inverse=True)
            logits = self.model.forward(padded, keep, use_cache=True, **{self.model.cache_argument: self.cache})
            return logits[torch.arange(len(padded), device=padded.device), where].float()

    def extend(self, tokens: Tensor, seen: Tensor, depth: int) -> Tensor:
        """See Continuation."""
        beams = tokens.shape[1]
        self.depths = torch.cat([self.depths, self.depths.new_full((beams,), depth)])
        mask = beam_mask(self.reach, self.lengths, self.width, self.depths, seen, depth, self.model.dtype)
        with torch.no_grad():
            output = self.model.model(
                inputs_embeds=self.model.embeddings(tokens),
                attention_mask=mask,
                position_ids=(self.lengths[:, None] + depth).expand(-1, beams),
                use_cache=True,
                **{self.model.cache_argument: self.cache},
            )
        return output.logits.float()

    def rewind(self) -> None:
        """See Continuation."""
        self.depths = self.lengths.new_zeros(0)
        self.cache.rewind()


class SequentialDecoder:
    """The slow way, for models that cannot do the other: each beam a row with the whole prompt, no cache, no mask.

    It gives the same answers, for about as many prefills as there are beams and steps. Rows go one after the other, as
    each of them holds as much as a prefill.
    """

    def __init__(self, model: "CausalLM", prompts: Sequence[Tensor]) -> None:
        self.model = model
        self.prompts = [prompt.to(model.dtype) for prompt in prompts]
        self.appended = torch.zeros((len(prompts), 0), dtype=torch.long, device=model.device)  # (mentions, slots)
        self.logits = torch.stack([self._last(prompt) for prompt in self.prompts])

    def extend(self, tokens: Tensor, seen: Tensor, depth: int) -> Tensor:
        """See Continuation."""
        self.appended = torch.cat([self.appended, tokens], dim=1)
        logits = []
        for prompt, slots, beams in zip(self.prompts, self.appended, seen, strict=True):
            rows = [torch.cat([prompt, self.model.embeddings(slots[own])]) for own in beams]
            logits.append(torch.stack([self._last(row) for row in rows]))
        return torch.stack(logits)

    def rewind(self) -> None:
        """See Continuation."""
        self.appended = self.appended[:, :0]

    def _last(self, row: Tensor) -> Tensor:
        """The logits after a row, (tokens, width) -> (vocab,)."""
        with torch.no_grad():
            keep = torch.tensor([len(row) - 1], device=self.model.device)
            return self.model.forward(row[None], keep, use_cache=False)[0, 0].float()
