"""From a Record to a Doc."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from spacy.tokens import Doc, Span

from spacy_gemel.data.records import Mention, Problem, Record


def doc_of(record: Record, make_doc: Callable[[str], Doc], image: str | None) -> tuple[Doc, list[Problem], int]:
    """Tokenise a record and set its mentions as entities.

    A mention that starts or ends inside a token is widened to whole tokens, never dropped for the
    tokeniser's sake; a token that two mentions share is cut where they end and begin. No two mentions may share a
    character: `overlaps.apart` sees to that. `image` is the path to store, as the caller wants it written.

    Returns the doc, the mentions left out, and how many were widened.
    """
    mentions = record.mentions or ()
    problems: list[Problem] = []
    doc = _cut_shared_tokens(make_doc(record.text), mentions)
    for key, value in (
        ("id", record.id),
        ("image", image),
        ("image_url", record.image_url),
        ("image_features", record.image_features),
    ):
        if value is not None:
            doc.user_data[key] = value
    spans: list[Span] = []
    widened = 0
    for mention in mentions:
        span = doc.char_span(
            mention.start, mention.end, label=mention.label, kb_id=mention.kb_id, alignment_mode="expand"
        )
        surface = record.text[mention.start : mention.end]
        if span is None or len(span) == 0:
            problems.append(Problem(record.where, "mention", "no token covers the mention", repr(surface)))
        else:
            spans.append(span)
            widened += span.text != surface
    if record.mentions is not None:  # setting none would tell a NER that there are none
        doc.set_ents(spans)
    return doc, problems, widened


def _cut_shared_tokens(doc: Doc, mentions: Sequence[Mention]) -> Doc:
    """The same text with the tokens cut that hold the end of one mention and the beginning of the next."""
    cuts = set()
    for left, right in pairwise(sorted(mentions, key=lambda mention: mention.start)):
        whole = doc.char_span(left.end - 1, right.start + 1, alignment_mode="expand")
        if whole is not None and len(whole) == 1:
            cuts |= {left.end, right.start}
    if not cuts:
        return doc
    words: list[str] = []
    spaces: list[bool] = []
    for token in doc:
        start, end = token.idx, token.idx + len(token)
        edges = [start, *sorted(cut for cut in cuts if start < cut < end), end]
        words += [doc.text[first:last] for first, last in pairwise(edges)]
        spaces += [*[False] * (len(edges) - 2), bool(token.whitespace_)]
    return Doc(doc.vocab, words=words, spaces=spaces)
