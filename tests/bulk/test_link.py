"""`link` as a user calls it, on pipelines that answer from a table."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from spacy.tokens import DocBin

from spacy_gemel.pipeline import loaded_pipeline as pipelines
from tests.commands import call, failed
from tests.evaluation.doubles import TableLinker, pipeline

ANSWERS = {"Mercury": ["Mercury (planet)", "Mercury (element)"], "Jaguar": ["Jaguar"]}
ROWS = [
    {"id": "a", "text": "Mercury rises", "image": "images/a.jpg", "mentions": [{"start": 0, "end": 7}]},
    {"id": "b", "text": "A Jaguar and Mercury"},
    {"id": "c", "text": "Mercury alone", "mentions": []},
]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> TableLinker:
    """Let every pipeline that a command loads answer from a table."""
    linker = TableLinker(ANSWERS, {"Mercury": ["Mercury (element)"], "Jaguar": ["Jaguar"]})

    def load(path: str, *, gpu_id: int = -1) -> spacy.Language:
        return pipeline(linker, entities=["Jaguar"])

    monkeypatch.setattr(pipelines, "load_pipeline", load)
    return linker


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "raw" / "in.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_link_json_lines(table: TableLinker, jsonl: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "linked.jsonl"
    result = call("link", "pipe", jsonl, out, "-q")
    assert result.exit_code == 0, result.output
    given, ner, none = lines_of(out)
    (mention,) = given.pop("mentions")
    assert given == {"line": 1, "id": "a", "text": "Mercury rises", "image": "../raw/images/a.jpg"}
    assert (mention["start"], mention["end"], mention["text"]) == (0, 7, "Mercury")
    assert (mention["kb_id"], mention["probability"], mention["score"]) == ("Mercury (planet)", 0.5, -1.0)
    assert [c["kb_id"] for c in mention["candidates"]] == ANSWERS["Mercury"]
    # no mentions in the line: the pipeline's own entities; an empty list: none, whatever the NER thinks
    assert [(m["text"], m["label"], m["kb_id"]) for m in ner["mentions"]] == [("Jaguar", "ENT", "Jaguar")]
    assert none["mentions"] == []


def test_the_golds_of_a_line_are_not_its_answers(
    table: TableLinker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A linker that leaves known ids alone, and one that reads them, must not see them."""
    seen: list[str] = []
    load = pipelines.load_pipeline

    @spacy.Language.component("spy")
    def spy(doc: Any) -> Any:
        seen.extend(ent.kb_id_ for ent in doc.ents)
        return doc

    def load_with_spy(path: str, *, gpu_id: int = -1) -> spacy.Language:
        nlp = load(path, gpu_id=gpu_id)
        nlp.add_pipe("spy", first=True)
        return nlp

    monkeypatch.setattr(pipelines, "load_pipeline", load_with_spy)
    row = {"text": "Mercury rises", "mentions": [{"start": 0, "end": 7, "kb_id": "a gold"}]}
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    assert call("link", "pipe", tmp_path / "in.jsonl", tmp_path / "o.jsonl", "-q").exit_code == 0
    assert seen == [""]
    assert lines_of(tmp_path / "o.jsonl")[0]["mentions"][0]["kb_id"] == "Mercury (element)"  # there is no image


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_linked_lines_keep_the_order(table: TableLinker, tmp_path: Path, batch_size: int) -> None:
    rows = [{"id": str(n), "text": "a Jaguar", **({"mentions": []} if n % 3 else {})} for n in range(11)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call("link", "pipe", tmp_path / "in.jsonl", tmp_path / "o.jsonl", "--batch-size", batch_size, "-q")
    linked = lines_of(tmp_path / "o.jsonl")
    assert [row["id"] for row in linked] == [row["id"] for row in rows]
    assert [len(row["mentions"]) for row in linked] == [int(n % 3 == 0) for n in range(11)]


def test_what_was_linked_can_be_converted_and_linked_again(table: TableLinker, jsonl: Path, tmp_path: Path) -> None:
    call("link", "pipe", jsonl, tmp_path / "o" / "linked.jsonl", "-q")
    call("convert", "jsonl", tmp_path / "o" / "linked.jsonl", tmp_path / "p" / "linked.spacy", "-q")
    call("link", "pipe", tmp_path / "p", tmp_path / "again.jsonl", "-q")
    first, again = lines_of(tmp_path / "o" / "linked.jsonl"), lines_of(tmp_path / "again.jsonl")
    assert [row["mentions"] for row in again] == [row["mentions"] for row in first]
    assert again[0]["image"] == "raw/images/a.jpg"


def test_mentions_that_overlap(table: TableLinker, tmp_path: Path) -> None:
    spans = [(0, 7), (0, 15), (8, 15)]
    row = {
        "text": "Mercury Mercury",
        "image": "a.jpg",
        "mentions": [{"start": start, "end": end} for start, end in spans],
    }
    (tmp_path / "in.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(ROWS[0])}\n")
    result = call("link", "pipe", tmp_path / "in.jsonl", tmp_path / "o.jsonl", "--batch-size", 1, "-q")
    both, other = lines_of(tmp_path / "o.jsonl")
    assert [(mention["start"], mention["end"]) for mention in both["mentions"]] == spans
    assert both["mentions"][2]["kb_id"] == "Mercury (planet)"
    assert other["id"] == "a"
    assert "2 docs, 4 mentions linked" in result.stdout


def test_a_url_is_reported(table: TableLinker, tmp_path: Path) -> None:
    url = "https://example.org/a.png"
    (tmp_path / "in.jsonl").write_text(json.dumps({**ROWS[0], "image": url}) + "\n")
    result = call("link", "pipe", tmp_path / "in.jsonl", tmp_path / "o" / "o.jsonl", "-q")
    assert "in.jsonl:1: image left out: it is a URL: fetch-images downloads it" in result.stderr
    assert lines_of(tmp_path / "o" / "o.jsonl")[0]["image"] == url


def test_lines_that_are_left_out_are_reported(table: TableLinker, jsonl: Path, tmp_path: Path) -> None:
    with jsonl.open("a") as file:
        file.write("{broken\n")
    result = call("link", "pipe", jsonl, tmp_path / "o.jsonl", "-q")
    assert result.exit_code == 0
    assert f"{jsonl}:4: row left out: not JSON" in result.stderr
    assert "3 docs, 2 mentions linked, 0 of them NIL" in result.stdout


def test_why_a_mention_has_no_candidates(
    table: TableLinker, jsonl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @spacy.Language.component("reasons")
    def reasons(doc: Any) -> Any:
        doc.user_data["gemel_reasons"] = [[0, 7, "its text is too long"]]
        return doc

    load = pipelines.load_pipeline

    def load_with_reasons(path: str, *, gpu_id: int = -1) -> spacy.Language:
        nlp = load(path, gpu_id=gpu_id)
        nlp.add_pipe("reasons")
        return nlp

    monkeypatch.setattr(pipelines, "load_pipeline", load_with_reasons)
    call("link", "pipe", jsonl, tmp_path / "o.jsonl", "-q")
    mentions = [mention for row in lines_of(tmp_path / "o.jsonl") for mention in row["mentions"]]
    assert [mention.get("reason") for mention in mentions] == ["its text is too long", None]


def test_link_with_nothing_to_link(table: TableLinker, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n")
    failed(call("link", "pipe", tmp_path / "in.jsonl", tmp_path / "o.jsonl", "-q"), "it has no usable doc")
    failed(call("link", "pipe", tmp_path / "gone", tmp_path / "o.jsonl", "-q"), "no such file or folder")
    assert not (tmp_path / "o.jsonl").exists()


def test_docs_of_any_id_and_length(table: TableLinker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids of bytes or of NumPy, and a text over the limit of the pipeline's tokenizer, cost no row."""
    nlp = spacy.blank("en")
    docs = DocBin(store_user_data=True)
    for value, text in (
        (b"one", "Mercury rises"),
        (np.int64(2), "Mercury " * 60),
        (3.5, "Mercury sets"),
        (None, "Java"),
    ):
        doc = nlp(text)
        doc.set_ents([doc.char_span(0, len(doc[0]), label="ENT")])
        doc.user_data |= {"id": value, "image_url": b"odd"}
        docs.add(doc)
    docs.to_disk(tmp_path / "in.spacy")
    load = pipelines.load_pipeline

    def short(path: str, **options: int) -> spacy.Language:
        nlp = load(path, **options)
        nlp.max_length = 100
        return nlp

    monkeypatch.setattr(pipelines, "load_pipeline", short)
    result = call("link", "pipe", tmp_path / "in.spacy", tmp_path / "out.jsonl", "-q")
    assert result.exit_code == 0, result.output
    assert [line.get("id") for line in lines_of(tmp_path / "out.jsonl")] == ["one", 2, "3.5", None]


def test_a_line_without_end_costs_one_row_and_no_memory(table: TableLinker, tmp_path: Path) -> None:
    """A packed file of some hundred kilobytes may hold a line of any length."""
    with gzip.open(tmp_path / "in.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(json.dumps(ROWS[0]).encode() + b"\n")
        for _ in range(100):
            file.write(bytes(2**20))
        file.write(b"\n" + json.dumps(ROWS[1]).encode() + b"\n")
    tracemalloc.start()
    result = call("link", "pipe", tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl", "-q")
    assert result.exit_code == 0, result.output
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 * 2**20
    assert [line["id"] for line in lines_of(tmp_path / "out.jsonl")] == ["a", "b"]
    [failure] = lines_of(tmp_path / "out.jsonl.failed.jsonl")
    assert failure["line"] == 2 and "longer than 16777216 bytes" in failure["reason"]
