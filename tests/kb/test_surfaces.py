"""Names and aliases to entities, against a plain look at every entity."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.kb.check import check_kb
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import resolve_gold
from spacy_gemel.kb.surfaces import surface_key

TITLES = [
    {"id": "Java", "name": "Java", "count": 9, "aliases": ["Q3757", "Jawa"]},
    {"id": "Java (programming language)", "name": "Java (programming language)", "aliases": ["Q251"]},
    {"id": "São Paulo", "name": "São Paulo", "aliases": ["Q174", "Sao Paulo"]},
    {"id": "50% off", "name": "50% off", "aliases": ["Q9"]},
]
QIDS = [
    {"id": "Q3757", "name": "Java", "count": 9, "aliases": ["Jawa"]},
    {"id": "Q251", "name": "Java (programming language)", "aliases": ["Java language", "Java SE"]},
    {"id": "Q174", "name": "São Paulo", "aliases": ["Sao Paulo"]},
    {"id": "Q9", "name": "50% off"},
    {"id": "Q5", "name": "Twin", "count": 3},
    {"id": "Q6", "name": "Twin", "count": 4, "aliases": ["Double"]},
    {"id": "Q7", "name": "Even", "count": 3, "aliases": ["Double"]},
    {"id": "Q8", "name": "Even", "count": 3},
]
WIKI = "https://en.wikipedia.org/wiki/"


class AnyTokenizer:
    """A token per character."""

    fingerprint = "any"
    vocab_size = 2**17
    special_ids: frozenset[int] = frozenset()
    leading_space = False

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


@pytest.fixture(scope="module")
def kb_of(tmp_path_factory: pytest.TempPathFactory, build: Callable[..., Any]) -> Callable[..., KnowledgeBase]:
    def make(rows: list[dict[str, Any]]) -> KnowledgeBase:
        folder = tmp_path_factory.mktemp("kb")
        return KnowledgeBase.open(build(folder, rows, AnyTokenizer()).path)

    return make


@pytest.mark.parametrize("rows", [TITLES, QIDS[:4]], ids=["titles", "QIDs"])
def test_every_way_to_write_a_gold(kb_of: Callable[..., KnowledgeBase], rows: list[dict[str, Any]]) -> None:
    kb = kb_of(rows)
    ways = [
        ["Q3757", "Java", "java", "Jawa", f"{WIKI}Java", f"n{WIKI}Java", "https://www.wikidata.org/wiki/Q3757"],
        ["Q251", "Java (programming language)", "Java_(programming_language)", f"{WIKI}Java_(programming_language)",
         "Java_%28programming_language%29", f"{WIKI}Java_%28programming_language%29#History"],
        ["Q174", "São Paulo", "S%C3%A3o_Paulo", "S%C3%A3o Paulo", f"{WIKI}S%C3%A3o_Paulo", "Sa\u0303o Paulo",
         "Sao_Paulo"],
        ["Q9", "50% off", "50%_off", f"{WIKI}50%25_off"],
    ]  # fmt: skip
    for row, golds in enumerate(ways):
        assert {gold: resolve_gold(kb, gold) for gold in golds} == dict.fromkeys(golds, row)
    for unknown in ("", "NIL", "Q1", "Javanese", f"{WIKI}Nowhere", "%", "_", "%ZZ", "\ud800"):
        assert resolve_gold(kb, unknown) is None


def test_several_of_one_name_or_alias(kb_of: Callable[..., KnowledgeBase]) -> None:
    kb = kb_of(QIDS)
    assert resolve_gold(kb, "Twin") == 5  # the one that is linked more often
    assert resolve_gold(kb, "Even") is None
    assert resolve_gold(kb, "Double") is None
    assert kb.rows_by_surface("double") == ([], [5, 6])
    assert kb.rows_by_surface("Twin") == ([4, 5], [])


texts = st.text(st.sampled_from("aAbB _é"), min_size=1, max_size=4)


@given(st.lists(st.tuples(texts, st.lists(texts, max_size=3)), min_size=1, max_size=12), texts)
@settings(max_examples=60, deadline=None)
def test_names_and_aliases_against_all_of_them(
    kb_of: Callable[..., KnowledgeBase], entities: list[tuple[str, list[str]]], asked: str
) -> None:
    rows = [{"id": f"E{index}", "name": name, "aliases": aliases} for index, (name, aliases) in enumerate(entities)]
    kb = kb_of([*rows, {"id": "last", "name": "z"}])
    key = surface_key(asked)
    names = [surface_key(name.strip()) for name, _ in entities]
    named = [index for index, name in enumerate(names) if name == key and key]
    aliased = [
        index
        for index, (_, aliases) in enumerate(entities)
        if index not in named and key and key in map(surface_key, aliases)
    ]
    assert kb.rows_by_surface(asked) == (named, aliased)
    assert check_kb(kb.path) == []


@pytest.mark.parametrize("damage", ["hashes", "rows"])
def test_an_index_of_names_that_is_wrong_is_found(
    kb_of: Callable[..., KnowledgeBase], tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kb = kb_of(QIDS)
    hashes, rows = np.array(kb.surfaces.hashes), np.array(kb.surfaces.rows)
    if damage == "hashes":
        hashes[0] = 0
    else:
        rows[0] = (rows[0] + 1) % len(QIDS)
    shutil.copytree(kb.path, tmp_path / "kb")
    from spacy_gemel.kb import check
    from spacy_gemel.kb.surfaces import SurfaceIndex

    monkeypatch.setattr(SurfaceIndex, "open", classmethod(lambda cls, _: cls(hashes, rows)))
    monkeypatch.setattr(check, "checksum_problems", lambda *_: [])
    assert check_kb(tmp_path / "kb") == ["the index of names and aliases differs from the entities in rows 0 to 7"]
    rows[:] = len(QIDS)
    with pytest.raises(ValueError, match=r"surfaces_row\.npy of .* is corrupt"):
        KnowledgeBase.open(tmp_path / "kb").rows_by_surface("Twin")
