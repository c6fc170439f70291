"""Titles in URLs, NIL in its spellings, and the entities that gold ids mean."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import gold_of, linkable_row, resolve_gold, title_of_url
from tests.kb.building import AnyTokenizer

WIKI = "https://en.wikipedia.org/wiki/"
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


@pytest.mark.parametrize(
    ("url", "title"),
    [
        (f"{WIKI}Detroit_Lions", "Detroit Lions"),
        ("http://en.wikipedia.org/wiki/Detroit_Lions#History", "Detroit Lions"),
        (f"n{WIKI}Detroit_Lions", "Detroit Lions"),
        (f"]{WIKI}Detroit_Lions ", "Detroit Lions"),
        ("en.m.wikipedia.org/wiki/Detroit_Lions?oldid=3", "Detroit Lions"),
        ("//de.wikipedia.org/wiki/M%C3%BCnchen", "München"),
        (f"{WIKI}M%FCnchen", "München"),
        (f"{WIKI}AC/DC", "AC/DC"),
        (f"{WIKI}C%23_(language)", "C# (language)"),
        ("https://en.wikipedia.org/w/index.php?title=S%C3%A3o_Paulo&redirect=no", "São Paulo"),
        ("https://www.wikidata.org/wiki/Q42", "Q42"),
        ("http://www.wikidata.org/entity/Q42", "Q42"),
        ("http://dbpedia.org/resource/Berlin", "Berlin"),
        (WIKI, None),
        ("https://example.org/wiki/Berlin", None),
        ("Detroit_Lions", None),
        ("", None),
    ],
)
def test_title_of_url(url: str, title: str | None) -> None:
    assert title_of_url(url) == title


def test_nil_and_other_golds() -> None:
    assert {gold_of(gold) for gold in ("nil", "NIL", " Nil ", "", None)} == {"NIL"}
    for gold in ("Q308", "Nile", "https://example.org/x"):
        assert gold_of(gold) == gold
    assert gold_of("", missing="") == gold_of(None, missing="") == ""


@given(st.text())
def test_never_raises(text: str) -> None:
    gold_of(text)
    assert title_of_url(f"{WIKI}{text}") != ""


@pytest.fixture(scope="module")
def kb_of(tmp_path_factory: pytest.TempPathFactory, build: Callable[..., Any]) -> Callable[..., KnowledgeBase]:
    def make(rows: list[dict[str, Any]]) -> KnowledgeBase:
        return KnowledgeBase.open(build(tmp_path_factory.mktemp("kb"), rows, AnyTokenizer()).path)

    return make


@pytest.mark.parametrize("rows", [TITLES, QIDS[:4]], ids=["titles", "QIDs"])
def test_every_spelling_of_a_gold_id(kb_of: Callable[..., KnowledgeBase], rows: list[dict[str, Any]]) -> None:
    kb = kb_of(rows)
    spellings = [
        ["Q3757", "Java", "java", "Jawa", f"{WIKI}Java", f"n{WIKI}Java", "https://www.wikidata.org/wiki/Q3757"],
        ["Q251", "Java (programming language)", "Java_(programming_language)", f"{WIKI}Java_(programming_language)",
         "Java_%28programming_language%29", f"{WIKI}Java_%28programming_language%29#History"],
        ["Q174", "São Paulo", "S%C3%A3o_Paulo", "S%C3%A3o Paulo", f"{WIKI}S%C3%A3o_Paulo", "Sa\u0303o Paulo",
         "Sao_Paulo"],
        ["Q9", "50% off", "50%_off", f"{WIKI}50%25_off"],
    ]  # fmt: skip
    for row, golds in enumerate(spellings):
        assert {gold: resolve_gold(kb, gold) for gold in golds} == dict.fromkeys(golds, row)
        assert linkable_row(kb, golds[0]) == row
    for unknown in ("", "NIL", "Q1", "Javanese", f"{WIKI}Nowhere", "%", "_", "%ZZ", "\ud800"):
        assert resolve_gold(kb, unknown) is None


def test_several_entities_with_one_name_or_alias(kb_of: Callable[..., KnowledgeBase]) -> None:
    kb = kb_of([*QIDS, {"id": "Q10", "name": ""}])
    assert resolve_gold(kb, "Twin") == 5  # the more frequent one
    assert resolve_gold(kb, "Even") is None
    assert resolve_gold(kb, "Double") is None
    assert kb.rows_by_surface("double") == ([], [5, 6])
    assert kb.rows_by_surface("Twin") == ([4, 5], [])
    assert (resolve_gold(kb, "Q10"), linkable_row(kb, "Q10")) == (8, None)
