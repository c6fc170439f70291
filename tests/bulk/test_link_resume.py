"""`link` after a kill, with bad rows, over pipes and packed files: nothing lost, nothing twice, and each fault said."""

import gzip
import io
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc

from spacy_gemel.bulk import journal as journal_module
from spacy_gemel.bulk.link import LinkOptions, LinkReport, link_file
from spacy_gemel.bulk.workers import ThisProcess
from spacy_gemel.pipeline import loaded_pipeline as pipelines
from tests.commands import call, failed
from tests.evaluation.doubles import TableLinker, pipeline

ANSWERS = {"Mercury": ["Mercury (planet)", "Mercury (element)"], "Jaguar": ["Jaguar"]}
PAUSES = """
import sys
from pathlib import Path
import spacy
from spacy_gemel.bulk import journal
from spacy_gemel.pipeline import loaded_pipeline
from spacy_gemel.__main__ import app
from tests.bulk.test_link_resume import linker
from tests.evaluation.doubles import pipeline

at, paused, count = int(sys.argv[1]), Path(sys.argv[2]), 0

def event(value=None):
    global count
    count += 1
    if count == at:
        paused.touch()
        sys.stdin.read()  # until it is killed
    return value

def load(path, *, gpu_id=-1):
    nlp = pipeline(linker(), entities=["Jaguar"])
    spacy.Language.component("event", func=event)
    nlp.add_pipe("event")
    return nlp

def half(path, rows, append=journal._append):
    rows = list(rows)
    append(path, rows[: len(rows) // 2])
    event()
    return event(append(path, rows[len(rows) // 2 :]))

loaded_pipeline.load_pipeline = load
journal._append = half
write_json = journal.write_json
journal.write_json = lambda *args: event(write_json(*args))
app(sys.argv[3:])
"""


def linker() -> TableLinker:
    return TableLinker(ANSWERS, {"Mercury": ["Mercury (element)"], "Jaguar": ["Jaguar"]})


@pytest.fixture
def nlp() -> spacy.Language:
    return pipeline(linker(), entities=["Jaguar"])


@pytest.fixture(autouse=True)
def _loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "load_pipeline", lambda path, *, gpu_id=-1: pipeline(linker(), entities=["Jaguar"]))


def run(nlp: spacy.Language, source: Path, out: Path, **options: Any) -> LinkReport:
    return link_file(ThisProcess(nlp), "digest", source, out, LinkOptions(**options), progress=False)


def write(path: Path, n: int = 40) -> Path:
    """Lines of which every seventh is broken."""
    words = ("Mercury", "Jaguar")
    lines = [
        json.dumps({"id": i, "text": f"{words[i % 2]} {i}", "mentions": [{"start": 0, "end": 6}]}) for i in range(n)
    ]
    path.write_text("".join((line if i % 7 else line[:-3]) + "\n" for i, line in enumerate(lines)))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def expected(nlp: spacy.Language, tmp_path: Path) -> tuple[bytes, bytes]:
    """The output and the failed rows of a run that nobody disturbs."""
    out = tmp_path / "undisturbed" / "o.jsonl"
    run(nlp, write(tmp_path / "in.jsonl"), out, batch_size=4)
    assert sorted(path.name for path in out.parent.iterdir() if not path.name.endswith(".lock")) == [
        "o.jsonl",
        "o.jsonl.failed.jsonl",
    ]
    return out.read_bytes().replace(b"../", b""), out.with_name("o.jsonl.failed.jsonl").read_bytes()


def test_each_row_is_linked_or_said_to_have_failed(expected: tuple[bytes, bytes]) -> None:
    linked, failures = ([json.loads(line) for line in content.splitlines()] for content in expected)
    assert sorted(row["line"] for row in [*linked, *failures]) == list(range(1, 41))
    assert {row["line"] % 7 for row in failures} == {1}
    assert all(row["reason"].startswith("not JSON") for row in failures)


class Killed(BaseException):
    """No Exception, as a kill is none."""


