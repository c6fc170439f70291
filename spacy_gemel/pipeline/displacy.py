"""Linked entities as displaCy draws them, where a mention without an entity is no link."""

from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from spacy_gemel.kb.resolve import NIL

if TYPE_CHECKING:
    from spacy.tokens import Doc


def displacy_ents(doc: "Doc", *, kb_url_template: str | None = None, nil: str = NIL) -> dict[str, Any]:
    """A doc's entities for `displacy.render(..., style="ent", manual=True)`.

    kb_url_template: where an entity is read about, with {} for its id ("https://www.wikidata.org/wiki/{}"); None for
        links that lead nowhere, as displaCy's own.
    nil: the id of what has no entity: it gets no link, which displaCy gives it.
    Ids are escaped, which displaCy leaves to whoever gives them.
    """
    ents = []
    for ent in doc.ents:
        drawn: dict[str, Any] = {"start": ent.start_char, "end": ent.end_char, "label": ent.label_}
        if ent.kb_id_ not in ("", nil):
            url = "#" if kb_url_template is None else kb_url_template.format(quote(ent.kb_id_, safe="/:()',"))
            drawn |= {"kb_id": escape(ent.kb_id_), "kb_url": escape(url)}
        ents.append(drawn)
    direction = doc.vocab.writing_system.get("direction", "ltr")
    settings = {"lang": doc.lang_, "direction": direction}
    return {"text": doc.text, "ents": ents, "title": doc.user_data.get("title"), "settings": settings}
