"""Small knowledge bases and corpora for the baselines."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import DocBin, Span

from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from tests.kb.conftest import CharacterTokenizer

PLANET, ELEMENT, GOD, CARS, CAT = "Q308", "Q925", "Q1150", "Q30055", "Q35694"
ROWS: list[dict[str, Any]] = [
    {
        "id": PLANET,
        "name": "Mercury (planet)",
        "aliases": ["Mercury"],
        "description": "planet near the sun",
        "count": 9,
    },
    {"id": ELEMENT, "name": "Mercury (element)", "aliases": ["Mercury", "Hg"], "description": "liquid metal"},
    {"id": GOD, "name": "Mercury", "description": "roman god of trade", "count": 3},
    {"id": CARS, "name": "Jaguar Cars", "aliases": ["Jaguar"], "description": "british maker of cars", "count": 5},
    {"id": CAT, "name": "Jaguar", "description": "big cat", "count": 5},
]
Mentions = Sequence[tuple[str, str]]


def make_kb(folder: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "entities.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    build_kb(source, folder / "kb", CharacterTokenizer(), progress=False)
    return folder / "kb"


def open_kb(folder: Path, rows: Sequence[dict[str, Any]] = ROWS) -> KnowledgeBase:
    return KnowledgeBase.open(make_kb(folder, rows))


def make_corpus(path: Path, docs: Sequence[tuple[str, Mentions]]) -> Path:
    """docs: text, and its mentions as (the words, the gold), each at the first place that is free."""
    nlp = spacy.blank("en")
    made = DocBin(store_user_data=True)
    for number, (text, mentions) in enumerate(docs):
        doc = nlp(text)
        spans: list[Span] = []
        for words, gold in mentions:
            start = text.index(words, spans[-1].end_char if spans else 0)
            span = doc.char_span(start, start + len(words), label="ENT")
            assert span is not None, (text, words)
            spans.append(Span(doc, span.start, span.end, label="ENT", kb_id=gold))
        doc.set_ents(spans)
        doc.user_data["id"] = f"d{number}"
        made.add(doc)
    made.to_disk(path)
    return path
