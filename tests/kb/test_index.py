"""Arrays on disk, and the indexes of ids, names and aliases, compared with a plain look at every entity."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.kb.check import check_kb
from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.index import hash_text, open_array, save_array, surface_key
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from tests.kb.building import AnyTokenizer, Build

texts = st.text(st.sampled_from("aAbB _é"), min_size=1, max_size=4)


@given(st.lists(st.tuples(texts, st.lists(texts, max_size=3)), min_size=1, max_size=12), st.lists(texts, min_size=5))
@settings(max_examples=20)
def test_names_and_aliases_against_all_of_them(
    build: Build, entities: list[tuple[str, list[str]]], queries: list[str]
) -> None:
    rows: list[Any] = [
        {"id": f"E{index}", "name": name, "aliases": aliases} for index, (name, aliases) in enumerate(entities)
    ]
    with tempfile.TemporaryDirectory() as folder:
        kb = KnowledgeBase.open(build(Path(folder), [*rows, {"id": "last", "name": "z"}], AnyTokenizer()).path)
        names = [surface_key(name.strip()) for name, _ in entities]
        for query in {*queries, *(name for name, _ in entities), *(alias for _, more in entities for alias in more)}:
            key = surface_key(query)
            named = [index for index, name in enumerate(names) if name == key and key]
            aliased = [
                index
                for index, (_, aliases) in enumerate(entities)
                if index not in named and key and key in map(surface_key, aliases)
            ]
            assert kb.rows_by_surface(query) == (named, aliased)
        assert check_kb(kb.path) == []


def test_colliding_hashes(tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("index", "jsonl", "check"):
        monkeypatch.setattr(f"spacy_gemel.kb.{module}.hash_text", lambda text: hash_text(text) % 3)
    rows = [{"id": f"Q{i % 20}", "name": f"n{i}"} for i in range(21)]
    kb = KnowledgeBase.open(build(tmp_path, rows).path)
    assert [kb.row(f"Q{i}") for i in range(20)] == list(range(20))
    assert kb.row("Q20") is None
    assert kb.rows_by_surface("n7") == ([7], [])
    assert kb.meta.skipped["duplicate_id"].count == 1
    assert check_kb(kb.path) == []


@pytest.mark.parametrize("array", ["hash", "row"])
def test_a_wrong_index_of_names_is_found(
    tmp_path: Path, build: Build, planets: list[Any], monkeypatch: pytest.MonkeyPatch, array: str
) -> None:
    path = build(tmp_path, planets).path / f"surfaces_{array}.npy"
    values = np.array(np.load(path))
    values[0] = 0 if array == "hash" else (values[0] + 1) % len(planets)
    save_array(path, values)
    monkeypatch.setattr("spacy_gemel.kb.check.kb_problems", lambda *_, **__: [])
    assert check_kb(path.parent) == ["the index of names and aliases differs from the entities in rows 0 to 5"]


@pytest.mark.parametrize("name", ["ids", "surfaces"])
def test_rows_outside_the_entities_are_refused(tmp_path: Path, build: Build, planets: list[Any], name: str) -> None:
    path = build(tmp_path, planets).path / f"{name}_row.npy"
    save_array(path, np.full_like(np.load(path), len(planets)))
    kb = KnowledgeBase.open(path.parent)
    with pytest.raises(KBError, match=rf"{name}_row\.npy is corrupt"):
        kb.row("Q1") if name == "ids" else kb.rows_by_surface("Mercury")


def test_any_header_is_read_or_refused(tmp_path: Path) -> None:
    """No size in meta.json stands guard: a single array file with one bit of its header flipped."""
    path = tmp_path / "array.npy"
    numbers = np.arange(1, 9, dtype=np.int32)
    save_array(path, numbers)
    sound = path.read_bytes()
    n_read = 0
    for bit in range(0, 8 * (len(sound) - 32), 3):
        changed = bytearray(sound)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(changed))
        try:
            array = open_array(path, np.int32)
        except KBError as error:
            assert str(path) in str(error)
        else:
            assert np.array_equal(array, numbers)
            n_read += 1
    assert 0 < n_read < 40
    path.write_bytes(sound + b"\0")
    with pytest.raises(KBError, match="another size"):
        open_array(path, np.int32)


def test_arrays_are_what_numpy_writes(tmp_path: Path) -> None:
    for array in (np.arange(5, dtype=np.int32), np.zeros(0, dtype=np.uint64), np.arange(10)[::3]):
        save_array(tmp_path / "ours.npy", array)
        np.save(tmp_path / "numpys.npy", array)
        assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpys.npy").read_bytes()
