"""Titles behind URLs, and NIL in its many spellings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_gemel.kb.resolve import gold_of, title_of_url


@pytest.mark.parametrize(
    ("url", "title"),
    [
        ("https://en.wikipedia.org/wiki/Detroit_Lions", "Detroit Lions"),
        ("http://en.wikipedia.org/wiki/Detroit_Lions#History", "Detroit Lions"),
        ("nhttps://en.wikipedia.org/wiki/Detroit_Lions", "Detroit Lions"),
        ("]https://en.wikipedia.org/wiki/Detroit_Lions ", "Detroit Lions"),
        ("en.m.wikipedia.org/wiki/Detroit_Lions?oldid=3", "Detroit Lions"),
        ("//de.wikipedia.org/wiki/M%C3%BCnchen", "München"),
        ("https://en.wikipedia.org/wiki/M%FCnchen", "München"),
        ("https://en.wikipedia.org/wiki/AC/DC", "AC/DC"),
        ("https://en.wikipedia.org/wiki/C%23_(language)", "C# (language)"),
        ("https://en.wikipedia.org/wiki/Mercury_%28planet%29", "Mercury (planet)"),
        ("https://en.wikipedia.org/w/index.php?title=S%C3%A3o_Paulo&redirect=no", "São Paulo"),
        ("https://www.wikidata.org/wiki/Q42", "Q42"),
        ("http://www.wikidata.org/entity/Q42", "Q42"),
        ("http://dbpedia.org/resource/Berlin", "Berlin"),
        ("https://en.wikipedia.org/wiki/", None),
        ("https://example.org/wiki/Berlin", None),
        ("Detroit_Lions", None),
        ("", None),
    ],
)
def test_title_of_url(url: str, title: str | None) -> None:
    assert title_of_url(url) == title


@pytest.mark.parametrize("gold", ["nil", "NIL", " Nil ", "", None])
def test_nil(gold: str | None) -> None:
    assert gold_of(gold) == "NIL"


def test_other_golds_stay() -> None:
    assert gold_of("Q308") == "Q308"
    assert gold_of("Nile") == "Nile"
    assert gold_of("", missing="") == gold_of(None, missing="") == ""
    assert gold_of("https://example.org/x") == "https://example.org/x"


@given(st.text())
def test_never_raises(text: str) -> None:
    gold_of(text)
    assert title_of_url(f"https://en.wikipedia.org/wiki/{text}") != ""
