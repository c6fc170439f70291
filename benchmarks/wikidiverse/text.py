"""The text that the language model is trained on: prompts as the linker makes them, and lines of a mention and a name.

Four kinds of documents: training mentions below their nearest others, as at prediction; made mentions of the knowledge
base's entities, below the training mentions nearest to their names; the same with names that are wrong, so that what a
demonstration says has to be believed; and bare lines, which tell many names in few tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.wikidiverse.data import Asked, Known
from benchmarks.wikidiverse.forms import make_mention, words_in_front
from spacy_gemel.linking.prompt import query_text

# Weights of the loss: of a name with its end; of a demonstration's, read so often that it would be learned by heart;
# of one that nothing before it tells; of any other text.
ANSWER, SHOWN, UNKNOWABLE, PLAIN = 1.0, 0.15, 0.02, 0.02
NEIGHBOURS = 8


@dataclass(frozen=True, slots=True)
class Lesson:
    """A stretch of the training, up to step `until`: shares of lines, of short questions, and of wrong names."""

    name: str
    until: int
    lines: float
    questions: float
    wrong: float = 0.15
    real: float = 0.4


@dataclass
class Document:
    """Token ids, and the weight of each as a target."""

    ids: list[int]
    weights: list[float]

    def add(self, ids: Sequence[int], weight: float) -> None:
        """Append tokens that are alike."""
        self.ids += ids
        self.weights += [weight] * len(ids)


class TextMaker:
    """Makes documents of training examples and entities.

    near_example: places of the examples nearest to each example, itself left out, nearest first,
        (examples, NEIGHBOURS).
    near_entity: the examples nearest to each entity's name, (entities, NEIGHBOURS).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        eos: int,
        examples: Sequence[Asked],
        entities: Sequence[Known],
        near_example: NDArray[np.int64],
        near_entity: NDArray[np.int64],
    ) -> None:
        self.tokenizer = tokenizer
        self.eos = eos
        self.examples = examples
        self.entities = entities
        self.near_example = near_example
        self.near_entity = near_entity
        self.titles = words_in_front(examples)
        self._memory: dict[str, list[int]] = {}

    def rows(
        self, lesson: Lesson, seed: int, start: int, number: int, length: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows `start` to `start + number` of a lesson's text: ids and weights, (number, length) each.

        Each row has its own generator, so that a run that starts again reads on where it stopped.
        """
        ids = np.zeros((number, length), dtype=np.int64)
        weights = np.zeros((number, length), dtype=np.float32)
        for index in range(number):
            rng = np.random.default_rng([seed, start + index])
            row = Document([], [])
            while len(row.ids) < length:
                document = self._document(lesson, rng)
                row.ids += [*document.ids, self.eos]
                row.weights += [*document.weights, 0.0]
            ids[index], weights[index] = row.ids[:length], row.weights[:length]
        return ids, weights

    def _document(self, lesson: Lesson, rng: np.random.Generator) -> Document:
        document = Document([], [])
        drawn = rng.random()
        if drawn < lesson.lines + lesson.questions:
            write = self._line if drawn < lesson.lines else self._short
            if rng.random() < 0.5:
                self._wrong(document, write, rng)
            else:
                for _ in range(8):
                    entity = self._any(rng)
                    write(document, Asked("", make_mention(entity, self.titles, rng), entity.name, ""), ANSWER)
        elif drawn < lesson.lines + lesson.questions + (1 - lesson.lines - lesson.questions) * lesson.wrong:
            self._wrong(document, self._asked, rng)
        elif rng.random() < lesson.real:
            index = int(rng.integers(len(self.examples)))
            for near in self.near_example[index][: int(rng.integers(NEIGHBOURS + 1))][::-1]:
                self._asked(document, self.examples[near], SHOWN)
            self._asked(document, self.examples[index], ANSWER)
        else:
            index = int(rng.integers(len(self.entities)))
            for near in self.near_entity[index][: int(rng.integers(NEIGHBOURS + 1))][::-1]:
                self._asked(document, self.examples[near], SHOWN)
            self._asked(document, self._made(self.entities[index], rng), ANSWER)
            for _ in range(3):
                self._asked(document, self._made(self._any(rng), rng), ANSWER)
        return document

    def _any(self, rng: np.random.Generator) -> Known:
        return self.entities[int(rng.integers(len(self.entities)))]

    def _made(self, entity: Known, rng: np.random.Generator) -> Asked:
        """A made mention in a text: a training caption about something else, or the entity's description."""
        mention = make_mention(entity, self.titles, rng)
        drawn = rng.random()
        if drawn < 0.45 or not entity.description:
            other = self.examples[int(rng.integers(len(self.examples)))]
            text = other.text.replace(other.mention, mention)
        elif drawn < 0.75:
            text = f"{mention}, {entity.description}."
        elif drawn < 0.95:
            text = f"{entity.description[:1].upper()}{entity.description[1:]} {mention}."
        else:
            text = mention
        return Asked(text, mention, entity.name, "")

    def _wrong(
        self, document: Document, write: Callable[[Document, Asked, float], None], rng: np.random.Generator
    ) -> None:
        """Some mentions, each with another entity's name, said several times: from the second on it can be known."""
        pairs = []
        for _ in range(1 + int(rng.integers(3))):
            shown = self._made(self._any(rng), rng)
            pairs.append(Asked(shown.text, shown.mention, self._any(rng).name, ""))
        said: set[str] = set()
        for _ in range(2 * len(pairs) + int(rng.integers(3))):
            pair = pairs[int(rng.integers(len(pairs)))]
            other = self.examples[int(rng.integers(len(self.examples)))]
            text = other.text.replace(other.mention, pair.mention)
            write(document, Asked(text, pair.mention, pair.name, ""), ANSWER if pair.mention in said else UNKNOWABLE)
            said.add(pair.mention)

    def _asked(self, document: Document, asked: Asked, weight: float) -> None:
        document.add(self.encode(query_text(asked.text, asked.mention)), PLAIN)
        document.add(self.encode(asked.name) + self.encode("\n"), weight)

    def _short(self, document: Document, asked: Asked, weight: float) -> None:
        document.add(self.encode(query_text(asked.mention, asked.mention)), 0.0)
        document.add(self.encode(asked.name) + self.encode("\n"), weight)

    def _line(self, document: Document, asked: Asked, weight: float) -> None:
        document.add(self.encode(asked.mention + "\n[Answer]"), 0.0)
        document.add(self.encode(asked.name) + self.encode("\n"), weight)

    def encode(self, text: str) -> list[int]:
        """The ids of one piece of text, special tokens off; kept."""
        if text not in self._memory:
            if len(self._memory) > 200_000:
                self._memory.clear()
            self._memory[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self._memory[text]
