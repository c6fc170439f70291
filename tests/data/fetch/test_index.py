"""The index as others read it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.data.fetch.index import IndexWriter, fetched, local_image

NAME = "0" * 31 + "1.png"


def line(url: object, file: object = NAME, size: object = 3) -> str:
    return json.dumps({"url": url, "file": file, "bytes": size}) + "\n"


def test_only_what_is_really_there(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"abc")
    outside = tmp_path.parent / "outside.png"
    outside.write_bytes(b"abc")
    (tmp_path / "index.jsonl").write_text(
        line("http://a/1")
        + line("http://a/short", size=4)
        + line("http://a/gone", file="f" * 32 + ".png")
        + line("http://a/outside", file="../outside.png")
        + line(7)
        + line("http://a/odd", file=["x"])
        + "[1, 2]\nnot json\n\xff\n\n"
        + line("http://a/2")
        + '{"url": "http://a/torn", "fi'
    )
    assert fetched(tmp_path) == {"http://a/1": tmp_path / NAME, "http://a/2": tmp_path / NAME}
    assert local_image(" http://a/2 ", tmp_path) == tmp_path / NAME
    assert local_image("http://a/torn", str(tmp_path)) is None


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    assert fetched(tmp_path / "none") == {}
    assert local_image("http://a", tmp_path) is None


def test_a_changed_index_is_read_again(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"abc")
    for n in range(3):
        with IndexWriter(tmp_path) as index:
            index.add(f"http://a/{n}", NAME, 3)
        assert local_image(f"http://a/{n}", tmp_path) == tmp_path / NAME


@settings(deadline=None)  # a file system on a busy machine
@given(st.lists(st.text(), max_size=5), st.binary(max_size=30).filter(lambda tail: b"\n" not in tail))
def test_whatever_a_writer_left_the_next_one_goes_on(tmp_path_factory: object, urls: list[str], tail: bytes) -> None:
    folder = tmp_path_factory.mktemp("index")  # type: ignore[attr-defined]
    (folder / NAME).write_bytes(b"abc")
    with IndexWriter(folder) as index:
        for url in urls:
            index.add(url, NAME, 3)
    with (folder / "index.jsonl").open("ab") as file:
        file.write(tail)
    with IndexWriter(folder) as index:
        index.add("last", NAME, 3)
    assert set(fetched(folder)) == {*urls, "last"}


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on a file's size")
def test_a_disk_that_is_full_leaves_whole_lines(tmp_path: Path) -> None:
    """The system writes a part of the line and calls that a success; a process of its own, as the limit is for all."""
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\nfrom spacy_gemel.data.fetch.index import IndexWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (250, 250))\n"
        "with IndexWriter(Path(sys.argv[1])) as index:\n"
        "    for n in range(9):\n        try:\n            index.add(f'http://a/{n}', sys.argv[2], 3)\n"
        "        except OSError as error:\n            print(n, error)\n"
    )
    (tmp_path / NAME).write_bytes(b"abc")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), NAME], capture_output=True, text=True, check=True
    )
    assert "No space left on device" in done.stdout.splitlines()[0]
    index = (tmp_path / "index.jsonl").read_bytes()
    assert index.endswith(b"}\n")
    assert [json.loads(row)["url"] for row in index.splitlines()] == [f"http://a/{n}" for n in range(3)]
    assert len(done.stdout.splitlines()) == 6
