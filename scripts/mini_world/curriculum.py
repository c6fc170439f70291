"""What the language model reads when: first to copy the name that stands by a key, then the paper's prompts.

Copying a name out of a demonstration comes late or never when it is taught as part of a prompt: between a picture and
the name lie thirty tokens. Here the way from the key to the name grows lesson by lesson, and a later lesson starts from
what an earlier one has taught. Every name of these lessons is invented for its document, so none can be known by heart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .captions import make_caption
from .names import KINDS
from .prompts import MAX_PICTURE_WORDS, PromptMaker, question
from .token_stream import ANSWER, OTHER, UNKNOWABLE, Encoder

# What stands between a key (a kind, or at first any word) and its name.
NOTHING, ANSWER_MARK, MENTION, QUESTION, CAPTION = range(5)


@dataclass(frozen=True, slots=True)
class Lesson:
    """A stretch of the training, up to step `until`, and what its rows are made of."""

    name: str
    until: int
    distance: int  # of its recall documents: half of them have this one, half any up to this one
    prompts: float = 0.0  # share of documents that are prompts, the rest are recall documents
    copied: float = 0.5  # share of the prompts that use invented names
    statements: float = 0.0  # share of documents that are plain statements
    picture_noise: float = 0.0  # up to so many times an embedding's own size, added to a picture's words


@dataclass
class Document:
    """Token ids, the loss's weight of each as a target, and whether it tells of a picture."""

    ids: list[int]
    weights: list[float]
    pictured: list[bool]

    def add(self, ids: list[int], weight: float, pictured: bool = False) -> None:
        """Append tokens that are alike."""
        self.ids += ids
        self.weights += [weight] * len(ids)
        self.pictured += [pictured] * len(ids)


def make_recall(maker: PromptMaker, encoder: Encoder, distance: int, rng: np.random.Generator) -> Document:
    """Lines of a key and a name, in any order and each said several times; asked is every name said before.

    From MENTION on a line has a mention too, and two mentions may share their kinds: then both must be matched.
    """
    readings: list[tuple[str, str, str]] = []  # mention, key, name
    kinds = rng.permutation(len(KINDS))
    for _ in range(1 + (int(rng.integers(2)) if distance >= MENTION else 0)):
        mention = maker.any_word(rng)
        if rng.random() < 0.5:
            kinds = rng.permutation(len(KINDS))
        for index in range(1 + int(rng.integers(3 if distance >= MENTION else 6))):
            key = maker.any_word(rng) if distance < MENTION and rng.random() < 0.5 else KINDS[int(kinds[index])]
            about = mention if distance >= MENTION else maker.any_word(rng)
            readings.append((mention, key, maker.invent_name(about, rng)))
    document = Document([], [], [])
    newline = encoder("\n", remember=True)
    known: set[tuple[str, str]] = set()
    for _ in range(min(2 * len(readings) + int(rng.integers(10)), 12 if distance == CAPTION else 30)):
        mention, key, name = readings[int(rng.integers(len(readings)))]
        times = 1 + int(rng.integers(MAX_PICTURE_WORDS)) if distance >= MENTION else 1
        document.add(encoder(key, remember=True) * times, 0.0, distance >= MENTION)
        if distance == ANSWER_MARK:
            document.add(encoder("\n[Answer]", remember=True), 0.0)
        elif distance == MENTION:
            document.add(encoder(f"[Text]{mention}\n[Answer]"), 0.0)
        elif distance == QUESTION:
            document.add(encoder(question(mention, mention)), 0.0)
        elif distance == CAPTION:
            document.add(encoder(question(make_caption(mention, key, rng)[0], mention)), 0.0)
        document.add(encoder(name, remember=True) + newline, ANSWER if (mention, key) in known else UNKNOWABLE)
        known.add((mention, key))
    return document


def make_document(maker: PromptMaker, encoder: Encoder, lesson: Lesson, rng: np.random.Generator) -> Document:
    """A document of a lesson, with the end token after it."""
    drawn = rng.random()
    if drawn < lesson.statements:
        document = Document([], [], [])
        document.add(encoder(maker.statement(rng) + maker.statement(rng)), 0.1)
    elif drawn < lesson.statements + lesson.prompts:
        document = Document(*encoder.items(maker.document(rng, lesson.copied)))
    else:
        near = rng.random() < 0.5
        document = make_recall(maker, encoder, lesson.distance if near else int(rng.integers(lesson.distance + 1)), rng)
    document.add([int(encoder.tokenizer.eos_token_id)], OTHER)
    return document


def make_rows(
    maker: PromptMaker, encoder: Encoder, lesson: Lesson, seed: int, start: int, number: int, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows `start` to `start + number` of a lesson's text.

    Returns ids int64, the loss's weights float32 and where the words of a picture stand, bool, each (number, length).
    Each row has its own generator, so that a run that starts again reads on where it stopped. Documents follow each
    other in a row; a row begins with a fresh document.
    """
    ids = np.zeros((number, length), dtype=np.int64)
    weights = np.zeros((number, length), dtype=np.float32)
    pictured = np.zeros((number, length), dtype=bool)
    for index in range(number):
        rng = np.random.default_rng([seed, 21, start + index])
        row = Document([], [], [])
        while len(row.ids) < length:
            document = make_document(maker, encoder, lesson, rng)
            row = Document(row.ids + document.ids, row.weights + document.weights, row.pictured + document.pictured)
        ids[index], weights[index], pictured[index] = row.ids[:length], row.weights[:length], row.pictured[:length]
    return ids, weights, pictured
