"""Opening: what was built comes back, and damage is refused."""

import copy
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.kb.builder import BuildReport
from spacy_gemel.kb.check import check_kb
from spacy_gemel.kb.entity import Entity, KBError
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from tests.sending import Sent

Build = Callable[..., BuildReport]

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
NAMES = st.text("abé東🪐 (", min_size=1, max_size=8)
ENTITIES = st.builds(
    Entity,
    kb_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=4),
    name=NAMES.map(str.strip),
    count=st.integers(0, 2**63 - 1),
    aliases=st.lists(TEXTS, max_size=3).map(tuple),
    description=st.none() | TEXTS,
)


@settings(max_examples=25)
@given(entities=st.lists(ENTITIES, min_size=1, max_size=20, unique_by=lambda entity: entity.kb_id))
def test_round_trip(entities: list[Entity], build: Build, tokenizer: Any) -> None:
    entities.append(Entity("one that has a name", "a"))
    rows = [
        {
            "id": entity.kb_id,
            "name": entity.name,
            "count": entity.count,
            "aliases": list(entity.aliases),
            "description": entity.description,
        }
        for entity in entities
    ]
    with tempfile.TemporaryDirectory() as folder:
        report = build(Path(folder), rows)
        kb = KnowledgeBase.open(report.path, verify=True)
        assert len(kb) == len(entities)
        assert [kb.entity(row) for row in range(len(kb))] == entities
        assert [kb.row(entity.kb_id) for entity in entities] == list(range(len(entities)))
        assert kb.counts.tolist() == [entity.count for entity in entities]
        for entity in entities:
            same = [row for row, other in enumerate(entities) if other.name == entity.name]
            same.sort(key=lambda row: (-entities[row].count, row))
            found = kb.trie.rows_of(tokenizer.encode([entity.name])[0]).tolist()
            assert found == (same if entity.name else [])
        assert check_kb(report.path) == []


def test_reading(tmp_path: Path, build: Build, planets: list[Any], tokenizer: Any) -> None:
    report = build(tmp_path, planets)
    kb = KnowledgeBase.open(str(report.path))
    assert kb.entity(1) == Entity("Q2", "New York City", 90, ("NYC", "Big Apple"), "a city")
    assert kb.row("東京") == 5
    assert "Q3" in kb
    assert "Q99" not in kb
    assert 3 not in kb
    assert kb.row("\ud800") is None
    assert [kb.entity(row).name for row in (5, 0)] == ["東京都 🪐", "New York"]
    mercury, york = tokenizer.encode(["Mercury", "New York"])
    assert [kb.entity(row).kb_id for row in kb.trie.rows_of(mercury)] == ["Q4", "Q3", "Q5"]
    assert kb.trie.rows_of(york).tolist() == [0]
    assert (kb.meta.entities, kb.meta.names, kb.meta.distinct_names) == (6, 6, 4)
    assert kb.counts.dtype == np.int64
    for array in (kb.counts, kb.ids.hashes, *(getattr(kb.trie, name) for name in ("tokens", "offsets"))):
        assert not array.flags.owndata
        assert not array.flags.writeable
    assert sorted(kb.files()) == sorted(path.name for path in report.path.iterdir())
    for row in (-1, 6):
        with pytest.raises(IndexError):
            kb.entity(row)


def test_reopened_elsewhere_and_in_another_process(
    tmp_path: Path, build: Build, planets: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, planets)
    moved = (tmp_path / "kb").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    kb = KnowledgeBase.open("moved")
    monkeypatch.chdir("/")
    assert Sent(kb).size < 1000  # another process gets the path, not the arrays
    again = Sent(kb).receive()
    assert again.entity(2) == kb.entity(2)
    assert again.path == kb.path == moved
    assert copy.copy(kb).entity(2) == kb.entity(2)


def test_another_process_does_not_get_another_kb(tmp_path: Path, build: Build, planets: list[Any]) -> None:
    sent = Sent(KnowledgeBase.open(build(tmp_path, planets).path))
    build(tmp_path, planets)
    assert sent.receive().entity(0).kb_id == "Q1"  # built again, but the same
    build(tmp_path, [{**planets[0], "description": "new"}, *planets[1:]])
    with pytest.raises(KBError, match="has been built again since it was opened"):
        sent.receive()


@pytest.mark.parametrize("gone", [True, False], ids=["deleted", "built again"])
def test_what_another_process_could_not_open_is_not_sent(
    tmp_path: Path, build: Build, planets: list[Any], gone: bool
) -> None:
    """There it would die before it can say why."""
    kb = KnowledgeBase.open(build(tmp_path, planets).path)
    if gone:
        shutil.rmtree(kb.path)
    else:
        build(tmp_path, planets[:3])
    with pytest.raises(KBError, match=r"cannot be sent to another process, or copied: .* since it was opened"):
        Sent(kb)


def test_no_kb_says_how_to_build_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "meta.json").write_text('{"lang": "en"}')
    for path in (tmp_path, tmp_path / "none", tmp_path / "file", tmp_path / "pipeline"):
        with pytest.raises(KBError) as raised:
            KnowledgeBase.open(path)
        message = str(raised.value)
        assert "is not a knowledge base" in message
        assert f"python -m spacy_gemel build-kb ENTITIES.jsonl {path} --tokenizer NAME_OR_PATH" in message
        assert check_kb(path) == [message]


def test_other_tokenizer(tmp_path: Path, build: Build, planets: list[Any], tokenizer: Any) -> None:
    kb = KnowledgeBase.open(build(tmp_path, planets).path)
    kb.check_tokenizer(tokenizer.fingerprint, "assets/model")
    with pytest.raises(KBError, match="another tokenizer") as raised:
        kb.check_tokenizer("other", "assets/model")
    assert f"build-kb ENTITIES.jsonl {kb.path} --tokenizer assets/model" in str(raised.value)
