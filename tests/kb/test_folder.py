"""How a new knowledge base takes the place of the old one, and what keeps builds apart."""

import errno
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.check import check_kb
from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.folder import work_folder
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.meta import write_meta
from tests.kb.building import ROWS, Build

pytestmark = pytest.mark.usefixtures("small_batches")


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
        with pytest.raises(KBError, match=r"Permission denied.*unchanged.*resumes"):
            build(tmp_path, ROWS)
    assert KnowledgeBase.open(tmp_path / "kb", verify=True).entity(0).kb_id == "old"
    assert build(tmp_path, ROWS).resumed == 60


def test_the_disk_has_the_new_kb_before_the_old_one_goes(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, [{"id": "old", "name": "old"}])
    done: list[tuple[str, str]] = []
    fsync, rename, rmtree = os.fsync, Path.rename, shutil.rmtree

    def synced(handle: int) -> None:
        done.append(("sync", Path(f"/proc/self/fd/{handle}").readlink().name))
        fsync(handle)

    def renamed(self: Path, target: Path) -> Path:
        done.append(("rename", self.name))
        return rename(self, target)

    def removed(path: Path, **options: Any) -> None:
        if Path(path).exists():
            done.append(("remove", Path(path).name))
        rmtree(path, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(shutil, "rmtree", removed)
    build(tmp_path, ROWS)
    files = {path.name for path in (tmp_path / "kb").iterdir()}
    assert {name for _, name in done[: len(files)]} == files
    aside = f".kb.removed-{os.getpid()}"
    assert done[len(files) :] == [
        ("sync", "new"),
        ("rename", "kb"),
        ("rename", "new"),
        ("sync", ".kb.building"),
        ("sync", tmp_path.name),
        ("rename", ".kb.building"),
        ("remove", aside),
    ]
    assert not (tmp_path / aside).exists()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_disk_that_does_not_confirm_folders(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fsync = os.fsync

    def failing(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode) and (code == errno.EINVAL or (tmp_path / "kb").exists()):
            raise OSError(code, os.strerror(code))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", failing)
    if code == errno.EINVAL:  # the file system does not know it
        build(tmp_path, ROWS)
    else:
        with pytest.raises(
            KBError, match=r"is in place, but the disk did not confirm it: .*Input/output.* is complete"
        ):
            build(tmp_path, ROWS)
    assert check_kb(tmp_path / "kb") == []


def test_what_comes_into_the_folder_meanwhile_is_not_lost(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, [{"id": "old", "name": "old"}])

    def meddle(*arguments: Any) -> None:
        (tmp_path / "kb" / "thesis.txt").write_text("mine")
        write_meta(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("spacy_gemel.kb.builder.write_meta", meddle)
        with pytest.raises(KBError, match=r"holds thesis\.txt, .*is unchanged.* resumes"):
            build(tmp_path, ROWS)
    assert (tmp_path / "kb" / "thesis.txt").read_text() == "mine"
    assert KnowledgeBase.open(tmp_path / "kb", verify=True).entity(0).kb_id == "old"
    (tmp_path / "kb" / "thesis.txt").unlink()
    assert build(tmp_path, ROWS).resumed == 60


@pytest.mark.parametrize("there", [True, False])
def test_symbolic_link_stays_one(tmp_path: Path, build: Build, there: bool) -> None:
    (tmp_path / "disk").mkdir()
    if there:
        build(tmp_path, [{"id": "old", "name": "old"}])
        (tmp_path / "kb").rename(tmp_path / "disk" / "real")
    (tmp_path / "kb").symlink_to(tmp_path / "disk" / "real")
    report = build(tmp_path, ROWS)
    assert (tmp_path / "kb").is_symlink()
    assert report.path == tmp_path / "kb"
    assert KnowledgeBase.open(tmp_path / "disk" / "real", verify=True).entity(0).kb_id == "Q0"
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["real"]


def test_mount_point_is_refused_at_once(
    tmp_path: Path, build: Build, tokenizer_class: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kb").mkdir()
    tokenizer = tokenizer_class()
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "kb")
        with pytest.raises(KBError, match="is a mount point, which cannot be replaced: give a folder inside of it"):
            build(tmp_path, ROWS, tokenizer)
    assert tokenizer.batches == []
    with pytest.raises(KBError, match="/ is a mount point"):
        build_kb(tmp_path / "entities.jsonl", "/", tokenizer)


def test_work_folder_that_another_build_makes_while_this_one_tidies_up(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmtree = shutil.rmtree
    held = []

    def nested(path: Path, **options: Any) -> None:
        if Path(path).name.startswith(".kb.removed-") and not held:
            held.append(work_folder(tmp_path / "kb"))
            (held[0].__enter__() / "tokens").mkdir()
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", nested)
    build(tmp_path, ROWS)
    assert (tmp_path / ".kb.building" / "tokens").is_dir()  # the other build's is not touched
    with pytest.raises(KBError, match="Another build is writing"):
        build(tmp_path, ROWS)
    held[0].__exit__(None, None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entities.jsonl", "kb"]


def test_what_a_killed_build_could_not_delete_goes(tmp_path: Path, build: Build) -> None:
    (tmp_path / ".kb.removed-1" / "old").mkdir(parents=True)
    build(tmp_path, ROWS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entities.jsonl", "kb"]


def test_a_kb_of_format_1_is_replaced(tmp_path: Path, build: Build) -> None:
    folder = build(tmp_path, ROWS).path
    (folder / "trie_leaf_edges.npy").write_bytes(b"")
    (folder / "trie_leaf_offsets.npy").write_bytes(b"")
    build(tmp_path, ROWS)
    assert check_kb(folder) == []
    assert not (folder / "trie_leaf_edges.npy").exists()
