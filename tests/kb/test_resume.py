"""Builds that do not get to their end: what they leave, and that the next one goes on to the same bytes."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.machine import peak_mb
from spacy_gemel.kb.builder import BuildReport, build_kb
from spacy_gemel.kb.check import check_kb
from spacy_gemel.kb.errors import KBError
from spacy_gemel.kb.knowledge_base import KnowledgeBase

Build = Callable[..., BuildReport]
ROOT = Path(__file__).resolve().parents[2]
BATCH = 8
ROWS: list[Any] = [{"id": f"Q{i % 60}", "name": f"name {i % 50}", "count": i} for i in range(70)] + ["{bad"]
ROWS[11] = {"id": "Q11", "name": "not $ sayable"}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("builder", "entity_table"):
        monkeypatch.setattr(f"spacy_gemel.kb.{module}.BATCH_ROWS", BATCH)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def whole(tmp_path: Path, build: Build) -> dict[str, bytes]:
    """What a build of ROWS in one go writes."""
    (tmp_path / "whole").mkdir()
    return content(build(tmp_path / "whole", ROWS).path)


def interrupted_after(tokenizer_class: Any, batches: int, error: BaseException) -> Any:
    class Interrupted(tokenizer_class):  # type: ignore[misc]
        def encode(self, texts: Sequence[str]) -> list[list[int]]:
            if len(self.batches) == batches:
                raise error
            return super().encode(texts)  # type: ignore[no-any-return]

    return Interrupted()


@pytest.mark.parametrize("batches", [0, 1, 4, 7])
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
    assert "has tokenised 3 batches of 8 names: going on" in capsys.readouterr().err


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
        for module in ("builder", "entity_table"):
            monkeypatch.setattr(f"spacy_gemel.kb.{module}.BATCH_ROWS", 9)
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


def test_goes_on_after_the_trie_could_not_be_built(
    tmp_path: Path, build: Build, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("spacy_gemel.kb.builder.build_trie", lambda *_: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            build(tmp_path, ROWS)
    assert build(tmp_path, ROWS).resumed == 60
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


def test_two_builds_of_one_folder(tmp_path: Path, build: Build, tokenizer_class: Any) -> None:
    class Nested(tokenizer_class):  # type: ignore[misc]
        def encode(self, texts: Sequence[str]) -> list[list[int]]:
            if not self.batches:
                with pytest.raises(KBError, match="Another build is writing"):
                    build(tmp_path, ROWS)
                assert not (tmp_path / "kb").exists()
            return super().encode(texts)  # type: ignore[no-any-return]

    build(tmp_path, ROWS, Nested())
    assert check_kb(tmp_path / "kb") == []
    assert not (tmp_path / ".kb.building").exists()


def test_killed_while_the_folder_is_put_in_place(tmp_path: Path, build: Build) -> None:
    build(tmp_path, [{"id": "old", "name": "old"}])
    work = tmp_path / ".kb.building"
    (work / "new").mkdir(parents=True)
    (work / "new" / "entities.arrow").write_text("half of it")
    (tmp_path / "kb").rename(work / "old")
    with pytest.raises(KBError, match="No name"):
        build(tmp_path, [{"id": "Q1", "name": "$"}])
    assert KnowledgeBase.open(tmp_path / "kb", verify=True).entity(0).kb_id == "old"
    assert not work.exists()


def test_rename_that_fails_puts_the_old_kb_back(tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, [{"id": "old", "name": "old"}])
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(13, "Permission denied")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(KBError, match=r"Permission denied.*unchanged.*goes on"):
            build(tmp_path, ROWS)
    assert KnowledgeBase.open(tmp_path / "kb", verify=True).entity(0).kb_id == "old"
    assert build(tmp_path, ROWS).resumed == 60


def test_a_kb_of_format_1_is_replaced(tmp_path: Path, build: Build) -> None:
    folder = build(tmp_path, ROWS).path
    (folder / "trie_leaf_edges.npy").write_bytes(b"")
    (folder / "trie_leaf_offsets.npy").write_bytes(b"")
    build(tmp_path, ROWS)
    assert check_kb(folder) == []
    assert not (folder / "trie_leaf_edges.npy").exists()


# --- in a process of its own ---------------------------------------------------------------------------------------

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")

PROGRAM = """
import resource, sys, time
from benchmarks.machine import peak_mb
from spacy_gemel.kb import builder, entity_table
from tests.kb.conftest import CharacterTokenizer

class Stuck(CharacterTokenizer):
    def encode(self, texts):
        if len(self.batches) == {stuck_after}:
            time.sleep(600)
        bytearray({hoard}).replace(b"0", b"1")
        return super().encode(texts)