@pytest.mark.parametrize("at", range(0, 30, 3))
def test_goes_on_after_any_write(
    nlp: spacy.Language, expected: tuple[bytes, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Each file that is written may be the last: in the midst of the rows, before the journal, after it."""
    out, writes = tmp_path / "o.jsonl", 0
    append, write_json = journal_module._append, journal_module.write_json

    def die(then: Callable[[], Any]) -> Any:
        nonlocal writes
        writes += 1
        if writes == at + 1:
            raise Killed
        return then()

    def half(path: Path, lines: Any) -> int:
        lines = list(lines)
        size = append(path, lines[: len(lines) // 2])
        with path.open("ab") as file:
            file.write(b'{"id": 7, "te')
        die(lambda: None)
        with path.open("ab") as file:
            file.truncate(size)
        return append(path, lines[len(lines) // 2 :])

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(journal_module, "_append", half)
        patch.setattr(journal_module, "write_json", lambda *args: die(lambda: write_json(*args)))
        run(nlp, tmp_path / "in.jsonl", out, batch_size=4)
        raise Killed  # fewer writes than that
    if not out.exists():
        run(nlp, tmp_path / "in.jsonl", out, batch_size=4)
    assert (out.read_bytes(), out.with_name("o.jsonl.failed.jsonl").read_bytes()) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments(nlp: spacy.Language, tmp_path: Path, kills: int) -> None:
    """In the midst of a block, of a file, between two files: the process waits there until it is killed."""
    source, out, same = write(tmp_path / "in.jsonl", 12 * kills), tmp_path / "o.jsonl", tmp_path / "same.jsonl"
    link_file(ThisProcess(nlp), "digest", source, same, LinkOptions(batch_size=4), progress=False)
    generator, paused = random.Random(0), tmp_path / "paused"
    arguments = ["link", "pipe", str(source), str(out), "--batch-size", "4", "-q"]
    kinds = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP]
    for number in range(kills):
        command = [sys.executable, "-c", PAUSES, str(generator.randrange(1, 18)), str(paused), *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        while not paused.exists():
            assert process.poll() is None
        process.send_signal(kinds[number % 4])
        assert process.wait() != 0
        paused.unlink()
        if process.stdin is not None:
            process.stdin.close()
    command = [sys.executable, "-c", PAUSES, "0", str(paused), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for path in (out, out.with_name("o.jsonl.failed.jsonl")):
        assert path.read_bytes() == path.with_name(path.name.replace("o.jsonl", "same.jsonl", 1)).read_bytes()


def test_a_full_disk_says_that_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
        result = call("link", "pipe", tmp_path / "in.jsonl", tmp_path / "o.jsonl", "-q")
    failed(result, "No space left; the same command goes on where this one has ended")
    assert call("link", "pipe", tmp_path / "in.jsonl", tmp_path / "o.jsonl", "-q").exit_code == 0


def test_what_is_finished_is_replaced_only_if_asked(tmp_path: Path) -> None:
    arguments = ["link", "pipe", write(tmp_path / "in.jsonl"), tmp_path / "o.jsonl", "-q"]
    assert call(*arguments).exit_code == 0
    failed(call(*arguments), "there is a finished output already")
    before = (tmp_path / "o.jsonl").read_bytes()
    assert call(*arguments, "--overwrite").exit_code == 0
    assert (tmp_path / "o.jsonl").read_bytes() == before
    failed(call("link", "pipe", tmp_path / "in.jsonl", tmp_path / "in.jsonl", "--overwrite"), "must not be the input")


def test_an_unfinished_run_of_something_else(nlp: spacy.Language, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl"), tmp_path / "o.jsonl"
    with pytest.raises(ValueError, match="2 of 8 rows have failed, and max_bad is 1"):
        run(nlp, source, out, batch_size=4, max_bad=1)
    with pytest.raises(ValueError, match="made by another pipeline or with other options"):
        run(nlp, source, out, batch_size=5)
    source.write_text(source.read_text().replace("Mercury 2", "Mercury 22"))
    with pytest.raises(ValueError, match="its first 8 rows are others"):
        run(nlp, source, out, batch_size=4)
    run(nlp, source, out, batch_size=4, overwrite=True)
    assert rows(out)[1]["text"] == "Mercury 22"


def test_what_fails_takes_nothing_with_it(nlp: spacy.Language, tmp_path: Path) -> None:
    @spacy.Language.component("breaks")
    def breaks(doc: Doc) -> Doc:
        if "7" in doc.text:
            raise MemoryError("a doc with a 7")
        return doc

    nlp.add_pipe("breaks")
    texts = [f"Mercury {n}" for n in range(30)] + ["Jaguar " * 50]
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"id": f"d{n}", "text": t}) + "\n" for n, t in enumerate(texts))
    )
    nlp.max_length = 100
    report = run(nlp, tmp_path / "in.jsonl", tmp_path / "o.jsonl", batch_size=16)
    assert (report.docs, report.failed) == (27, 4)
    failures = {row["line"]: row["reason"] for row in rows(tmp_path / "o.jsonl.failed.jsonl")}
    assert list(failures) == [8, 18, 28, 31]
    assert failures[8] == "MemoryError: a doc with a 7"
    assert "max_length" in failures[31]


def test_a_doc_that_takes_too_long(nlp: spacy.Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    setitimer = signal.setitimer

    def timer(which: int, seconds: float, interval: float = 0.0) -> Any:
        limits.append(seconds)
        return setitimer(which, seconds, interval)

    @spacy.Language.component("hangs")
    def hangs(doc: Doc) -> Doc:
        if "2" in doc.text:
            signal.raise_signal(signal.SIGALRM)  # as the timer does, which nobody waits for here
        return doc

    monkeypatch.setattr(signal, "setitimer", timer)
    nlp.add_pipe("hangs")
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": f"Jaguar {n}"}) + "\n" for n in (1, 2)))
    report = run(nlp, tmp_path / "in.jsonl", tmp_path / "o.jsonl", doc_seconds=3600)
    assert (report.docs, report.failed) == (1, 1)
    assert "it took longer than 3600 seconds" in rows(tmp_path / "o.jsonl.failed.jsonl")[0]["reason"]
    assert limits == [7200, 0, 3600, 0, 3600, 0]  # both, then one by one


def test_a_strict_run_and_a_hopeless_one(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "Jaguar"}\n' + "{broken\n" * 9)
    arguments = ["link", "pipe", tmp_path / "in.jsonl", tmp_path / "o.jsonl", "-q"]
    failed(call(*arguments, "--fail-fast", "--batch-size", "2"), "1 of 2 rows have failed, and max_bad is 0")
    failed(call(*arguments, "--max-bad", "5", "--batch-size", "2"), "7 of 8 rows have failed")
    result = call(*arguments, "--batch-size", "2")
    assert (result.exit_code, "9 of 10 rows have failed" in result.stdout) == (1, True)
    assert rows(tmp_path / "o.jsonl")[0]["mentions"][0]["kb_id"] == "Jaguar"


def test_pipes_packed_files_and_folders(
    nlp: spacy.Language, expected: tuple[bytes, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (tmp_path / "in.jsonl").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source)))
    run(nlp, Path("-"), tmp_path / "a.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == expected[0]
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(source))
    assert call("link", "pipe", tmp_path / "in.jsonl.gz", tmp_path / "b.jsonl.gz", "-q").exit_code == 0
    assert gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()) == expected[0]
    parts, lines = tmp_path / "parts", source.splitlines(keepends=True)
    (parts / "more").mkdir(parents=True)
    (parts / "0.jsonl").write_bytes(b"".join(lines[:10]))
    (parts / "more" / "1.jsonl").write_bytes(b"".join(lines[10:]))
    (parts / ".hidden.jsonl").write_text("{}")
    assert call("link", "pipe", parts, tmp_path / "c.jsonl", "-q").exit_code == 0
    found = rows(tmp_path / "c.jsonl")
    assert [row["text"] for row in found] == [json.loads(line)["text"] for line in expected[0].splitlines()]
    assert {row["file"] for row in found} == {"0.jsonl", "more/1.jsonl"}
    failed(call("link", "pipe", "-", tmp_path / "d.csv"), "what comes through a pipe is JSON lines")


def test_stdout_gets_every_row(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl")
    result = call("link", "pipe", source, "-", "--batch-size", "4", "-q")
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert sorted(line["line"] for line in lines) == list(range(1, 41))
    assert {line["line"] % 7 for line in lines if "reason" in line} == {1}
    assert "stdout: 34 docs" in result.stderr
    assert "6 of 40 rows have failed: their lines say why" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    failed(call("link", "pipe", source, "-", "--fail-fast", "-q"), "6 of 40 rows have failed, and max_bad is 0")
    (tmp_path / "bad.jsonl").write_text("{broken\n")
    failed(call("link", "pipe", tmp_path / "bad.jsonl", "-", "-q"), "it has no usable doc: its line on stdout says why")


def test_an_output_behind_a_link(nlp: spacy.Language, expected: tuple[bytes, bytes], tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "o.jsonl").symlink_to("disk/o.jsonl")
    run(nlp, tmp_path / "in.jsonl", tmp_path / "o.jsonl", batch_size=4)
    assert (tmp_path / "o.jsonl").is_symlink()
    assert (tmp_path / "disk" / "o.jsonl").read_bytes().replace(b"../", b"") == expected[0]


def test_a_pipe_is_not_read_twice(nlp: spacy.Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of it to compare it with an unfinished run would be missing."""
    lines = [json.dumps({"text": f"Jaguar {n}"}).encode() for n in range(9)]
    bad = [b"{broken", *lines]
    for given, options in ((bad, {"max_bad": 0}), (lines, {"overwrite": True})):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(given))))
        with pytest.raises(ValueError, match=r"max_bad is 0|a pipe is not read twice, so delete .*journal\.json"):
            run(nlp, Path("-"), tmp_path / "o.jsonl", batch_size=4, **options)
    (tmp_path / "o.jsonl.journal.json").unlink()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(lines))))
    assert run(nlp, Path("-"), tmp_path / "o.jsonl", batch_size=4).docs == 9


