"""The text that the language model of this experiment is trained on, and its tokenizer.

Four kinds of documents: training mentions below their nearest others, as at prediction; invented mentions of the
knowledge base's entities, below the training mentions nearest to their names; the same with wrong names, so that the
model must believe its demonstrations; and bare lines of a mention and a name, which teach many names in few tokens.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import spacy
from numpy.typing import NDArray
from spacy.tokens import DocBin
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from spacy_gemel.linking.prompt import query_text

HELD_OUT = 0.1  # share of the training sentences that the language model never reads
_SEED = 5


@dataclass(frozen=True, slots=True)
class Query:
    """A mention in its text, and the name of its entity."""

    text: str
    mention: str
    name: str
    kb_id: str


@dataclass(frozen=True, slots=True)
class EntityText:
    """An entity of the knowledge base, as far as a text can be made of it."""

    name: str
    description: str
    aliases: tuple[str, ...]


def read_entities(path: Path) -> dict[str, EntityText]:
    """The entities of a JSON lines file, by id."""
    rows = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return {
        row["id"]: EntityText(row["name"], row.get("description") or "", tuple(row.get("aliases") or ()))
        for row in rows
    }


def read_examples(path: Path, entities: dict[str, EntityText]) -> list[list[Query]]:
    """The mentions of each doc of a .spacy file whose gold is one of the entities."""
    docs = DocBin().from_disk(path).get_docs(spacy.blank("en").vocab)
    return [
        [Query(doc.text, ent.text, entities[ent.kb_id_].name, ent.kb_id_) for ent in doc.ents if ent.kb_id_ in entities]
        for doc in docs
    ]


def split(docs: Iterable[list[Query]]) -> tuple[list[Query], list[Query]]:
    """Mentions to train on, and those of the sentences held out, drawn by their text so that no text is in both."""
    training: list[Query] = []
    held_out: list[Query] = []
    texts: dict[str, bool] = {}
    rng = np.random.default_rng(_SEED)
    for doc in docs:
        for query in doc:
            if query.text not in texts:
                texts[query.text] = bool(rng.random() < HELD_OUT)
            (held_out if texts[query.text] else training).append(query)
    return training, held_out


_QUALIFIED = re.compile(r"\s*(\([^)]*\)|,.*)$")
# How often a form is drawn; the bare name if a name does not have the form.
_FORMS = {"bare": 0.28, "alias": 0.17, "last": 0.17, "part": 0.1, "titled": 0.12, "initials": 0.04, "lower": 0.12}
_TYPO, _POSSESSIVE, _PLURAL = 0.04, 0.05, 0.04


def bare_name(name: str) -> str:
    """A name without its qualifier: "Mercury" of "Mercury (planet)"."""
    return _QUALIFIED.sub("", name) or name


def words_in_front(examples: Sequence[Query]) -> list[str]:
    """What stands before a name in the training mentions, as often as it does: "President", "the", "Premier"."""
    words = []
    for query in examples:
        bare = bare_name(query.name)
        if query.mention.endswith(" " + bare):
            words.append(query.mention[: -len(bare) - 1])
    return words or ["the"]


def make_mention(entity: EntityText, titles: Sequence[str], rng: np.random.Generator) -> str:
    """One of the forms of an entity."""
    bare = bare_name(entity.name)
    words = bare.split()
    kind = str(rng.choice(list(_FORMS), p=list(_FORMS.values())))
    mention = bare
    if kind == "alias" and entity.aliases:
        mention = entity.aliases[int(rng.integers(len(entity.aliases)))]
    elif kind == "last" and len(words) > 1:
        mention = words[-1]
    elif kind == "part" and len(words) > 1:
        start = int(rng.integers(len(words)))
        mention = " ".join(words[start : start + 1 + int(rng.integers(2))])
    elif kind == "titled":
        mention = f"{titles[int(rng.integers(len(titles)))]} {bare}"
    elif kind == "initials" and len(words) > 2:
        mention = "".join(word[0] for word in words if word[0].isupper()) or bare
    elif kind == "lower":
        mention = bare[:1].lower() + bare[1:] if rng.random() < 0.5 else bare.lower()
    return _blur(mention, rng)


def _blur(mention: str, rng: np.random.Generator) -> str:
    """Rarely a typo, a possessive or a plural."""
    drawn = rng.random()
    if drawn < _TYPO and len(mention) > 4:
        index = 1 + int(rng.integers(len(mention) - 2))
        return mention[:index] + mention[index + 1 :]
    if drawn < _TYPO + _POSSESSIVE:
        return mention + "'s"
    if drawn < _TYPO + _POSSESSIVE + _PLURAL:
        return mention + "s"
    return mention


EOS = "<|end|>"
# One token each, and what follows one begins with a space, as in SentencePiece: so a name has the same tokens in a
# text, in a question and as an answer, and can be copied.
FRAME = ("\n", "[Text]", "[Question]What does", " mentioned in the text refer to?", "[Answer]")
VOCABULARY = 4096
POSITIONS = 640


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE. The end-of-sequence token is the only special one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(FRAME),
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(words, normalized=False, special=False) for words in FRAME])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=EOS,
        clean_up_tokenization_spaces=False,
        model_max_length=POSITIONS,
    )


# Weights of the loss: of a name with its end; of a demonstration's name, read so often that it would be learned by
# heart; of a name that cannot be known yet; of any other text.
ANSWER, DEMONSTRATION, UNKNOWABLE, OTHER = 1.0, 0.15, 0.02, 0.02
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
        """Append tokens with the same weight."""
        self.ids += ids
        self.weights += [weight] * len(ids)


class TextMaker:
    """Makes documents of training examples and entities.

    near_example: indices of the examples nearest to each other example, nearest first, (examples, NEIGHBOURS).
    near_entity: of the examples nearest to each entity's name, (entities, NEIGHBOURS).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        eos: int,
        examples: Sequence[Query],
        entities: Sequence[EntityText],
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

        Each row has its own generator, so that a resumed run reads the same rows.
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
                    write(document, Query("", make_mention(entity, self.titles, rng), entity.name, ""), ANSWER)
        elif drawn < lesson.lines + lesson.questions + (1 - lesson.lines - lesson.questions) * lesson.wrong:
            self._wrong(document, self._question, rng)
        elif rng.random() < lesson.real:
            index = int(rng.integers(len(self.examples)))
            for near in self.near_example[index][: int(rng.integers(NEIGHBOURS + 1))][::-1]:
                self._question(document, self.examples[near], DEMONSTRATION)
            self._question(document, self.examples[index], ANSWER)
        else:
            index = int(rng.integers(len(self.entities)))
            for near in self.near_entity[index][: int(rng.integers(NEIGHBOURS + 1))][::-1]:
                self._question(document, self.examples[near], DEMONSTRATION)
            self._question(document, self._invented(self.entities[index], rng), ANSWER)
            for _ in range(3):
                self._question(document, self._invented(self._any(rng), rng), ANSWER)
        return document

    def _any(self, rng: np.random.Generator) -> EntityText:
        return self.entities[int(rng.integers(len(self.entities)))]

    def _invented(self, entity: EntityText, rng: np.random.Generator) -> Query:
        """An invented mention in a training caption about something else, or in the entity's description."""
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
        return Query(text, mention, entity.name, "")

    def _wrong(
        self, document: Document, write: Callable[[Document, Query, float], None], rng: np.random.Generator
    ) -> None:
        """A few mentions with other entities' names, several times: from the second time on they can be known."""
        pairs = []
        for _ in range(1 + int(rng.integers(3))):
            invented = self._invented(self._any(rng), rng)
            pairs.append(Query(invented.text, invented.mention, self._any(rng).name, ""))
        known: set[str] = set()
        for _ in range(2 * len(pairs) + int(rng.integers(3))):
            pair = pairs[int(rng.integers(len(pairs)))]
            other = self.examples[int(rng.integers(len(self.examples)))]
            text = other.text.replace(other.mention, pair.mention)
            write(document, Query(text, pair.mention, pair.name, ""), ANSWER if pair.mention in known else UNKNOWABLE)
            known.add(pair.mention)

    def _question(self, document: Document, query: Query, weight: float) -> None:
        document.add(self.encode(query_text(query.text, query.mention)), OTHER)
        document.add(self.encode(query.name) + self.encode("\n"), weight)

    def _short(self, document: Document, query: Query, weight: float) -> None:
        document.add(self.encode(query_text(query.mention, query.mention)), 0.0)
        document.add(self.encode(query.name) + self.encode("\n"), weight)

    def _line(self, document: Document, query: Query, weight: float) -> None:
        document.add(self.encode(query.mention + "\n[Answer]"), 0.0)
        document.add(self.encode(query.name) + self.encode("\n"), weight)

    def encode(self, text: str) -> list[int]:
        """The ids of a piece of text, without special tokens; cached."""
        if text not in self._memory:
            if len(self._memory) > 200_000:
                self._memory.clear()
            self._memory[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self._memory[text]
