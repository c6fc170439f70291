"""Turns pretraining documents into token ids with a loss weight for every target."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerFast

from .prompts import Item, question

ANSWER, UNKNOWABLE, OTHER = 1.0, 0.02, 0.02  # weights of the loss: an answer, one that cannot be known, other text


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

    def items(self, items: list[Item]) -> tuple[list[int], list[float], list[bool]]:
        """A document's ids, the weight of each as a target, and whether it tells of a picture."""
        ids: list[int] = []
        weights: list[float] = []
        pictured: list[bool] = []
        newline = self("\n", remember=True)
        for item in items:
            if item.picture_words:
                phrase = self(item.kind, remember=True) * item.picture_words
                ids += phrase
                weights += [0.0] * len(phrase)
            asked = self(question(item.text, item.mention))
            answer = self(item.name, remember=True) + newline
            ids += asked + answer
            weights += [OTHER] * len(asked) + [ANSWER if item.knowable else UNKNOWABLE] * len(answer)
            pictured += [True] * (len(ids) - len(pictured) - len(asked) - len(answer))
            pictured += [False] * (len(asked) + len(answer))
        return ids, weights, pictured

    def prompt(self, items: list[Item]) -> list[int]:
        """The ids up to the last item's [Answer]: what the model sees at prediction."""
        ids = self.items(items)[0]
        return ids[: len(ids) - len(self(items[-1].name, remember=True)) - 1]
