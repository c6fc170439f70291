"""What the tests of builds share: tokenizers without a model, rows, and helpers to write and read them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spacy_gemel.kb.builder import BuildReport

Build = Callable[..., BuildReport]
ROOT = Path(__file__).resolve().parents[2]
BATCH = 8
ROWS: list[Any] = [{"id": f"Q{i % 60}", "name": f"name {i % 50}", "count": i} for i in range(70)] + ["{bad"]
ROWS[11] = {"id": "Q11", "name": "not $ sayable"}


class AnyTokenizer:
    """One token per character of any text."""

    fingerprint = "any"
    vocab_size = 2**17
    special_ids: frozenset[int] = frozenset()
    leading_space = False

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_rows(folder: Path, rows: Sequence[Any]) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "entities.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
