"""Linked entities drawn by displaCy: links for entities, none for NIL."""

import warnings

import pytest
import spacy
from spacy import displacy
from spacy.tokens import Doc, Span

from spacy_gemel.pipeline.user_data import displacy_ents


def doc_of(*kb_ids: str, lang: str = "en") -> Doc:
    doc = Doc(spacy.blank(lang).vocab, words=["Mercury"] * len(kb_ids))
    doc.ents = [Span(doc, index, index + 1, label="ENT", kb_id=kb_id) for index, kb_id in enumerate(kb_ids)]
    return doc


def render(doc: Doc, template: str | None = None) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return displacy.render(displacy_ents(doc, kb_url_template=template), style="ent", manual=True, jupyter=False)


def test_entities_are_links_and_nil_is_none() -> None:
    doc = doc_of("Q308", "NIL", "")
    html = render(doc, "https://www.wikidata.org/wiki/{}")
    assert html.count("Mercury") == html.count("ENT") == 3
    assert html.count("<a ") == 1
    assert 'href="https://www.wikidata.org/wiki/Q308">Q308</a>' in html
    assert "NIL" not in html
    assert displacy.render(doc, style="ent", jupyter=False).count("<a ") == 2  # what it is for


def test_without_an_address_it_is_drawn_as_displacy_draws_it() -> None:
    doc = doc_of("Q308", "Q925")
    doc.user_data["title"] = "Two"
    assert render(doc) == displacy.render(doc, style="ent", jupyter=False)
    doc = doc_of("Q308", lang="ar")
    assert 'dir: rtl"' in render(doc) or "direction: rtl" in render(doc)
    assert render(doc) == displacy.render(doc, style="ent", jupyter=False)


@pytest.mark.parametrize(
    ("kb_id", "address", "shown"),
    [
        ("Mercury (planet)", "/wiki/Mercury%20(planet)", "Mercury (planet)"),
        ("São_Tomé", "/wiki/S%C3%A3o_Tom%C3%A9", "São_Tomé"),
        ('"><script>', "/wiki/%22%3E%3Cscript%3E", "&quot;&gt;&lt;script&gt;"),
        ("AT&T", "/wiki/AT%26T", "AT&amp;T"),
    ],
)
def test_any_id_makes_a_sound_link(kb_id: str, address: str, shown: str) -> None:
    html = render(doc_of(kb_id), "/wiki/{}")
    assert f'href="{address}">{shown}</a>' in html
