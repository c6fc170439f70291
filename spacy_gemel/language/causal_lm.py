"""A frozen causal language model: embed, prefill, extend, and the loss of a name (paper sections 3.2 and 3.3)."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spacy_gemel.language.tokenizer import NameTokenizer


@dataclass
class Prefilled:
    """Prompts that went through the model once: their keys and values, and what the model says next.

    cache: the model's key-value cache; one copy per mention, whatever the number of beams.
    lengths: tokens of each prompt, (mentions,); the cache is as wide as the longest.
    logits: scores of the first token after each prompt, (mentions, vocab).
    """

    cache: Any
    lengths: Tensor
    logits: Tensor
    width: int


class CausalLM:
    """A Hugging Face causal language model that never changes.

    All calls but `name_loss` run without gradients; the parameters never have one.
    """

    def __init__(self, model: Any, tokenizer: NameTokenizer, *, bos: bool = False) -> None:
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.bos = bos
        # Not hidden_size: OPT-350m's embeddings are narrower than its hidden states.
        self.embeddings = model.get_input_embeddings()
        self.width: int = self.embeddings.weight.shape[1]
        self.vocab_size: int = self.embeddings.weight.shape[0]
        self._has_logits_to_keep = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' type."""
        return self.embeddings.weight.dtype

    @property
    def max_length(self) -> int:
        """Tokens that prompt and name may have together.

        A sliding window counts as a limit: inside it every key is visible, so the search is exact.
        """
        config = self.model.config.get_text_config()
        limits = [getattr(config, name, None) for name in ("max_position_embeddings", "sliding_window")]
        return min((limit for limit in limits if limit), default=2**31 - 1)

    @property
    def embedding_size(self) -> float:
        """Root mean square of the elements of the token embeddings."""
        return float(self.embeddings.weight.float().square().mean().sqrt())

    def embed(self, ids: Sequence[int]) -> Tensor:
        """The embeddings of some token ids, (tokens, width)."""
        with torch.no_grad():
            return self.embeddings(torch.tensor(list(ids), dtype=torch.long, device=self.device))

    def prefill(self, prompts: Sequence[Tensor]) -> Prefilled:
        """Run embedded prompts, each (tokens, width), through the model once.

        They are padded on the right, so that plain causal attention needs no mask.
        """
        from transformers import DynamicCache

        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        padded = pad_sequence([prompt.to(self.dtype) for prompt in prompts], batch_first=True)
        last = lengths - 1
        with torch.no_grad():
            keep, where = torch.unique(last, return_inverse=True)
            logits, cache = self._forward(padded, keep, past_key_values=DynamicCache(), use_cache=True)
            logits = logits[torch.arange(len(prompts), device=self.device), where]  # (mentions, vocab)
        return Prefilled(cache, lengths, logits.float(), width=padded.shape[1])

    def extend(self, state: Prefilled, tokens: Tensor, seen: Tensor, depth: int) -> Tensor:
        """Append one token per beam, all beams of a mention as queries of one sequence.

        tokens: (mentions, beams) token ids.
        seen: (mentions, beams, slots + beams) bool, which appended tokens a beam may look at: its ancestors
            and itself. The prompt is seen by all.
        depth: tokens of the name before these.
        Returns the logits after each beam, (mentions, beams, vocab), in fp32.
        """
        _mentions, beams = tokens.shape
        columns = torch.arange(state.width, device=self.device)
        prompt_seen = columns < state.lengths[:, None]  # (mentions, width)
        visible = torch.cat([prompt_seen[:, None].expand(-1, beams, -1), seen], dim=-1)
        mask = torch.zeros(visible.shape, dtype=self.dtype, device=self.device)
        mask.masked_fill_(~visible, torch.finfo(self.dtype).min)
        positions = (state.lengths[:, None] + depth).expand(-1, beams)
        with torch.no_grad():
            output = self.model(
                inputs_embeds=self.embeddings(tokens),
                attention_mask=mask[:, None],  # (mentions, 1, beams, width + slots + beams)
                position_ids=positions,
                past_key_values=state.cache,
                use_cache=True,
            )
        state.cache = output.past_key_values
        return output.logits.float()

    def name_loss(self, prompts: Sequence[Tensor], names: Sequence[Sequence[int]]) -> Tensor:
        """Teacher forcing: mean cross-entropy over each name's tokens and its end, (mentions,).

        prompts: embedded prompts, (tokens, width) each, that may require a gradient.
        names: token ids of each name, the end included. Nothing else carries a label (paper eq. 4).
        """
        sequences = [
            torch.cat([prompt.to(self.dtype), self.embed(name[:-1])])
            for prompt, name in zip(prompts, names, strict=True)
        ]
        padded = pad_sequence(sequences, batch_first=True)
        # The position before a token predicts it.
        rows = [torch.arange(len(p) - 1, len(p) - 1 + len(n)) for p, n in zip(prompts, names, strict=True)]
        keep = torch.unique(torch.cat(rows)).to(self.device)
        logits, _ = self._forward(padded, keep, use_cache=False)
        losses = []
        for index, (row, name) in enumerate(zip(rows, names, strict=True)):
            picked = logits[index, torch.searchsorted(keep, row.to(self.device))]  # (name tokens, vocab)
            labels = torch.tensor(list(name), device=self.device)
            losses.append(torch.nn.functional.cross_entropy(picked.float(), labels))
        return torch.stack(losses)

    def _forward(self, embeddings: Tensor, keep: Tensor, **options: Any) -> tuple[Tensor, Any]:
        """Logits at the positions `keep` alone, (sequences, len(keep), vocab), and the cache."""
        if self._has_logits_to_keep:
            output = self.model(inputs_embeds=embeddings, logits_to_keep=keep, **options)
            return output.logits, output.past_key_values
        output = self.model(inputs_embeds=embeddings, **options)
        return output.logits[:, keep], output.past_key_values
