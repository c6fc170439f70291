"""From names the search found to entities: candidates, their probabilities, and the decision."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span

    from spacy_gemel.kb.knowledge_base import KnowledgeBase

CANDIDATES_KEY = "gemel_candidates"
CANDIDATES_EXTENSION = "gemel_candidates"
# With the first and last character of the linked text, a key as spaCy has for custom attributes: it moves such places
# when a span becomes a doc of its own, and leaves the rows under CANDIDATES_KEY as they are.
_TEXT_KEY = ("._.", "gemel_text")


class Candidate(NamedTuple):
    """An entity that a mention may mean.

    score: the search's normalised log-probability of its name; with a prior_weight the combined score, that is
        prior_weight * log P(entity | mention) more (`spacy_gemel.linking.combine`).
    probability: softmax of score / temperature over the mention's names, shared by count among the entities
        of one name; with a prior_weight those that the prior tells apart have a score each.
    """

    kb_id: str
    name: str
    score: float
    probability: float


class FoundName(NamedTuple):
    """A name, its score, and the entities that bear it with their counts, best first.

    searched: False for a name that the search did not find and that was scored because the prior knows it.
    """

    name: str
    score: float
    entities: Sequence[tuple[str, int]]
    searched: bool = True


def found_name(kb: "KnowledgeBase", rows: Sequence[int], score: float, *, searched: bool = True) -> FoundName:
    """The name that the entities of some rows share. rows: at least one, as the knowledge base gives them."""
    # the best of the knowledge base first already: this is for those that were added
    entities = sorted((kb.entity(row) for row in rows), key=lambda entity: -entity.count)
    bearers = [(entity.kb_id, entity.count) for entity in entities]
    return FoundName(entities[0].name, score, bearers, searched)


def to_candidates(found: Sequence[FoundName], temperature: float = 1.0) -> list[Candidate]:
    """All entities of the found names, best first; names in the order of their scores."""
    if not found:
        return []
    best = max(name.score for name in found)
    weights = [math.exp((name.score - best) / temperature) for name in found]
    total = sum(weights)
    candidates = []
    for name, weight in zip(found, weights, strict=True):
        counts = sum(count for _, count in name.entities)
        for kb_id, count in name.entities:
            share = count / counts if counts else 1 / len(name.entities)
            candidates.append(Candidate(kb_id, name.name, name.score, weight / total * share))
    return candidates


def decide(candidates: Sequence[Candidate], threshold: float | None, nil: str) -> str:
    """The best candidate's id; `nil` where there is none or its probability is below the threshold."""
    if not candidates or (threshold is not None and candidates[0].probability < threshold):
        return nil
    return candidates[0].kb_id


def to_row(start_char: int, end_char: int, candidates: Sequence[Candidate]) -> list[Any]:
    """A mention's candidates as plain lists: what a Doc can be serialised with."""
    return [start_char, end_char, *([*candidate] for candidate in candidates)]


def write_rows(doc: "Doc", rows: Sequence[list[Any]], *, keep_others: bool = False) -> None:
    """Keep the rows of a doc's mentions in its user_data, in place of those of an earlier time; none, and no key.

    keep_others: rows of the doc's other entities stay, as those entities keep what an earlier linker gave them.
    """
    user_data: dict[Any, Any] = doc.user_data
    if keep_others:
        others = {(ent.start_char, ent.end_char) for ent in doc.ents} - {(row[0], row[1]) for row in rows}
        cut = _cut(user_data)
        old = [[row[0] + cut, row[1] + cut, *row[2:]] for row in user_data.get(CANDIDATES_KEY, ())]
        rows = sorted([*rows, *(row for row in old if (row[0], row[1]) in others)], key=lambda row: int(row[0]))
    for key in [key for key in user_data if key == CANDIDATES_KEY or _is_text_key(key)]:
        del user_data[key]
    if rows:
        user_data[CANDIDATES_KEY] = list(rows)
        user_data[*_TEXT_KEY, 0, len(doc.text)] = True


def span_candidates(span: "Span") -> list[Candidate]:
    """The getter of `span._.gemel_candidates`: the candidates of the span, best first; none if it was not linked.

    `span.as_doc(copy_user_data=True)` keeps them, `Doc.from_docs` and `span.as_doc()` keep the ids alone.
    """
    user_data = span.doc.user_data
    cut = _cut(user_data)
    for start, end, *candidates in user_data.get(CANDIDATES_KEY, ()):
        if (start + cut, end + cut) == (span.start_char, span.end_char):
            return [Candidate(*candidate) for candidate in candidates]
    return []


def _cut(user_data: dict[Any, Any]) -> int:
    """What is to be added to the rows' places: below 0 by what `span.as_doc` cut off in front."""
    return next((int(key[2]) for key in user_data if _is_text_key(key)), 0)


def _is_text_key(key: Any) -> bool:
    return isinstance(key, tuple) and key[:2] == _TEXT_KEY


def install_extension() -> None:
    """Make `span._.gemel_candidates` known, once."""
    from spacy.tokens import Span

    if not Span.has_extension(CANDIDATES_EXTENSION):
        Span.set_extension(CANDIDATES_EXTENSION, getter=span_candidates)
