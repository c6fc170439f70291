"""The commands, as a user calls them."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import spacy
from PIL import Image
from spacy.tokens import DocBin, Span

from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.models.sentence_encoder import load_sentence_encoder
from spacy_gemel.pipeline import loaded_pipeline as pipelines
from tests.commands import call, failed, failed_last
from tests.evaluation.doubles import TableLinker, pipeline
from tests.kb.conftest import CharacterTokenizer

ANSWERS = {"Mercury": ["Mercury (planet)", "Mercury (element)"], "Jaguar": ["Jaguar"]}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> TableLinker:
    """Let every pipeline that a command loads answer from a table."""
    linker = TableLinker(ANSWERS, {"Mercury": ["Mercury (element)"], "Jaguar": ["Jaguar"]})

    def load(path: str, *, gpu_id: int = -1) -> spacy.Language:
        return pipeline(linker, entities=["Jaguar"])

    monkeypatch.setattr(pipelines, "load_pipeline", load)
    return linker


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
        "make-demonstrations",
        "link",
        "evaluate",
        "report",
        "fit-decision",
        "describe",
        "push",
        "size",
    ):
        assert command in done.stdout
        assert call(command, "--help").exit_code == 0


def test_python_m_fails_with_one_line(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "spacy_gemel", "convert", "jsonl", "gone.jsonl", "o.spacy"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (1, "error: gone.jsonl: no such file\n")


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
    assert page.count("data:image/webp;base64,") == 1  # both mentions have it


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
    assert ("An interrupted build had already tokenised" in again.stdout) == kept
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


def test_build_kb_with_vectors(models: Path, tmp_path: Path) -> None:
    entities = tmp_path / "entities.jsonl"
    entities.write_text('{"id": "Q1", "name": "a b", "description": "Java"}\n{"id": "Q2", "name": "b"}\n')
    command = ("build-kb", entities, tmp_path / "kb", "--tokenizer", models / "language_model", "-q")
    gone = tmp_path / "gone"
    failed(call(*command, "--encode-descriptions", gone), f"The sentence encoder '{gone}' could not be loaded")
    assert [*tmp_path.iterdir()] == [entities]
    encoder = models / "sentence_encoder"
    result = call(*command, "--encode-descriptions", encoder)
    assert result.exit_code == 0, result.output
    assert "for the vectors of descriptions" in result.stdout
    vectors = KnowledgeBase.open(tmp_path / "kb", verify=True).description_vectors
    expected = load_sentence_encoder(str(encoder), device="cpu")(["a b. Java", "b"])
    assert vectors is not None
    assert np.allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-3)
    assert call(*command).exit_code == 0
    assert KnowledgeBase.open(tmp_path / "kb").description_vectors is None


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_of_another_encoding(tmp_path: Path, encoding: str) -> None:
    row = {"text": "Zoe saw Ερμής.", "mentions": [{"start": 8, "end": 13, "kb_id": each} for each in "xy"]}
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(row), encoding="utf8")
    command = [sys.executable, "-m", "spacy_gemel", "convert", "jsonl", str(source), str(tmp_path / "x.spacy")]
    run = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True)
    assert run.returncode == 0, run.stderr
    output = run.stdout + run.stderr
    assert rb"\u0395\u03c1" in output or "Ερ".encode() in output  # click takes ascii for UTF-8


NO_TEXT = {
    '[{"text": "a"}]\n': "is a JSON array: write one object per line",
    '\ufeff [\n  {"text": "a"}\n]\n': "is a JSON array: write one object per line",
    '{"text": "a"}\n'.encode("utf-16"): "is UTF-16: save it as UTF-8",
    gzip.compress(b'{"text": "a"}\n'): "is packed by gzip, which its name does not say: unpack it",
    b"PK\x03\x04": "is a zip file: unpack it",
}


@pytest.mark.parametrize("content", NO_TEXT)
def test_a_file_that_is_no_json_lines_is_one_error(
    tmp_path: Path, content: str | bytes, table: TableLinker, models: Path
) -> None:
    """At each command that reads them."""
    source, message = tmp_path / "rows.jsonl", NO_TEXT[content]
    source.write_bytes(content.encode() if isinstance(content, str) else content)
    for command in (
        ["convert", "jsonl", source, tmp_path / "x.spacy"],
        ["build-kb", source, tmp_path / "kb", "--tokenizer", models / "language_model"],
        ["link", "pipeline", source, tmp_path / "out.jsonl"],
    ):
        failed_last(call(*command), f"{source} {message}")
