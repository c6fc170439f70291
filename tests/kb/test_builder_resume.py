"""Builds that do not get to their end: what they leave, and that the next one goes on to the same bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.check import check_kb
from spacy_gemel.kb.entity import KBError
from tests.kb.building import BATCH, ROWS, Build, content, write_rows

pytestmark = pytest.mark.usefixtures("small_batches")


def interrupted_after(tokenizer_class: Any, batches: int, error: BaseException) -> Any:
    class Interrupted(tokenizer_class):  # type: ignore[misc]
        def encode(self, texts: Sequence[str]) -> list[list[int]]:
            if len(self.batches) == batches:
                raise error
            return super().encode(texts)  # type: ignore[no-any-return]

    return Interrupted()


@pytest.mark.parametrize("batches", [0, 4, 7])
def test_goes_on_after_an_interrupt(
    tmp_path: Path, build: Build, tokenizer_class: Any, whole: dict[str, bytes], batches: int
) -> None:
    build(tmp_path, [{"id": "old", "name": "old"}])
    old = content(tmp_path / "kb")
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, ROWS, interrupted_after(tokenizer_class, batches, KeyboardInterrupt()))
    assert content(tmp_path / "kb") == old
    assert (tmp_path / ".kb.building").exists() == bool(batches)
    tokenizer = tokenizer_class()
    report = build(tmp_path, ROWS, tokenizer)
    assert report.resumed == batches * BATCH
    assert len(tokenizer.batches) == 8 - batches
    assert content(tmp_path / "kb") == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entities.jsonl", "kb", "whole"]
    assert any(f"names of {report.resumed} entities" in line for line in report.lines()) == bool(batches)


def test_says_how_much_it_found(
    tmp_path: Path, build: Build, tokenizer_class: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, ROWS, interrupted_after(tokenizer_class, 3, KeyboardInterrupt()))
    build_kb(tmp_path / "entities.jsonl", tmp_path / "kb", tokenizer_class())
    assert "has tokenised 3 batches of 8 names: resuming" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["input", "tokenizer", "special", "vocabulary", "space", "limit", "rows"])
def test_goes_on_only_with_the_same_build(
    tmp_path: Path, build: Build, tokenizer_class: Any, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, ROWS, interrupted_after(tokenizer_class, 4, KeyboardInterrupt()))
    rows, tokenizer, limit = list(ROWS), tokenizer_class(leading_space=change == "space"), 32
    if change == "input":
        rows[-2] = {"id": "Q1", "name": "another"}
    elif change == "tokenizer":
        tokenizer.fingerprint = "characters-2"
    elif change == "special":
        tokenizer.special_ids = frozenset({0, 1, 2})
    elif change == "vocabulary":
        tokenizer = tokenizer_class(vocab_size=201)
    elif change == "limit":
        limit = 31
    elif change == "rows":
        monkeypatch.setattr("spacy_gemel.kb.builder.BATCH_ROWS", 9)
    report = build(tmp_path, rows, tokenizer, limit)
    assert report.resumed == 0
    assert check_kb(tmp_path / "kb") == []
    assert not (tmp_path / ".kb.building").exists()


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "other"])
def test_damaged_batch_is_tokenised_again(
    tmp_path: Path, build: Build, tokenizer_class: Any, whole: dict[str, bytes], damage: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, ROWS, interrupted_after(tokenizer_class, 4, KeyboardInterrupt()))
    first, second, *_ = sorted((tmp_path / ".kb.building").glob("tokens-*/*.npz"))
    sound = first.read_bytes()
    flipped = sound[:200] + bytes([sound[200] ^ 1]) + sound[201:]
    first.write_bytes({"flipped": flipped, "cut": sound[:-30], "empty": b"", "other": second.read_bytes()[:50]}[damage])
    report = build(tmp_path, ROWS)
    assert report.resumed == 3 * BATCH
    assert content(tmp_path / "kb") == whole


def test_input_that_changes_meanwhile(tmp_path: Path, build: Build, tokenizer_class: Any) -> None:
    class Meddler(tokenizer_class):  # type: ignore[misc]
        def encode(self, texts: Sequence[str]) -> list[list[int]]:
            with (tmp_path / "entities.jsonl").open("a") as file:
                file.write('{"id": "new", "name": "new"}\n')
            return super().encode(texts)  # type: ignore[no-any-return]

    with pytest.raises(KBError, match="changed while it was read"):
        build(tmp_path, ROWS, Meddler())
    assert [path.name for path in tmp_path.iterdir()] == ["entities.jsonl"]


def test_names_of_another_file_are_not_taken(
    tmp_path: Path, build: Build, tokenizer_class: Any, whole: dict[str, bytes]
) -> None:
    """The file was another while its names were tokenised, and was put back after the interrupt."""

    class Overwriter(tokenizer_class):  # type: ignore[misc]
        def encode(self, texts: Sequence[str]) -> list[list[int]]:
            if len(self.batches) == 4:
                raise KeyboardInterrupt
            return super().encode(texts)  # type: ignore[no-any-return]

        @property
        def fingerprint(self) -> str:
            # asked for between the two readings of the file
            other = [row if isinstance(row, str) else {**row, "name": row["name"][::-1]} for row in ROWS]
            write_rows(tmp_path, other)
            return str(tokenizer_class.fingerprint)

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, ROWS, Overwriter())
    assert len(list(tmp_path.glob(".kb.building/tokens-*/*.npz"))) == 4
    assert build(tmp_path, ROWS).resumed == 0
    assert content(tmp_path / "kb") == whole
