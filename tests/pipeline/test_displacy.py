"""Linked entities drawn by displaCy: links for entities, none for NIL, the image beside the text."""

import base64
import io
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import spacy
from PIL import Image
from spacy import displacy
from spacy.tokens import Doc, Span

from spacy_gemel.pipeline.displacy import render

WIKIDATA = "https://www.wikidata.org/wiki/{}"


def doc_of(*kb_ids: str, lang: str = "en") -> Doc:
    doc = Doc(spacy.blank(lang).vocab, words=["Mercury"] * len(kb_ids))
    doc.ents = [Span(doc, index, index + 1, label="ENT", kb_id=kb_id) for index, kb_id in enumerate(kb_ids)]
    return doc


def html_of(docs: Doc | list[Doc], template: str | None = None, *, page: bool = False, **options: Any) -> str:
    if template is not None:
        options["kb_url_template"] = template
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        html = render(docs, page=page, jupyter=False, options=options)
    assert html is not None
    return html


def test_entities_are_links_and_nil_is_none() -> None:
    doc = doc_of("Q308", "NIL", "")
    html = html_of(doc, WIKIDATA)
    assert html.count("Mercury") == html.count("ENT") == 3
    assert html.count("<a ") == 1
    assert 'href="https://www.wikidata.org/wiki/Q308">Q308</a>' in html
    assert "NIL" not in html
    assert displacy.render(doc, style="ent", jupyter=False).count("<a ") == 2  # what it is for


def test_without_an_address_it_is_drawn_as_displacy_draws_it() -> None:
    doc = doc_of("Q308", "Q925")
    doc.user_data["title"] = "Two"
    assert displacy.render(doc, style="ent", jupyter=False) in html_of(doc)
    doc = doc_of("Q308", lang="ar")
    assert 'dir: rtl"' in html_of(doc) or "direction: rtl" in html_of(doc)
    assert displacy.render(doc, style="ent", jupyter=False) in html_of(doc)


def test_displacys_own_options() -> None:
    html = html_of(doc_of("Q308"), colors={"ENT": "#123456"}, ents=["ENT"])
    assert "background: #123456" in html
    assert "Q308" not in html_of(doc_of("Q308"), ents=["OTHER"])


@pytest.mark.parametrize(
    ("kb_id", "address", "text"),
    [
        ("Mercury (planet)", "/wiki/Mercury%20(planet)", "Mercury (planet)"),
        ("São_Tomé", "/wiki/S%C3%A3o_Tom%C3%A9", "São_Tomé"),
        ('"><script>', "/wiki/%22%3E%3Cscript%3E", "&quot;&gt;&lt;script&gt;"),
        ("AT&T", "/wiki/AT%26T", "AT&amp;T"),
    ],
)
def test_any_id_makes_a_sound_link(kb_id: str, address: str, text: str) -> None:
    assert f'href="{address}">{text}</a>' in html_of(doc_of(kb_id), "/wiki/{}")


def test_text_title_and_label_are_escaped() -> None:
    doc = Doc(spacy.blank("en").vocab, words=["<script>", "</div>"])
    doc.ents = [Span(doc, 0, 1, label="<b>")]
    doc.user_data["title"] = "<script>"
    html = html_of(doc, page=True)
    assert "<script" not in html and "<b>" not in html
    assert html.count("&lt;script&gt;") == 2


def test_the_image_is_beside_the_text_of_each_doc(tmp_path: Path) -> None:
    Image.new("RGB", (900, 600), "red").save(tmp_path / "red.png")
    docs = [doc_of("Q308"), doc_of("Q925"), doc_of("Q1")]
    docs[0].user_data["image"] = str(tmp_path / "red.png")
    docs[1].user_data["image"] = b"no image"
    html = html_of(docs, page=True)
    assert html.startswith("<!doctype html>") and '<meta charset="utf-8">' in html
    assert html.count("Mercury") == 3
    assert html.count("<img ") == html.count("src=") == 1
    data = html.split('src="data:image/webp;base64,')[1].split('"')[0]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (320, 213)
    assert html.index("<img ") < html.index("Q308") < html.index("Q925")


def test_a_notebook_displays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    displayed: list[str] = []
    fake = types.SimpleNamespace(HTML=str, display=displayed.append)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    assert render(doc_of("Q308"), jupyter=True) is None
    assert len(displayed) == 1 and "Q308" in displayed[0]