def test_a_limit_that_was_passed_stays_passed(nlp: spacy.Language, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "Jaguar"}\n{broken')
    for _ in range(2):
        with pytest.raises(ValueError, match="1 of 2 rows have failed, and max_bad is 0"):
            run(nlp, tmp_path / "in.jsonl", tmp_path / "o.jsonl", max_bad=0)
    assert run(nlp, tmp_path / "in.jsonl", tmp_path / "o.jsonl").docs == 1


def test_what_is_left_out_stands_in_the_row_and_is_counted(nlp: spacy.Language, tmp_path: Path) -> None:
    row = {"text": "Jaguar", "mentions": [{"start": 0, "end": 6}, {"start": 50, "end": 60}]}
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(20)))
    report = run(nlp, tmp_path / "in.jsonl", tmp_path / "o.jsonl", batch_size=3)
    assert (report.left_out, len(report.problems)) == (20, 5)
    first = rows(tmp_path / "o.jsonl")[0]
    assert len(first["mentions"]) == 1
    assert first["left_out"] == ["mention: start and end are not inside the text (50 to 60 of 6 characters)"]


def test_no_file_of_a_run_is_its_input(nlp: spacy.Language, tmp_path: Path) -> None:
    source = write(tmp_path / "o.jsonl.failed.jsonl", 3)
    before = source.read_bytes()
    with pytest.raises(ValueError, match="must not be the input"):
        run(nlp, source, tmp_path / "o.jsonl")
    assert source.read_bytes() == before
    for name in ("o.spacy", "o.tsv"):
        with pytest.raises(ValueError, match=r"is not written: name it \.jsonl"):
            run(nlp, source, tmp_path / name)


def test_a_packed_file_that_is_cut_off(nlp: spacy.Language, tmp_path: Path) -> None:
    packed = gzip.compress(write(tmp_path / "in.jsonl").read_bytes())
    (tmp_path / "in.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match=r"in\.jsonl\.gz: cut off or damaged"):
        run(nlp, tmp_path / "in.jsonl.gz", tmp_path / "o.jsonl")