builder.BATCH_ROWS = entity_table.BATCH_ROWS = {batch}
if {limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
before = peak_mb()
try:
    builder.build_kb(sys.argv[1], sys.argv[2], Stuck(), progress=False)
except ValueError as error:
    sys.exit(str(error))
finally:
    print(peak_mb() - before)
"""


def start(
    folder: Path, *, stuck_after: int = -1, batch: int = BATCH, limit: int = 0, hoard: int = 0
) -> subprocess.Popen[str]:
    """build-kb in a process of its own.

    stuck_after: batches after which it sleeps. batch: entities of one. limit: bytes of the largest file it may write.
    hoard: bytes that it takes for a moment with each batch.
    """
    code = textwrap.dedent(PROGRAM.format(stuck_after=stuck_after, batch=batch, limit=limit, hoard=hoard))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder / "entities.jsonl"), str(folder / "kb")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def write_rows(folder: Path, rows: Sequence[Any]) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "entities.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signal(tmp_path: Path, build: Build, whole: dict[str, bytes], sent: signal.Signals) -> None:
    build(tmp_path, [{"id": "old", "name": "old"}])
    old = content(tmp_path / "kb")
    write_rows(tmp_path, ROWS)
    process = start(tmp_path, stuck_after=2)
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob(".kb.building/tokens-*/*.npz"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert ("KeyboardInterrupt" in errors) == (sent == signal.SIGINT)
    assert content(tmp_path / "kb") == old
    assert build(tmp_path, ROWS).resumed == 2 * BATCH
    assert content(tmp_path / "kb") == whole
    assert not (tmp_path / ".kb.building").exists()


@pytest.mark.parametrize("long", ["description", "name"])
def test_full_disk(tmp_path: Path, build: Build, long: str) -> None:
    """A limit to the size of files stands for the disk: entities.arrow, or a tokenised batch, is over it."""
    build(tmp_path, [{"id": "old", "name": "old"}])
    old = content(tmp_path / "kb")
    rows = [{"id": f"Q{i}", "name": f"name {i}", "description": "text " * 100} for i in range(200)]
    if long == "name":
        rows = [{"id": f"Q{i}", "name": "".join(chr(97 + (i + j) % 26) for j in range(30))} for i in range(1100)]
    write_rows(tmp_path, rows)
    batch = BATCH if long == "description" else 1000
    process = start(tmp_path, batch=batch, limit=40_000)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "File too large" in errors
    assert f"could not be built: [Errno {27}]" in errors
    assert "is unchanged" in errors
    assert "Traceback" not in errors
    assert content(tmp_path / "kb") == old
    assert not list(tmp_path.glob(".kb.building/new"))
    (tmp_path / "whole").mkdir()
    report = build(tmp_path, rows)
    assert (report.resumed > 0) == (long == "description")
    assert content(tmp_path / "kb") == content(build(tmp_path / "whole", rows).path)


@needs_proc
def test_memory_does_not_grow_with_the_json(tmp_path: Path) -> None:
    grown = []
    # the files have 2.5 and 40 MB; 50 MB that are taken on the way are seen, also where this process had far more
    ballast = bytearray(200_000_000)
    for n, hoard in ((500, 0), (8000, 0), (500, 50_000_000)):
        write_rows(tmp_path, [{"id": f"Q{i}", "name": f"name {i}", "description": "text " * 1000} for i in range(n)])
        out, errors = start(tmp_path, batch=100, hoard=hoard).communicate(timeout=300)
        assert errors == ""
        grown.append(float(out))
    assert grown[1] - grown[0] < 10
    assert grown[2] - grown[0] > 45
    assert len(ballast) == 200_000_000


@needs_proc
def test_peak_is_of_the_process_itself() -> None:
    ballast = bytearray(300_000_000)
    code = "from benchmarks.machine import peak_mb, resident_mb; print(resident_mb(), peak_mb())"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    resident, peak = map(float, out.split())
    assert 5 < resident <= peak < 150
    assert peak_mb() >= len(ballast) / 1e6


@needs_proc
def test_a_file_without_line_breaks_is_not_read_into_memory(tmp_path: Path) -> None:
    (tmp_path / "entities.jsonl").write_bytes(b"[" + b'{"id": "Q1", "name": "one"}, ' * 3_500_000 + b"]")
    process = start(tmp_path)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert 5 < float(out) < 60  # of 100 MB
    assert "has no entity" in errors
    assert "longer than 16777216 bytes: write one entity per line" in errors
