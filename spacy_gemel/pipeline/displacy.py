"""Linked docs drawn by spaCy's displaCy: links for entities, none for NIL, and the image beside the text."""

from collections.abc import Iterable
from html import escape
from typing import Any
from urllib.parse import quote

from spacy import displacy
from spacy.tokens import Doc
from spacy.util import is_in_jupyter

from spacy_gemel.images.image import data_uri
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.pipeline.user_data import IMAGE_KEY

_SIDE = 320  # pixels of the image's longer side
_ROW = '<div style="display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; margin-bottom: 1.5rem">{}</div>'
_IMAGE = '<img src="{}" alt="The image of the text beside it" style="max-width: min(100%, 16rem)">'
_PAGE = """<!doctype html>
<html lang="{lang}">
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Linked entities</title>
<body style="font: 16px system-ui, sans-serif; padding: 1.5rem">
{body}
</body>
</html>
"""


def render(
    docs: Doc | Iterable[Doc],
    *,
    page: bool = False,
    jupyter: bool | None = None,
    options: dict[str, Any] | None = None,
) -> str | None:
    """Draw linked docs as `spacy.displacy.render(docs, style="ent")` does, with their images.

    Args:
        docs: With their images in `doc.user_data["image"]`; one that cannot be read is left out.
        page: Return a whole HTML page, which needs no other file.
        jupyter: Show it in the notebook instead of returning it; None to find out whether there is one.
        options: displaCy's own: `ents`, `colors`, and `kb_url_template`, the address of an entity with {} for its id
            ("https://www.wikidata.org/wiki/{}").

    Returns:
        HTML in which all text is escaped; None in a notebook.
    """
    options = options or {}
    docs = [docs] if isinstance(docs, Doc) else list(docs)
    rows = []
    for doc in docs:
        parsed = _parse(doc, options.get("kb_url_template"))
        text = displacy.render(parsed, style="ent", manual=True, jupyter=False, options=options)
        image = doc.user_data.get(IMAGE_KEY)
        uri = None if image is None else data_uri(image, _SIDE)
        rows.append(_ROW.format(f'{_IMAGE.format(uri) if uri else ""}<div style="flex: 1 1 16rem">{text}</div>'))
    html = "\n".join(rows)
    if page:
        html = _PAGE.format(lang=docs[0].lang_ if docs else "en", body=html)
    if jupyter or (jupyter is None and is_in_jupyter()):
        from IPython.display import HTML, display

        display(HTML(f'<span class="tex2jax_ignore">{html}</span>'))
        return None
    return html


def _parse(doc: Doc, kb_url_template: str | None) -> dict[str, Any]:
    """What displaCy draws of a doc; it escapes neither title nor labels, ids and addresses."""
    ents = []
    for ent in doc.ents:
        item: dict[str, Any] = {"start": ent.start_char, "end": ent.end_char, "label": escape(ent.label_)}
        if ent.kb_id_ not in ("", NIL):
            url = "#" if kb_url_template is None else kb_url_template.format(quote(ent.kb_id_, safe="/:()',"))
            item |= {"kb_id": escape(ent.kb_id_), "kb_url": escape(url)}
        ents.append(item)
    settings = {"lang": doc.lang_, "direction": doc.vocab.writing_system.get("direction", "ltr")}
    title = escape(str(doc.user_data.get("title") or ""))
    return {"text": doc.text, "ents": ents, "title": title, "settings": settings}
