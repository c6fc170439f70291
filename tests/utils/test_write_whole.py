"""What is written replaces what may be replaced, with the rights that it had."""

import os
import stat
from pathlib import Path

import pytest

from spacy_gemel.utils.files import write_whole

pytestmark = pytest.mark.skipif(os.name == "nt", reason="other rights")


def write(path: Path) -> None:
    with write_whole(path) as partial:
        partial.write_text("new", encoding="utf8")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_read_a_new_file(tmp_path: Path, mask: int, mode: int) -> None:
    previous = os.umask(mask)
    try:
        write(tmp_path / "out.jsonl")
    finally:
        os.umask(previous)
    assert mode_of(tmp_path / "out.jsonl") == mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    (tmp_path / "out.jsonl").write_text("old", encoding="utf8")
    (tmp_path / "out.jsonl").chmod(mode)
    write(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text(encoding="utf8") == "new"
    assert mode_of(tmp_path / "out.jsonl") == mode
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to("elsewhere/file")
    for _ in range(2):  # not there yet, and there
        write(tmp_path / "out")
        assert (tmp_path / "out").is_symlink()
        assert (tmp_path / "elsewhere" / "file").read_text(encoding="utf8") == "new"
    with write_whole(tmp_path / "out", through_links=False) as partial:  # it may be a stranger's
        partial.write_text("own", encoding="utf8")
    assert not (tmp_path / "out").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text(encoding="utf8") == "new"


@pytest.mark.parametrize("kind", ["fifo", "folder", "a link to a device"])
def test_what_would_be_lost_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    makers = {
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "a link to a device": lambda: path.symlink_to("/dev/null"),
    }
    makers[kind]()
    before = path.lstat()
    with pytest.raises(OSError, match="is no regular file, and is not replaced"):
        write(path)
    assert os.path.samestat(path.lstat(), before)
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
