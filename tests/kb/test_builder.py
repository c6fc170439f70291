"""Building: what is taken, what is left out and counted, and what an error leaves behind."""

import hashlib
import json
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spacy_gemel.kb.builder import BATCH_ROWS, BuildReport, build_kb
from spacy_gemel.kb.check import check_kb
from spacy_gemel.kb.entity import Entity, KBError
from spacy_gemel.kb.jsonl import MAX_TEXT, RowProblem, SkippedRows, parse_row, read_entities
from spacy_gemel.kb.knowledge_base import KnowledgeBase

Build = Callable[..., BuildReport]


def entities(kb: KnowledgeBase) -> list[str]:
    return [kb.entity(row).kb_id for row in range(len(kb))]


BAD_ROWS = {
    "{not json": "bad_json",
    '["Q1", "a list"]': "bad_json",
    '"text"': "bad_json",
    "[" * 100_000: "bad_json",
    '{"name": "no id"}': "bad_field",
    '{"id": "", "name": "empty id"}': "bad_field",
    '{"id": 7, "name": "number id"}': "bad_field",
    '{"id": "Q7"}': "bad_field",
    '{"id": "Q7", "name": null}': "bad_field",
    '{"id": "Q7", "name": "x", "count": -1}': "bad_field",
    '{"id": "Q7", "name": "x", "count": 1.5}': "bad_field",
    '{"id": "Q7", "name": "x", "count": true}': "bad_field",
    '{"id": "Q7", "name": "x", "count": 9223372036854775808}': "bad_field",
    '{"id": "Q7", "name": "x", "aliases": "text"}': "bad_field",
    '{"id": "Q7", "name": "x", "aliases": ["a", null]}': "bad_field",
    '{"id": "Q7", "name": "x", "description": ["d"]}': "bad_field",
    '{"id": "Q7", "name": "x \\ud83e"}': "bad_field",
    '{"id": "Q7", "name": "x", "aliases": ["\\ud83e"]}': "bad_field",
}


@pytest.mark.parametrize("line", BAD_ROWS)
def test_bad_row_is_skipped_and_named(tmp_path: Path, build: Build, line: str) -> None:
    report = build(tmp_path, [{"id": "Q1", "name": "one"}, "", line, {"id": "Q2", "name": "two"}])
    assert entities(KnowledgeBase.open(report.path)) == ["Q1", "Q2"]
    assert {reason: item.count for reason, item in report.meta.skipped.items()} == {BAD_ROWS[line]: 1}
    (example,) = report.meta.skipped[BAD_ROWS[line]].examples
    assert example.startswith("entities.jsonl:3: ")
    assert any("entities.jsonl:3" in text for text in report.lines())


def test_an_id_that_is_a_number_is_shown() -> None:
    """As data frames write them."""
    assert parse_row(b'{"id": 308, "name": "Mercury"}') == RowProblem(
        "bad_field", '"id" must be a text that is not empty, not 308'
    )


def test_bytes_that_are_no_text(tmp_path: Path, tokenizer: Any) -> None:
    source = tmp_path / "entities.jsonl"
    source.write_bytes(
        b'\xef\xbb\xbf{"id": "Q1", "name": "one"}\r\n{"id": "Q2", "name": "\xff"}\n{"id": "Q3", "name": "e"}'
    )
    report = build_kb(source, tmp_path / "kb", tokenizer, progress=False)
    assert report.meta.skipped["bad_json"].count == 1
    assert entities(KnowledgeBase.open(tmp_path / "kb")) == ["Q1", "Q3"]


@pytest.mark.parametrize("length", [99, 100, 101, 107, 108, 140])
@pytest.mark.parametrize("end", ["\n", ""])
def test_line_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, end: str) -> None:
    monkeypatch.setattr("spacy_gemel.kb.jsonl.MAX_LINE", 100)
    monkeypatch.setattr("spacy_gemel.kb.jsonl._CHUNK", 7)
    source = tmp_path / "entities.jsonl"
    long = '{"id": "Q2", "name": "two"}'
    long += " " * (length - len(long) - len(end)) + end
    source.write_text('{"id": "Q1", "name": "one"}\n' + long + ('{"id": "Q3", "name": "three"}' if end else ""))
    sha256, skipped = hashlib.sha256(), SkippedRows("entities.jsonl")
    entities = list(read_entities(source, sha256, skipped, "Reading", 1, progress=False))
    assert [number for number, _ in entities] == [1, *[2] * (length <= 100), *[3] * bool(end)]
    assert [item.count for item in skipped.summary().values()] == [1] * (length > 100)
    assert sha256.hexdigest() == hashlib.sha256(source.read_bytes()).hexdigest()


