"""Damaged files: what opening refuses, and that nothing is ever read outside of what is left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_gemel.kb.arrays import open_array, save_array
from spacy_gemel.kb.builder import BuildReport
from spacy_gemel.kb.check import check_kb
from spacy_gemel.kb.errors import KBError
from spacy_gemel.kb.knowledge_base import DATA_FILES, KnowledgeBase
from spacy_gemel.kb.meta import _digest, read_meta
from spacy_gemel.kb.trie_check import check_trie

Build = Callable[..., BuildReport]

# one folder for all examples: each puts the sound bytes back
SHARED_FOLDER = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def use(kb: KnowledgeBase) -> None:
    """Read whatever a search reads."""
    trie = kb.trie
    for node in range(trie.n_edges):
        try:
            trie.children(node)
            trie.children_of(np.array([node]))
            for row in trie.rows_at(node).tolist():
                kb.entity(row)
        except KBError:
            pass
    for kb_id in ("Q1", "Q3", "Q9", "東京"):
        try:
            row = kb.row(kb_id)
            assert row is None or kb.entity(row).kb_id == kb_id
            kb.is_linkable(kb.row(kb_id) or 0)
            kb.rows_by_surface(kb_id)
        except KBError:
            pass


@pytest.mark.parametrize("name", [name for name in DATA_FILES if name.endswith(".npy")])
def test_a_flipped_bit_is_never_read_outside(tmp_path: Path, build: Build, planets: list[Any], name: str) -> None:
    path = build(tmp_path, planets).path / name
    sound = path.read_bytes()
    step = max(1, len(sound) // 250)
    for index in range(0, len(sound), step):
        path.write_bytes(sound[:index] + bytes([sound[index] ^ 1 << index % 8]) + sound[index + 1 :])
        try:
            kb = KnowledgeBase.open(path.parent)
        except KBError:
            continue
        use(kb)


def test_a_flipped_bit_of_meta_is_found(tmp_path: Path, build: Build, planets: list[Any]) -> None:
    path = build(tmp_path, planets).path / "meta.json"
    sound, meta = path.read_bytes(), read_meta(path.parent)
    for bit in range(8 * len(sound)):
        changed = bytearray(sound)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        try:
            found = read_meta(path.parent)
        except KBError as error:
            assert str(path.parent) in str(error)
        else:
            assert found == meta


WRONG: list[tuple[str, Any]] = [
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
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_meta_that_was_changed_together_with_its_checksum(
    tmp_path: Path, build: Build, planets: list[Any], name: str, value: Any
) -> None:
    path = build(tmp_path, planets).path / "meta.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["meta_sha256"]
    content[name] = value
    path.write_text(json.dumps({**content, "meta_sha256": _digest(content)}), encoding="utf-8")
    with pytest.raises(KBError):
        KnowledgeBase.open(path.parent)
    assert check_kb(path.parent)


@pytest.mark.parametrize("name", DATA_FILES)
@SHARED_FOLDER
@given(data=st.data())
def test_cut_at_any_length_is_refused(
    tmp_path: Path, build: Build, planets: list[Any], name: str, data: st.DataObject
) -> None:
    if not (tmp_path / "kb").exists():
        build(tmp_path, planets)
    path = tmp_path / "kb" / name
    sound = path.read_bytes()
    path.write_bytes(sound[: data.draw(st.integers(0, len(sound) - 1))])
    try:
        with pytest.raises(KBError, match=f"{name} has .* Build it again"):
            KnowledgeBase.open(path.parent)
        assert any(name in problem for problem in check_kb(path.parent))
    finally:
        path.write_bytes(sound)


def test_any_header_is_read_or_refused(tmp_path: Path) -> None:
    """Where no size in meta.json stands guard: a single array file, a bit of its header flipped."""
    path = tmp_path / "array.npy"
    numbers = np.arange(1, 9, dtype=np.int32)
    save_array(path, numbers)
    sound = path.read_bytes()
    read = 0
    for bit in range(8 * (len(sound) - 32)):
        changed = bytearray(sound)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        try:
            array = open_array(path, np.int32)
        except KBError as error:
            assert str(path) in str(error)
        else:
            assert np.array_equal(array, numbers)
            read += 1
    assert 0 < read < 100
    path.write_bytes(sound + b"\0")
    with pytest.raises(KBError, match="another size"):
        open_array(path, np.int32)


def test_arrays_are_what_numpy_writes(tmp_path: Path) -> None:
    for array in (np.arange(5, dtype=np.int32), np.zeros(0, dtype=np.uint64), np.arange(10)[::3]):
        save_array(tmp_path / "mine.npy", array)
        np.save(tmp_path / "numpys.npy", array)
        assert (tmp_path / "mine.npy").read_bytes() == (tmp_path / "numpys.npy").read_bytes()


def test_rows_outside_the_entities_are_refused(tmp_path: Path, build: Build, planets: list[Any]) -> None:
    folder = build(tmp_path, planets).path
    ids = folder / "ids_row.npy"
    sound = np.load(ids)
    save_array(ids, np.full_like(sound, 99))
    kb = KnowledgeBase.open(folder)
    with pytest.raises(KBError, match=r"ids_row\.npy is corrupt"):
        kb.row("Q1")
    save_array(ids, sound)
    leaf_rows = folder / "trie_leaf_rows.npy"
    save_array(leaf_rows, np.where(np.load(leaf_rows) < 0, ~np.int32(99), np.int32(99)))
    kb = KnowledgeBase.open(folder)
    for edge in np.flatnonzero(kb.trie.tokens == kb.trie.end).tolist():
        with pytest.raises(KBError, match=r"leaf_rows are corrupt \(python -m spacy_gemel check-kb KB_DIR\)"):
            kb.trie.rows_at(edge)
    with pytest.raises(KBError, match=r"leaf_rows are corrupt \(python -m spacy_gemel check-kb KB_DIR\)"):
        kb.is_linkable(0)


@pytest.mark.parametrize("value", [-1, 5, 2**31 - 1, -(2**31)])
def test_corrupt_leaf_starts_are_never_followed(tmp_path: Path, build: Build, value: int) -> None:
    folder = build(tmp_path, [{"id": f"Q{i}", "name": f"name {i}"} for i in range(300)]).path
    path = folder / "trie_leaf_starts.npy"
    starts = np.load(path)
    assert len(starts) > 3
    starts[1:-1] = value
    save_array(path, starts)
    trie = KnowledgeBase.open(folder).trie
    refused = 0
    for edge in np.flatnonzero(trie.tokens == trie.end).tolist():
        try:
            trie.rows_at(edge)
        except KBError as error:
            assert "corrupt" in str(error)
            refused += 1
    assert refused
    (problem,) = check_trie(trie.arrays, np.zeros(300, np.int64), 200)
    assert "leaf_starts" in problem
