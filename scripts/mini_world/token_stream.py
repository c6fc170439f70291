"""Turns pretraining documents into rows of token ids with a loss weight for every target."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerFast

from .prompts import Item, PromptMaker, question

ANSWER, UNKNOWABLE, PLAIN = 1.0, 0.02, 0.02  # weights of the loss: an answer, one that cannot be known, other text


@dataclass
class Encoder:
    """Tokenises segments one by one, remembering what it has seen."""

    tokenizer: PreTrainedTokenizerFast
    memory: dict[str, list[int]] = field(default_factory=dict)

    def __call__(self, text: str, remember: bool = False) -> list[int]:
        """Ids of one segment, special tokens off."""
        if remember and text in self.memory:
            return self.memory[text]
        ids: list[int] = self.tokenizer._tokenizer.encode(text, add_special_tokens=False).ids
        if remember:
            self.memory[text] = ids
        return ids

    def items(self, items: list[Item]) -> tuple[list[int], list[float]]:
        """A document's ids and the weight of each as a target."""
        ids: list[int] = []
        weights: list[float] = []
        newline = self("\n", remember=True)
        for item in items:
            if item.picture_words:
                phrase = self(item.kind, remember=True) * item.picture_words
                ids += phrase
                weights += [0.0] * len(phrase)
            asked = self(question(item.text, item.mention))
            answer = self(item.name, remember=True) + newline
            ids += asked + answer
            weights += [PLAIN] * len(asked) + [ANSWER if item.knowable else UNKNOWABLE] * len(answer)
        return ids, weights

    def prompt(self, items: list[Item]) -> list[int]:
        """The ids up to the last item's [Answer]: what the model sees at prediction."""
        ids, _ = self.items(items)
        return ids[: len(ids) - len(self(items[-1].name, remember=True)) - 1]


def make_rows(
    maker: PromptMaker,
    encoder: Encoder,
    seed: int,
    start: int,
    number: int,
    length: int,
    copy_share: float,
    longest: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows `start` to `start + number` of the pretraining text: ids (number, length) int16 and weights float32.

    Each row has its own generator, so that a run that starts again reads on where it stopped. Documents follow each
    other in a row with the end token between them; a row begins with a fresh document.
    """
    eos = int(encoder.tokenizer.eos_token_id)
    rows = np.full((number, length), eos, dtype=np.int64)
    row_weights = np.zeros((number, length), dtype=np.float32)
    for place in range(number):
        rng = np.random.default_rng([seed, 21, start + place])
        ids: list[int] = []
        weights: list[float] = []
        while len(ids) < length:
            if rng.random() < 0.08:
                more = encoder(maker.statement(rng) + maker.statement(rng))
                ids += [*more, eos]
                weights += [0.1] * len(more) + [PLAIN]
            else:
                more, more_weights = encoder.items(maker.document(rng, copy_share, longest))
                ids += [*more, eos]
                weights += [*more_weights, PLAIN]
        rows[place] = ids[:length]
        row_weights[place] = weights[:length]
    return rows, row_weights