def test_text_of_a_row_is_bounded(tmp_path: Path, build: Build) -> None:
    """So that a batch is: its text can come nowhere near what a column of Arrow's, or the memory, can hold."""
    assert BATCH_ROWS * MAX_TEXT <= 2**28
    fits = [
        {"id": "Q1", "name": "one", "description": "d" * (MAX_TEXT - 5)},
        {"id": "Q2", "name": "two", "description": "é" * ((MAX_TEXT - 5) // 2)},
        {"id": "Q3", "name": "three", "aliases": [""] * ((MAX_TEXT - 7) // 16)},
        {"id": "Q4", "name": "four", "more": "m" * 2 * MAX_TEXT},
    ]
    over = [
        {"id": "Q5", "name": "five", "description": "d" * (MAX_TEXT - 5)},
        {"id": "Q6", "name": "six", "description": "é" * (MAX_TEXT // 2)},
        {"id": "Q7", "name": "seven", "aliases": [""] * (MAX_TEXT // 16)},
        {"id": "Q8", "name": "n" * MAX_TEXT},
        {"id": "Q" * MAX_TEXT, "name": "nine"},
    ]
    report = build(tmp_path, [row for pair in zip_longest(fits, over) for row in pair if row])
    kb = KnowledgeBase.open(report.path)
    assert entities(kb) == ["Q1", "Q2", "Q3", "Q4"]
    assert [len(kb.entity(row).description or "") for row in (0, 1)] == [65531, 32765]
    skipped = report.meta.skipped["bad_field"]
    assert (skipped.count, len(report.meta.skipped)) == (5, 1)
    assert "'Q5' have 65537 bytes (an alias 16 more), the limit is 65536" in skipped.examples[0]
    assert all(len(example) < 250 for example in skipped.examples)


def test_examples_are_short(tmp_path: Path, build: Build) -> None:
    long = "n" * 5000
    rows = [
        {"id": "Q1", "name": "one"},
        {"id": "Q2", "name": long},
        {"id": "Q3", "name": long + "$"},
        {"id": "Q4", "name": f"{long}\n{long}"},
        {"id": long, "name": 4},
        {"id": "Q5", "name": "x", "count": long},
        {"id": "Q6", "name": "straße" * 800},
    ]
    report = build(tmp_path, [*rows, {"id": long, "name": "one"}, {"id": long, "name": "two"}], max_name_tokens=254)
    examples = [example for item in report.meta.skipped.values() for example in item.examples]
    assert len(examples) == 7
    assert all(len(example) < 350 for example in examples)
    assert (report.path / "meta.json").stat().st_size < 5000


def test_first_of_a_repeated_id_stays(tmp_path: Path, build: Build) -> None:
    rows = [
        {"id": "Q1", "name": 3},
        {"id": "Q1", "name": "first", "count": 1},
        {"id": "Q2", "name": "other"},
        {"id": "Q1", "name": "second", "count": 9},
        {"id": "Q1", "name": "third"},
    ]
    report = build(tmp_path, rows)
    kb = KnowledgeBase.open(report.path)
    assert (len(kb), kb.row("Q1")) == (2, 0)
    assert kb.entity(0) == Entity("Q1", "first", 1)
    assert report.meta.skipped["duplicate_id"].count == 2
    assert "entities.jsonl:4" in report.meta.skipped["duplicate_id"].examples[0]


NOT_IN_TRIE = {
    "": "empty_name",
    "  ": "empty_name",
    "one$two": "special_token",
    "unknown €": "special_token",
    "two\nlines": "line_break",
    "Straße": "not_reversible",
    "a" * 33: "too_long",
}


@pytest.mark.parametrize("name", NOT_IN_TRIE)
def test_name_that_cannot_enter_the_trie(tmp_path: Path, build: Build, tokenizer: Any, name: str) -> None:
    report = build(tmp_path, [{"id": "Q0", "name": name}, {"id": "Q1", "name": "a" * 32}])
    kb = KnowledgeBase.open(report.path)
    # the entity stays, so that a gold id resolves; the trie does not lead to it
    assert kb.row("Q0") == 0
    assert kb.entity(0).name == name.strip()
    assert kb.trie.leaf_rows.tolist() == [1]
    assert {reason: item.count for reason, item in report.meta.skipped.items()} == {NOT_IN_TRIE[name]: 1}
    assert "entities.jsonl:1: " in report.meta.skipped[NOT_IN_TRIE[name]].examples[0]
    assert check_kb(report.path) == []


def test_limit_is_counted_and_examples_are_few(tmp_path: Path, build: Build) -> None:
    rows = [{"id": f"Q{i}", "name": "a" * (i + 1)} for i in range(20)]
    report = build(tmp_path, rows, max_name_tokens=4)
    assert (report.meta.entities, report.meta.names) == (20, 4)
    assert report.meta.skipped["too_long"].count == 16
    assert len(report.meta.skipped["too_long"].examples) == 5


def test_name_is_taken_without_spaces_around(tmp_path: Path, build: Build, tokenizer: Any) -> None:
    kb = KnowledgeBase.open(build(tmp_path, [{"id": "Q1", "name": " Java "}]).path)
    assert kb.entity(0).name == "Java"
    assert kb.trie.rows_of(tokenizer.encode(["Java"])[0]).tolist() == [0]


@pytest.mark.parametrize("text", ["", "\n\n", "{bad\n", '{"id": 1}\n'])
def test_no_entity(tmp_path: Path, tokenizer: Any, text: str) -> None:
    source = tmp_path / "entities.jsonl"
    source.write_text(text)
    before = len(tokenizer.batches)
    with pytest.raises(KBError, match=r"entities\.jsonl has no entity") as raised:
        build_kb(source, tmp_path / "kb", tokenizer, progress=False)
    assert ("entities.jsonl:1:" in str(raised.value)) == bool(text.strip())
    assert len(tokenizer.batches) == before
    assert [path.name for path in tmp_path.iterdir()] == ["entities.jsonl"]


def test_no_usable_name(tmp_path: Path, build: Build) -> None:
    with pytest.raises(KBError, match=r"No name .*entities\.jsonl:1: .*special"):
        build(tmp_path, [{"id": "Q1", "name": "$"}])
    assert [path.name for path in tmp_path.iterdir()] == ["entities.jsonl"]


def test_file_that_is_not_there(tmp_path: Path, tokenizer: Any) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(KBError, match="does not exist or is not a file"):
            build_kb(path, tmp_path / "kb", tokenizer, progress=False)


@pytest.mark.parametrize("limit", [0, 255])
def test_limit_out_of_range(tmp_path: Path, build: Build, limit: int) -> None:
    with pytest.raises(KBError, match="1 to 254"):
        build(tmp_path, [{"id": "Q1", "name": "x"}], max_name_tokens=limit)


def test_replaces_a_kb_and_nothing_else(tmp_path: Path, build: Build) -> None:
    build(tmp_path, [{"id": "Q1", "name": "old"}])
    old = KnowledgeBase.open(tmp_path / "kb")
    build(tmp_path, [{"id": "Q2", "name": "new"}])
    assert entities(KnowledgeBase.open(tmp_path / "kb")) == ["Q2"]
    assert entities(old) == ["Q1"]  # who has the old one open keeps it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entities.jsonl", "kb"]
    (tmp_path / "kb" / "thesis.txt").write_text("mine")
    with pytest.raises(KBError, match=r"thesis\.txt"):
        build(tmp_path, [{"id": "Q3", "name": "newer"}])
    assert (tmp_path / "kb" / "thesis.txt").read_text() == "mine"


def test_a_file_in_the_way(tmp_path: Path, build: Build) -> None:
    (tmp_path / "kb").write_text("mine")
    with pytest.raises(KBError, match="is a file"):
        build(tmp_path, [{"id": "Q1", "name": "x"}])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), RuntimeError("boom")])
@pytest.mark.parametrize("where", ["builder.tokenise_names", "builder.build_trie", "builder.write_meta"])
def test_error_while_building_leaves_the_old_kb(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch, error: BaseException, where: str
) -> None:
    build(tmp_path, [{"id": "Q1", "name": "old"}])

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"spacy_gemel.kb.{where}", fail)
    expected = KBError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected, match="No space" if isinstance(error, OSError) else None):
        build(tmp_path, [{"id": "Q2", "name": "new"}])
    assert entities(KnowledgeBase.open(tmp_path / "kb", verify=True)) == ["Q1"]
    # what was tokenised is kept for the next build
    kept = [] if where == "builder.tokenise_names" else [".kb.building"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*kept, "entities.jsonl", "kb"]
    assert "new" not in [path.name for path in tmp_path.glob(".kb.building/*")]
    monkeypatch.undo()
    report = build(tmp_path, [{"id": "Q2", "name": "new"}])
    assert report.resumed == (0 if where == "builder.tokenise_names" else 1)
    assert entities(KnowledgeBase.open(tmp_path / "kb", verify=True)) == ["Q2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entities.jsonl", "kb"]


def test_same_input_same_bytes_and_no_paths(tmp_path: Path, build: Build, planets: list[Any]) -> None:
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        report = build(tmp_path / name, [*planets, "{bad"])
        contents.append({path.name: path.read_bytes() for path in report.path.iterdir()})
    assert contents[0] == contents[1]
    assert not any(str(tmp_path).encode() in content for content in contents[0].values())


def test_batches(tmp_path: Path, build: Build, tokenizer_class: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spacy_gemel.kb.builder.BATCH_ROWS", 8)
    tokenizer = tokenizer_class()
    rows = [{"id": f"Q{i % 45}", "name": f"n{i}", "count": i} for i in range(50)]
    report = build(tmp_path, rows, tokenizer)
    assert tokenizer.batches == [8, 8, 8, 8, 8, 5]
    kb = KnowledgeBase.open(report.path, verify=True)
    assert [kb.entity(row).kb_id for row in range(45)] == [f"Q{i}" for i in range(45)]
    assert all(kb.row(f"Q{i}") == i for i in range(45))
    assert np.array_equal(kb.counts, np.arange(45))
    assert check_kb(report.path) == []


def test_progress_on_stderr(tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "entities.jsonl"
    source.write_text(json.dumps({"id": "Q1", "name": "one"}))
    build_kb(source, tmp_path / "kb", tokenizer)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Tokenising names" in shown.err
    build_kb(source, tmp_path / "kb", tokenizer, progress=False)
    assert capsys.readouterr().err == ""


def test_tokenizer_that_answers_too_little(tmp_path: Path, build: Build, tokenizer_class: Any) -> None:
    class Broken(tokenizer_class):  # type: ignore[misc, valid-type]
        def encode(self, texts: list[str]) -> list[list[int]]:
            return []

    with pytest.raises(KBError, match="0 results for 1 names"):
        build(tmp_path, [{"id": "Q1", "name": "x"}], Broken())


def test_leading_space_is_the_tokenizers(tmp_path: Path, build: Build, tokenizer_class: Any) -> None:
    tokenizer = tokenizer_class(leading_space=True)
    report = build(tmp_path, [{"id": "Q1", "name": "Java"}], tokenizer)
    kb = KnowledgeBase.open(report.path)
    assert (report.meta.skipped, kb.meta.leading_space) == ({}, True)
    assert kb.trie.rows_of(tokenizer.encode(["Java"])[0]).tolist() == [0]


def test_numbers_as_data_frames_write_them() -> None:
    entity = parse_row(b'{"id": "a", "name": "b", "count": 12.0, "description": NaN, "aliases": NaN}')
    assert entity == Entity("a", "b", 12)
    assert isinstance(entity, Entity) and type(entity.count) is int
    assert isinstance(parse_row(b'{"id": "a", "name": "b", "count": 12.5}'), RowProblem)
