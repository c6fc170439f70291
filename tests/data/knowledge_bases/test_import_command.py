"""import-kb as a user calls it: what it says, what it leaves behind, and how much memory it takes."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import made_wiki
from spacy_gemel.__main__ import app
from spacy_gemel.data.knowledge_bases import importer
from spacy_gemel.data.knowledge_bases.importer import KINDS, import_kb
from spacy_gemel.data.knowledge_bases.work import ImportReport, Store, working_beside
from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.jsonl import parse_row
from tests.data.knowledge_bases.dumps import page, redirect, write


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["import-kb", *map(str, arguments)])


@pytest.fixture
def dumps(tmp_path: Path) -> list[Path]:
    pages = [page(1, "Mercury_(planet)"), page(2, "Merkur", redirect=1), page(3, "J\\xe4ger"), page(4, b"J\xe4ger")]
    return [write(tmp_path, "page", pages), write(tmp_path, "redirect", [redirect(2, "Mercury_(planet)")])]


def test_what_it_says_and_writes(dumps: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "entities.jsonl"
    result = call("wikipedia", *dumps, out)
    assert result.exit_code == 0, result.output
    assert "kept: 2 entities, 1 aliases" in result.stdout
    assert "1 x page rows that are not UTF-8, such as testwiki-latest-page.sql.gz:" in result.stdout
    assert "read testwiki-latest-page.sql.gz: 100%" in result.stderr
    report = json.loads((tmp_path / "new" / "entities.jsonl.report.json").read_text())
    assert report["kept"]["entities"] == 2
    assert report["dropped"]["page rows that are not UTF-8"]["count"] == 1
    assert report["temporary_disk_mb"] < 1
    assert {path.name for path in out.parent.iterdir()} == {"entities.jsonl", "entities.jsonl.report.json"}
    assert call("wikipedia", *dumps, out, "--quiet").stderr == ""


def test_build_kb_reads_what_was_written(dumps: list[Path], tmp_path: Path) -> None:
    import_kb("wikipedia", dumps, tmp_path / "entities.jsonl", progress=False)
    assert [parse_row(line) for line in (tmp_path / "entities.jsonl").read_bytes().splitlines()] == [
        Entity("Mercury (planet)", "Mercury (planet)", aliases=("Merkur",)),
        Entity("J\\xe4ger", "J\\xe4ger"),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dbpedia", "x", "y"], "unknown kind 'dbpedia': give one of csv, parquet, spacy, wikidata, wikipedia"),
        (["csv", "nowhere.csv", "y"], "nowhere.csv: no such file"),
        (["csv", "kb.csv", "kb.csv"], "is both source and output"),
        (["csv", "kb.csv", "."], "is a folder: name a file to write"),
        (
            ["csv", "kb.csv", "y", "--id", "qid"],
            "--id is not an option of csv, which has --alias-separator, --column, --delimiter",
        ),
        (["wikipedia", "kb.zip", "y"], "kb.zip is compressed with zip: unpack it"),
        (["csv", "kb.csv.gz", "y"], "it does not begin as a .gz file does"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("kb.csv", "kb.csv.gz"):
        Path(name).write_text("id,name\nQ1,A\n")
    Path("kb.zip").write_bytes(b"PK\x03\x04 and so on")
    before = sorted(tmp_path.iterdir())
    result = call(*arguments, "-q")
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_options_reach_their_kind(tmp_path: Path) -> None:
    (tmp_path / "kb.txt").write_text("qid;title;also\nQ1;A;x+y\n")
    result = call(
        "csv", tmp_path / "kb.txt", tmp_path / "out.jsonl", "--column", "id=qid", "--column", "name=title",
        "--column", "aliases=also", "--delimiter", ";", "--alias-separator", "+",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {"id": "Q1", "name": "A", "aliases": ["x", "y"]}


def test_a_further_kind_is_one_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(sources: Any, options: Any, work: Any) -> Any:
        yield "here:1", Entity("1", "One")

    monkeypatch.setitem(KINDS, "mine", (read, frozenset()))
    report = import_kb("mine", [tmp_path], tmp_path / "out.jsonl", progress=False)
    assert report.written["entities"] == 1
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {"id": "1", "name": "One"}


def test_an_interrupt_leaves_all_as_it_was(tmp_path: Path) -> None:
    source, out = tmp_path / "kb.csv", tmp_path / "out" / "entities.jsonl"
    os.mkfifo(source)
    out.parent.mkdir()
    out.write_text("what was there before")
    command = [sys.executable, "-m", "spacy_gemel", "import-kb", "csv", str(source), str(out), "--quiet"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with source.open("w") as pipe:
        # more than a pipe holds: when it is written, all but the rest in the pipe has been read
        pipe.write("id,name\n" + "".join(f"Q{number},Name {number}\n" for number in range(100_000)))
        pipe.flush()
        assert len(list(out.parent.iterdir())) == 3  # the temporary tables and the output are beside it
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == f"interrupted: {out} is unchanged; run the command again\n"
    assert [path.name for path in out.parent.iterdir()] == ["entities.jsonl"]
    assert out.read_text() == "what was there before"


def test_a_long_statement_can_be_interrupted(tmp_path: Path) -> None:
    """The statement never ends; its first row says that it runs."""
    store = Store(tmp_path)
    reader, writer = os.pipe()
    # a function in C, in which no signal is handled
    store._connection.create_function("running", 0, partial(os.write, writer, b"x"))
    interrupt = threading.Thread(target=lambda: os.read(reader, 1) and os.kill(os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        store.one("WITH RECURSIVE n(i) AS (SELECT running() UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
    interrupt.join()
    store.close()


def test_what_a_killed_import_has_left_goes_with_the_next(dumps: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out" / "entities.jsonl"
    leftover = out.parent / ".entities.jsonl.building"
    leftover.mkdir(parents=True)
    (leftover / "tables.sqlite").write_text("no database at all")
    import_kb("wikipedia", dumps, out, progress=False)
    assert not leftover.exists()


def test_two_imports_to_one_file(dumps: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "entities.jsonl"
    with (
        working_beside(out, ImportReport("x", []), keep_going=False, progress=False),
        pytest.raises(ValueError, match="Another build is writing"),
    ):
        import_kb("wikipedia", dumps, out, progress=False)


def test_a_full_disk_is_an_error_that_says_so(
    dumps: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = Store.__init__

    def small(self: Store, folder: Path) -> None:
        init(self, folder)
        self.execute("PRAGMA max_page_count = 3")

    monkeypatch.setattr(Store, "__init__", small)
    result = call("wikipedia", *dumps, tmp_path / "out" / "entities.jsonl", "-q")
    assert result.exit_code == 1
    assert "database or disk is full" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_it_imports_without_torch_spacy_and_arrow() -> None:
    code = (
        "import sys, spacy_gemel.data.knowledge_bases.importer\n"
        "print([name for name in ('torch', 'spacy', 'pyarrow', 'transformers') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


PEAK = """
import json, sys
from pathlib import Path
from benchmarks.memory import peak_mb
from spacy_gemel.data.knowledge_bases import wikipedia, work
from spacy_gemel.data.knowledge_bases.importer import import_kb
work._CACHE_KB, wikipedia._MAX_COUNTS = 1000, 2**10
kind, folder = sys.argv[1], Path(sys.argv[2])
import_kb(kind, sorted(folder.glob("*.gz")), folder / "out" / "entities.jsonl", progress=False)
print(json.dumps(peak_mb()))
"""


def peak_of(kind: str, folder: Path) -> float:
    run = subprocess.run(
        [sys.executable, "-c", PEAK, kind, str(folder)],
        capture_output=True, text=True, check=True, cwd=Path(made_wiki.__file__).parent.parent,
    )  # fmt: skip
    return float(run.stdout)


def test_memory_stays_the_same_for_four_times_the_pages(tmp_path: Path) -> None:
    peaks = []
    for articles in (15_000, 60_000):
        folder = tmp_path / str(articles)
        folder.mkdir()
        made_wiki.make_wiki(articles, folder)
        peaks.append(peak_of("wikipedia", folder))
        assert sum(1 for _ in (folder / "out" / "entities.jsonl").open()) == articles
    assert peaks[1] < peaks[0] + 8, peaks


@pytest.mark.parametrize("kind", ["wikidata", "csv"])
def test_memory_stays_the_same_for_four_times_the_lines(tmp_path: Path, kind: str) -> None:
    peaks = []
    for lines in (20_000, 80_000):
        folder = tmp_path / str(lines)
        folder.mkdir()
        with gzip.open(folder / "kb.csv.gz", "wt", compresslevel=1) as file:
            file.write("[\n" if kind == "wikidata" else "id,name,aliases\n")
            for number in range(lines):
                if kind == "csv":
                    file.write(f"Q{number},Name {number},also {number}|{'x' * 50}\n")
                else:
                    row = {"id": f"Q{number + 1}", "labels": {"en": {"value": f"Name {number}"}}, "claims": "x" * 200}
                    file.write(json.dumps(row) + (",\n" if number < lines - 1 else "\n]\n"))
        peaks.append(peak_of(kind, folder))
    assert peaks[1] < peaks[0] + 8, peaks


def test_kinds_are_those_that_are_documented() -> None:
    guide = (Path(importer.__file__).parents[3] / "docs" / "your-data.md").read_text(encoding="utf-8")
    for kind in KINDS:
        assert f"import-kb {kind} " in guide
