"""From a Record to a Doc."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from spacy.tokens import Doc, Span

from spacy_gemel.data.records import MentionSpan, Problem, Record


def doc_from_record(
    record: Record, make_doc: Callable[[str], Doc], image: str | None
) -> tuple[Doc, list[Problem], int]:
    """Tokenise a record and set its mentions as entities.

    A mention that starts or ends inside a token is widened to whole tokens, never dropped because of the tokeniser; a
    token that two mentions share is cut between them. The mentions must not overlap: see `split_overlaps`.

    `image` is the path to store. Returns the doc, the mentions that were left out, and the number of widened ones.
    """
    mentions = record.mentions or ()
    doc = _cut_shared_tokens(make_doc(record.text), mentions)
    features = record.image_features
    user_data = {"id": record.id, "image": image, "image_url": record.image_url, "image_features": features}
    doc.user_data.update((key, value) for key, value in user_data.items() if value is not None)
    problems: list[Problem] = []
    spans: list[Span] = []
    widened = 0
    for mention in mentions:
        start, end = mention.start, mention.end
        span = doc.char_span(start, end, label=mention.label, kb_id=mention.kb_id, alignment_mode="expand")
        surface = record.text[start:end]
        if span is None or len(span) == 0:
            problems.append(Problem(record.where, "mention", "no token covers the mention", repr(surface)))
        else:
            spans.append(span)
            widened += span.text != surface
    if record.mentions is not None:  # setting none would tell a NER that there are none
        doc.set_ents(spans)
    return doc, problems, widened


def _cut_shared_tokens(doc: Doc, mentions: Sequence[MentionSpan]) -> Doc:
    """The same text, with each token cut that holds the end of one mention and the beginning of the next."""
    cuts = set()
    for first, second in pairwise(sorted(mentions, key=lambda mention: mention.start)):
        whole = doc.char_span(first.end - 1, second.start + 1, alignment_mode="expand")
        if whole is not None and len(whole) == 1:
            cuts |= {first.end, second.start}
    if not cuts:
        return doc
    words: list[str] = []
    spaces: list[bool] = []
    for token in doc:
        start, end = token.idx, token.idx + len(token)
        edges = [start, *sorted(cut for cut in cuts if start < cut < end), end]
        words += [doc.text[begin:stop] for begin, stop in pairwise(edges)]
        spaces += [*[False] * (len(edges) - 2), bool(token.whitespace_)]
    return Doc(doc.vocab, words=words, spaces=spaces)
