"""The part of a document that the language model reads with a mention: all of it, sentences, or a window of tokens."""

from spacy.tokens import Doc, Span

from spacy_gemel.linking.settings import LinkerSettings


def context_of(ent: Span, settings: LinkerSettings, sentences: Doc | None = None) -> str:
    """The text around an entity, as settings.context says.

    sentences: a doc of the same text whose sentence boundaries serve where the entity's own doc has none.
    An entity that crosses a boundary has the sentences of its first and its last token, and n_sents around them.
    Raises ValueError where sentences are wanted and there are none.
    """
    doc = ent.doc
    if settings.context == "doc":
        return doc.text
    if settings.context == "window":
        return doc[max(ent.start - settings.window, 0) : ent.end + settings.window].text
    if not doc.has_annotation("SENT_START") and sentences is not None:
        doc = sentences
    if not doc.has_annotation("SENT_START"):
        raise ValueError(
            f'gemel_linker: context = "sentence" needs sentence boundaries, and {doc.text[:50]!r} has none: add a '
            'component that sets them before this one, such as nlp.add_pipe("sentencizer", before="gemel_linker"); '
            'to train with it, name it in annotating_components too. context = "window" needs none.'
        )
    span = doc.char_span(ent.start_char, ent.end_char, alignment_mode="expand")
    assert span is not None  # the texts are the same
    first, last = span[0].sent, span[-1].sent
    for _ in range(settings.n_sents):
        first = doc[first.start - 1].sent if first.start else first
        last = doc[last.end].sent if last.end < len(doc) else last
    return doc.text[first.start_char : last.end_char]
