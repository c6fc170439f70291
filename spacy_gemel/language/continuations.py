"""Prompts and the beams after them: together in one pass, or the slow way, a plain forward pass per beam."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spacy_gemel.language.attention import beam_mask

if TYPE_CHECKING:
    from spacy_gemel.language.causal_lm import CausalLM


class Continuation(Protocol):
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


class Branches:
    """The fast way: the beams of a mention are query tokens of one sequence, over one copy of its prompt.

    room: tokens that will be appended at most, all beams counted.
    """

    def __init__(self, model: "CausalLM", prompts: Sequence[Tensor], room: int) -> None:
        from spacy_gemel.language.cache import SharedCache

        self.model = model
        self.cache = SharedCache(room)
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        self.depths = self.lengths.new_zeros(0)  # of the appended tokens, (slots,)
        # Padded on the right, so that plain causal attention needs no mask.
        padded = pad_sequence([prompt.to(model.dtype) for prompt in prompts], batch_first=True)
        self.width = padded.shape[1]
        with torch.no_grad():
            keep, where = torch.unique(self.lengths - 1, return_inverse=True)
            logits = model.forward(padded, keep, past_key_values=self.cache, use_cache=True)
            self.logits = logits[torch.arange(len(prompts), device=model.device), where].float()

    def extend(self, tokens: Tensor, seen: Tensor, depth: int) -> Tensor:
        """See Continuation."""
        beams = tokens.shape[1]
        self.depths = torch.cat([self.depths, self.depths.new_full((beams,), depth)])
        mask = beam_mask(self.model.reach, self.lengths, self.width, self.depths, seen, depth, self.model.dtype)
        with torch.no_grad():
            output = self.model.model(
                inputs_embeds=self.model.embeddings(tokens),
                attention_mask=mask,
                position_ids=(self.lengths[:, None] + depth).expand(-1, beams),
                past_key_values=self.cache,
                use_cache=True,
            )
        return output.logits.float()


class PlainRows:
    """The slow way, for models that cannot do the other: each beam a row with the whole prompt, no cache, no mask.

    It gives the same answers, for about as many prefills as there are beams and steps.
    """

    def __init__(self, model: "CausalLM", prompts: Sequence[Tensor]) -> None:
        self.model = model
        self.prompts = [prompt.to(model.dtype) for prompt in prompts]
        self.appended = torch.zeros((len(prompts), 0), dtype=torch.long, device=model.device)  # (mentions, slots)
        # One after the other: rows of one length need no padding, which not every model takes in the same way.
        self.logits = torch.cat([self._last(prompt[None]) for prompt in self.prompts])

    def extend(self, tokens: Tensor, seen: Tensor, depth: int) -> Tensor:
        """See Continuation."""
        self.appended = torch.cat([self.appended, tokens], dim=1)
        logits = []
        for prompt, slots, own in zip(self.prompts, self.appended, seen, strict=True):
            beams = len(own)
            said = slots.expand(beams, -1)[own].view(beams, depth + 1)
            rows = torch.cat([prompt.expand(beams, -1, -1), self.model.embeddings(said)], dim=1)
            logits.append(self._last(rows))
        return torch.stack(logits)

    def _last(self, rows: Tensor) -> Tensor:
        """The logits after each row: (rows, tokens, width) -> (rows, vocab)."""
        with torch.no_grad():
            keep = torch.tensor([rows.shape[1] - 1], device=self.model.device)
            return self.model.forward(rows, keep, use_cache=False)[:, 0].float()
