"""Damaged folders: what opening refuses, what check-kb finds, and that nothing is read outside of the files."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spacy_gemel.kb.check import check_kb
from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.index import save_array
from spacy_gemel.kb.knowledge_base import DATA_FILES, KnowledgeBase
from spacy_gemel.kb.meta import _digest, read_meta, write_meta
from tests.kb.building import Build


@pytest.fixture
def folder(tmp_path: Path, build: Build, planets: list[Any]) -> Path:
    """A sound knowledge base of six entities."""
    return build(tmp_path, planets).path


def read_everything(kb: KnowledgeBase) -> None:
    """Read whatever a search reads: KBError is all that may be raised."""
    trie = kb.trie
    for node in range(trie.n_edges):
        try:
            trie.children_of(np.array([node]))
            for row in trie.rows_at(node).tolist():
                kb.entity(row)
        except KBError:
            pass
    for kb_id in ("Q1", "Q3", "Q9", "東京"):
        try:
            row = kb.row(kb_id)
            assert row is None or kb.entity(row).kb_id == kb_id
            kb.is_in_trie(row or 0)
            kb.rows_by_surface(kb_id)
        except KBError:
            pass


@pytest.mark.parametrize("name", DATA_FILES)
def test_a_flipped_bit(folder: Path, name: str) -> None:
    """A full check always finds it; without one, nothing is ever read outside of the files."""
    path = folder / name
    sound = path.read_bytes()
    n_checked = 0
    for index in {*range(0, len(sound), max(1, len(sound) // 100)), len(sound) - 1}:
        path.write_bytes(sound[:index] + bytes([sound[index] ^ 1 << index % 8]) + sound[index + 1 :])
        with suppress(KBError):
            read_everything(KnowledgeBase.open(folder))
        if index % 10 == 0 or index == len(sound) - 1:
            with pytest.raises(KBError, match=name):
                KnowledgeBase.open(folder, verify=True)
            assert any(name in problem for problem in check_kb(folder))
            n_checked += 1
    assert n_checked > 2
    path.write_bytes(sound)
    assert check_kb(folder) == []


@pytest.mark.parametrize("name", DATA_FILES)
def test_a_file_of_the_wrong_size(folder: Path, name: str) -> None:
    path = folder / name
    sound = path.read_bytes()
    cuts = [sound[:size] for size in (0, 1, len(sound) // 3, len(sound) // 2, len(sound) - 4, len(sound) - 1)]
    for content in [*cuts, sound + b"\0", None]:
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(KBError, match=f"{name} (has|is missing).* Build it again"):
            KnowledgeBase.open(folder)
        assert any(name in problem for problem in check_kb(folder))


def test_a_flipped_bit_of_meta(folder: Path) -> None:
    path = folder / "meta.json"
    sound, meta = path.read_bytes(), read_meta(folder)
    for bit in range(0, 8 * len(sound), 13):
        changed = bytearray(sound)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        try:
            assert read_meta(folder) == meta
        except KBError as error:
            assert str(folder) in str(error)


def test_meta_that_was_edited_cut_or_written_by_another_version(folder: Path) -> None:
    path = folder / "meta.json"
    sound = path.read_text()
    damaged = {
        "checksum": sound.replace('"entities": 6', '"entities": 5'),
        "damaged": sound[:-20],
        "version 1, .* again": json.dumps({**json.loads(sound), "version": 1}),
    }
    for match, text in damaged.items():
        path.write_text(text)
        with pytest.raises(KBError, match=match):
            KnowledgeBase.open(folder)
        assert len(check_kb(folder)) == 1


IMPOSSIBLE: list[tuple[str, Any]] = [
    *[(name, value) for name in ("entities", "names", "distinct_names", "batch_rows") for value in (0, -1, 1.0, True)],
    *[(name, value) for name in ("edges", "vocab_size", "max_name_tokens") for value in (0, None, "7", [7])],
    ("names", 7),
    ("distinct_names", 7),
    ("tokenizer_fingerprint", None),
    ("leading_space", 1),
    *[("skipped", value) for value in (None, [], {"bad_json": 3}, {"bad_json": {"count": 1}})],
    ("skipped", {"bad_json": {"count": -1, "examples": []}}),
    ("skipped", {"bad_json": {"count": 1, "examples": "text"}}),
    ("skipped", {"bad_json": {"count": 1, "examples": [1]}}),
    *[("files", value) for value in (None, [], {"counts.npy": 3}, {"counts.npy": {"bytes": 1}})],
    ("files", {"counts.npy": {"bytes": "1", "sha256": "x"}}),
    ("files", {"counts.npy": {"bytes": 1, "sha256": 1}}),
    ("files", {"counts.npy": {"bytes": 1, "sha256": "x", "more": 1}}),
    ("files", {}),
    ("vocab_size", 100_000),
    ("batch_rows", 2),
    ("entities", 10**30),
    ("more", 1),
]


def test_impossible_meta_with_a_matching_checksum(folder: Path) -> None:
    path = folder / "meta.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["meta_sha256"]
    for name, value in IMPOSSIBLE:
        changed = {**content, name: value}
        path.write_text(json.dumps({**changed, "meta_sha256": _digest(changed)}), encoding="utf-8")
        with pytest.raises(KBError):
            KnowledgeBase.open(folder)
        assert check_kb(folder), (name, value)


def test_array_of_another_dtype(folder: Path) -> None:
    path = folder / "trie_offsets.npy"
    offsets = np.load(path)
    for changed in (offsets.view(np.float32), offsets.view(np.uint32), offsets.astype(">i4")):
        np.save(path, changed)
        with pytest.raises(KBError, match="trie_offsets"):
            KnowledgeBase.open(folder)


def test_files_of_different_knowledge_bases(folder: Path, tmp_path: Path, build: Build, planets: list[Any]) -> None:
    """Each file is intact: only a comparison of their contents finds the mixture."""
    sound = read_meta(folder)
    (tmp_path / "other").mkdir()
    changed = [{**row, "id": row["id"] + "x", "count": 5 - index} for index, row in enumerate(planets)]
    other = build(tmp_path / "other", changed).path
    foreign = {
        "counts.npy": "counts.npy differs",
        "ids_hash.npy": "index of ids differs",
        "ids_row.npy": "index of ids",
        "trie_leaf_rows.npy": "most frequent entity",
    }
    for name, message in foreign.items():
        content = (folder / name).read_bytes()
        (folder / name).write_bytes((other / name).read_bytes())
        write_meta(folder, replace(sound, files={**sound.files, name: read_meta(other).files[name]}))
        assert any(message in problem for problem in check_kb(folder)), name
        (folder / name).write_bytes(content)
    write_meta(folder, sound)
    assert check_kb(folder) == []


def test_leaf_rows_outside_the_entities(folder: Path) -> None:
    path = folder / "trie_leaf_rows.npy"
    save_array(path, np.where(np.load(path) < 0, ~np.int32(99), np.int32(99)))
    kb = KnowledgeBase.open(folder)
    ends = np.flatnonzero(kb.trie.tokens == kb.trie.end).tolist()
    for call in (*(lambda edge=edge: kb.trie.rows_at(edge) for edge in ends), lambda: kb.is_in_trie(0)):
        with pytest.raises(KBError, match=r"leaf_rows are corrupt \(python -m spacy_gemel check-kb KB_DIR\)"):
            call()
