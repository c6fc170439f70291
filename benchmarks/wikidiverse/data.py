"""What the data folder gives: training examples, those held out to look at while training, and the entities."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import spacy
from spacy.tokens import DocBin

HELD_OUT = 0.1  # share of the training sentences that the language model never reads
_SEED = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """A mention in its text, and the name of its entity."""

    text: str
    mention: str
    name: str
    kb_id: str


@dataclass(frozen=True, slots=True)
class Known:
    """An entity of the knowledge base, as far as a text can be made of it."""

    name: str
    description: str
    aliases: tuple[str, ...]


def read_entities(path: Path) -> dict[str, Known]:
    """The entities of a JSON lines file, by id."""
    rows = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return {
        row["id"]: Known(row["name"], row.get("description") or "", tuple(row.get("aliases") or ())) for row in rows
    }


def read_examples(path: Path, entities: dict[str, Known]) -> list[list[Asked]]:
    """The mentions of each doc of a .spacy file whose gold is one of the entities."""
    docs = DocBin().from_disk(path).get_docs(spacy.blank("en").vocab)
    return [
        [Asked(doc.text, ent.text, entities[ent.kb_id_].name, ent.kb_id_) for ent in doc.ents if ent.kb_id_ in entities]
        for doc in docs
    ]


def split(docs: Iterable[list[Asked]]) -> tuple[list[Asked], list[Asked]]:
    """Mentions to train on, and those of the sentences held out, drawn by their text so that no text is in both."""
    kept: list[Asked] = []
    held: list[Asked] = []
    texts: dict[str, bool] = {}
    rng = np.random.default_rng(_SEED)
    for doc in docs:
        for asked in doc:
            if asked.text not in texts:
                texts[asked.text] = bool(rng.random() < HELD_OUT)
            (held if texts[asked.text] else kept).append(asked)
    return kept, held
