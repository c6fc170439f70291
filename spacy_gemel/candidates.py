"""From names the search found to entities: candidates, their probabilities, and the decision."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from spacy.tokens import Doc, Span

CANDIDATES_KEY = "gemel_candidates"
CANDIDATES_EXTENSION = "gemel_candidates"


class Candidate(NamedTuple):
    """An entity that a mention may mean.

    score: the search's normalised log-probability of its name.
    probability: softmax of score / temperature over the mention's names, shared by count among the entities
        of one name.
    """

    kb_id: str
    name: str
    score: float
    probability: float


class FoundName(NamedTuple):
    """A name, its score, and the entities that bear it with their counts, best first."""

    name: str
    score: float
    entities: Sequence[tuple[str, int]]


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


def store_rows(doc: "Doc", rows: Sequence[list[Any]], *, keep_others: bool) -> None:
    """Put the rows of a doc's mentions where `span_candidates` finds them, in place of those that are there.

    keep_others: the rows of the doc's other entities stay, as those entities keep what an earlier linker gave them.
    """
    if keep_others:
        entities = {(ent.start_char, ent.end_char) for ent in doc.ents} - {(row[0], row[1]) for row in rows}
        rows = [*rows, *(row for row in doc.user_data.get(CANDIDATES_KEY, ()) if (row[0], row[1]) in entities)]
    doc.user_data.pop(CANDIDATES_KEY, None)
    if rows:
        doc.user_data[CANDIDATES_KEY] = sorted(rows, key=lambda row: int(row[0]))


def span_candidates(span: "Span") -> list[Candidate]:
    """The getter of `span._.gemel_candidates`: the candidates of the span, best first; none if it was not linked."""
    rows = span.doc.user_data.get(CANDIDATES_KEY, ())
    for start, end, *candidates in rows:
        if (start, end) == (span.start_char, span.end_char):
            return [Candidate(*candidate) for candidate in candidates]
    return []


def install_extension() -> None:
    """Make `span._.gemel_candidates` known, once."""
    from spacy.tokens import Span

    if not Span.has_extension(CANDIDATES_EXTENSION):
        Span.set_extension(CANDIDATES_EXTENSION, getter=span_candidates)
