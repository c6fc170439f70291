"""The commands, as a user calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
from PIL import Image
from spacy.tokens import DocBin, Span
from typer.testing import CliRunner

from spacy_gemel.__main__ import app
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.pipeline import loaded as pipelines
from tests.evaluation.doubles import TableLinker, pipeline
from tests.kb.conftest import CharacterTokenizer

ANSWERS = {"Mercury": ["Mercury (planet)", "Mercury (element)"], "Jaguar": ["Jaguar"]}
ROWS = [
    {"id": "a", "text": "Mercury rises", "image": "images/a.jpg", "mentions": [{"start": 0, "end": 7}]},
    {"id": "b", "text": "A Jaguar and Mercury"},
    {"id": "c", "text": "Mercury alone", "mentions": []},
]


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def failed(result: Any, says: str) -> None:
    """One line that says it, exit code 1, no traceback."""
    assert result.exit_code == 1, result.output
    assert says in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert isinstance(result.exception, SystemExit)


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


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    nlp = spacy.blank("en")
    docs = DocBin(store_user_data=True)
    for text, gold in [("Mercury rises", "Mercury (planet)"), ("Jaguar runs", "Jaguar Cars")]:
        doc = nlp(text)
        doc.set_ents([Span(doc, 0, 1, label="ENT", kb_id=gold)])
        doc.user_data["image"] = "x.jpg"
        docs.add(doc)
    docs.to_disk(tmp_path / "test.spacy")
    return tmp_path / "test.spacy"


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from spacy_gemel.__main__ import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'spacy', 'torch', 'numpy', 'transformers', 'pyarrow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in (
        "convert",
        "build-kb",
        "check-kb",
        "fetch-images",
        "encode-images",
        "link",
        "evaluate",
        "report",
        "calibrate",
        "fit-prior",
        "size",
    ):
        assert command in done.stdout
        assert call(command, "--help").exit_code == 0


def test_python_m_fails_with_one_line(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "spacy_gemel", "convert", "jsonl", "gone.jsonl", "o.spacy"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (1, "error: gone.jsonl: no such file\n")


def test_link_json_lines(table: TableLinker, jsonl: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "linked.jsonl"
    result = call("link", "pipe", jsonl, out, "-q")
    assert result.exit_code == 0, result.output
    given, ner, none = lines_of(out)
    (mention,) = given.pop("mentions")
    assert given == {"id": "a", "text": "Mercury rises", "image": "../raw/images/a.jpg"}
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


def test_link_takes_mentions_that_overlap(table: TableLinker, tmp_path: Path) -> None:
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


def test_link_says_of_a_url_that_it_is_no_file(table: TableLinker, tmp_path: Path) -> None:
    url = "https://example.org/a.png"
    (tmp_path / "in.jsonl").write_text(json.dumps({**ROWS[0], "image": url}) + "\n")
    result = call("link", "pipe", tmp_path / "in.jsonl", tmp_path / "o" / "o.jsonl", "-q")
    assert "in.jsonl:1: image left out: it is a URL: fetch-images downloads it" in result.stderr
    assert lines_of(tmp_path / "o" / "o.jsonl")[0]["image"] == url


def test_link_tells_of_lines_it_leaves_out(table: TableLinker, jsonl: Path, tmp_path: Path) -> None:
    with jsonl.open("a") as file:
        file.write("{broken\n")
    result = call("link", "pipe", jsonl, tmp_path / "o.jsonl", "-q")
    assert result.exit_code == 0
    assert f"{jsonl}:4: row left out: not JSON" in result.stderr
    assert "3 docs, 2 mentions linked, 0 of them NIL" in result.stdout


def test_link_with_nothing_to_link(table: TableLinker, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n")
    failed(call("link", "pipe", tmp_path / "in.jsonl", tmp_path / "o.jsonl", "-q"), "not one usable doc")
    failed(call("link", "pipe", tmp_path / "gone", tmp_path / "o.jsonl", "-q"), "no such file or folder")
    assert not (tmp_path / "o.jsonl").exists()


def test_evaluate_and_report(table: TableLinker, corpus: Path, tmp_path: Path) -> None:
    full, copy, no_image = (tmp_path / "metrics" / f"{name}.json" for name in ("full", "dense", "no-image"))
    result = call("evaluate", "pipe", corpus, "-o", full, "-o", copy, "-q", "--tail-share", 0.1)
    assert result.exit_code == 0, result.output
    assert "accuracy        50.0  of 2" in result.stdout
    assert full.read_bytes() == copy.read_bytes()
    assert full.with_suffix(".mentions.jsonl").is_file()
    result = call("evaluate", "pipe", corpus, "-o", no_image, "-q", "--no-image", "--n-demonstrations", 0)
    assert json.loads(no_image.read_text())["accuracy"] == 0.0
    assert json.loads(no_image.read_text())["settings"]["use_image"] is False
    assert table.settings.use_image
    Image.new("RGB", (32, 32), "red").save(tmp_path / "x.jpg")
    result = call("report", full, no_image, "--output", tmp_path / "report")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "−50.0" in page
    assert page.count("data:image/jpeg;base64,") == 2


def test_errors_of_evaluate_and_report(table: TableLinker, corpus: Path, tmp_path: Path) -> None:
    failed(call("evaluate", "pipe", tmp_path / "gone.spacy", "-o", "m.json", "-q"), "no such file or folder")
    failed(call("evaluate", "pipe", corpus, "-o", "m.txt", "-q"), "must end in .json")
    failed(call("report", tmp_path / "gone.json", "-o", tmp_path), "No such file")
    (tmp_path / "bad.json").write_text("[]")
    failed(call("report", tmp_path / "bad.json", "-o", tmp_path), "not a file that evaluate writes")


def test_a_pipeline_that_is_none(corpus: Path, tmp_path: Path) -> None:
    failed(call("evaluate", tmp_path / "gone", corpus, "-o", "m.json", "-q"), "Can't find model")
    failed(call("evaluate", tmp_path, corpus, "-o", "m.json", "-q"), "no spaCy pipeline in this folder")
    spacy.blank("en").to_disk(tmp_path / "blank")
    failed(call("evaluate", tmp_path / "blank", corpus, "-o", "m.json", "-q"), "no gemel_linker among its pipes")
    failed(call("link", tmp_path / "blank", corpus, tmp_path / "o.jsonl", "-q"), "no gemel_linker")


@pytest.mark.parametrize(
    ("where", "unchanged", "kept"),
    [
        ("builder.scan_entities", True, False),
        ("builder.tokenise_names", True, False),
        ("builder.build_trie", True, True),
        ("builder.write_meta", True, True),
        ("folder._sync", True, True),
        ("the folders' names", False, True),
    ],
)
def test_interrupted_build_says_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, unchanged: bool, kept: bool
) -> None:
    def interrupted(*arguments: object, **_: object) -> None:
        if where != "the folders' names" or arguments == (tmp_path,):
            raise KeyboardInterrupt

    monkeypatch.setattr("spacy_gemel.models.tokenizer.load_tokenizer", lambda *_: CharacterTokenizer())
    entities = tmp_path / "entities.jsonl"
    command = ("build-kb", entities, tmp_path / "kb", "--tokenizer", "x", "-q")
    entities.write_text('{"id": "Q1", "name": "old"}')
    assert call(*command).exit_code == 0
    entities.write_text('{"id": "Q2", "name": "new"}')
    with monkeypatch.context() as patch:
        name = "folder._sync" if where == "the folders' names" else where
        patch.setattr(f"spacy_gemel.kb.{name}", interrupted)
        result = call(*command)
    assert result.exit_code == 130
    assert "Traceback" not in result.output
    said = " ".join(result.stderr.split())
    assert said.startswith(f"interrupted while building {tmp_path / 'kb'}.")
    assert ("What was there before is unchanged" in said) == unchanged
    assert ("The new knowledge base is complete" in said) == (not unchanged)
    assert ("resumes from the tokenised names" in said) == (unchanged and kept)
    assert ("starts over" in said) == (unchanged and not kept)
    work = tmp_path / ".kb.building"
    assert (str(work) in said) == work.exists() == kept
    # and what was said is so
    kb = KnowledgeBase.open(tmp_path / "kb", verify=True)
    assert kb.entity(0).name == ("old" if unchanged else "new")
    again = call(*command)
    assert ("had been tokenised by a build that was interrupted" in again.stdout) == kept
    assert KnowledgeBase.open(tmp_path / "kb", verify=True).entity(0).name == "new"
    assert not work.exists()


def test_build_and_check_kb(models: Path, tmp_path: Path) -> None:
    entities = tmp_path / "entities.jsonl"
    entities.write_text('{"id": "Q1", "name": "a b"}\n{"id": "Q2", "name": "b"}\n{"id": "Q2", "name": "a"}\n')
    tokenizer = models / "language_model"
    result = call("build-kb", entities, tmp_path / "kb", "--tokenizer", tokenizer, "-q")
    assert result.exit_code == 0, result.output
    assert "2 entities" in result.stdout
    assert call("check-kb", tmp_path / "kb").exit_code == 0
    trie = max((tmp_path / "kb").glob("trie_*.npy"), key=lambda path: path.stat().st_size)
    content = bytearray(trie.read_bytes())
    content[-1] ^= 1
    trie.write_bytes(bytes(content))
    broken = call("check-kb", tmp_path / "kb")
    assert broken.exit_code == 1 and trie.name in broken.stderr
    assert "Traceback" not in broken.output
    failed(call("build-kb", tmp_path / "gone", tmp_path / "k", "--tokenizer", tokenizer), "no such file")
