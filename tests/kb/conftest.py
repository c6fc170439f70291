from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from spacy_gemel.kb.builder import BuildReport, build_kb
from tests.kb.building import BATCH, ROWS, content, write_rows


class CharacterTokenizer:
    """One token per character of an alphabet; 0 is unknown, 1 is special and written "$"."""

    fingerprint = "characters-1"
    special_ids = frozenset({0, 1})
    alphabet = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789()'-.éüßλ東京都🪐\u200b\n"

    def __init__(self, vocab_size: int = 200, leading_space: bool = False) -> None:
        self.vocab_size = vocab_size
        self.leading_space = leading_space
        self.batches: list[int] = []

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        self.batches.append(len(texts))
        space = " " if self.leading_space else ""
        return [[self._id(letter) for letter in space + text] for text in texts]

    def _id(self, letter: str) -> int:
        # ids are spread over the vocabulary, so that large vocabularies are really used
        index = self.alphabet.find(letter)
        return 1 if letter == "$" else 0 if index < 0 else self.vocab_size - 1 - index

    def decode(self, ids: Sequence[int]) -> str:
        # a tokenizer that normalises: it does not tell ß from s
        return "".join(self.alphabet[self.vocab_size - 1 - i] if i > 1 else "?$"[i] for i in ids).replace("ß", "s")


Rows = list[dict[str, Any] | str]


@pytest.fixture(scope="session")
def tokenizer() -> CharacterTokenizer:
    return CharacterTokenizer()


@pytest.fixture(scope="session")
def tokenizer_class() -> type[CharacterTokenizer]:
    return CharacterTokenizer


@pytest.fixture(scope="session")
def build() -> Callable[..., BuildReport]:
    """Write rows (dicts, or raw lines) to folder/entities.jsonl and build folder/kb."""

    def run(
        folder: Path, rows: Rows, tokenizer: CharacterTokenizer | None = None, max_name_tokens: int = 32, **options: Any
    ) -> BuildReport:
        write_rows(folder, rows)
        tokenizer = tokenizer or CharacterTokenizer()
        source = folder / "entities.jsonl"
        options = {"max_name_tokens": max_name_tokens, "progress": False, **options}
        return build_kb(source, folder / "kb", tokenizer, **options)

    return run


@pytest.fixture
def planets() -> Rows:
    return [
        {"id": "Q1", "name": "New York", "count": 3},
        {
            "id": "Q2",
            "name": "New York City",
            "count": 90,
            "aliases": ["NYC", "Big Apple"],
            "description": "a city",
        },
        {"id": "Q3", "name": "Mercury", "count": 5, "description": None},
        {"id": "Q4", "name": "Mercury", "count": 7, "aliases": None},
        {"id": "Q5", "name": "Mercury", "count": 5},
        {"id": "東京", "name": "東京都 🪐"},
    ]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spacy_gemel.kb.builder.BATCH_ROWS", BATCH)


@pytest.fixture
def whole(tmp_path: Path, build: Callable[..., BuildReport], small_batches: None) -> dict[str, bytes]:
    """What a build of ROWS in one go writes."""
    (tmp_path / "whole").mkdir()
    return content(build(tmp_path / "whole", ROWS).path)
