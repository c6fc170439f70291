"""From a Record to a Doc."""

from collections.abc import Callable

from spacy.tokens import Doc, Span

from spacy_gemel.corpus.records import Problem, Record


def doc_of(record: Record, make_doc: Callable[[str], Doc], image: str | None) -> tuple[Doc, list[Problem], int]:
    """Tokenise a record and set its mentions as entities.

    A mention that starts or ends inside a token is widened to whole tokens, never dropped for the
    tokeniser's sake; of two that then overlap the first stays. `image` is the path to store, as the caller
    wants it written.

    Returns the doc, the mentions left out, and how many were widened.
    """
    doc = make_doc(record.text)
    if record.id is not None:
        doc.user_data["id"] = record.id
    if image is not None:
        doc.user_data["image"] = image
    spans: list[Span] = []
    problems: list[Problem] = []
    taken: set[int] = set()
    widened = 0
    for mention in record.mentions or ():
        span = doc.char_span(
            mention.start, mention.end, label=mention.label, kb_id=mention.kb_id, alignment_mode="expand"
        )
        surface = record.text[mention.start : mention.end]
        if span is None or len(span) == 0:
            problems.append(Problem(record.where, "mention", "no token covers the mention", repr(surface)))
        elif not taken.isdisjoint(range(span.start, span.end)):
            problems.append(Problem(record.where, "mention", "overlaps an earlier mention", repr(surface)))
        else:
            taken.update(range(span.start, span.end))
            spans.append(span)
            widened += span.text != surface
    if record.mentions is not None:  # setting none would tell a NER that there are none
        doc.set_ents(spans)
    return doc, problems, widened
