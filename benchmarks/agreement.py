"""Whether two ways of linking give the same names, and how far their scores lie apart."""

from collections.abc import Sequence
from typing import Any

Answer = Sequence[tuple[str, float]]

TIE = 1e-4


def agreement(mentions: Sequence[str], ours: Sequence[Answer], theirs: Sequence[Answer]) -> dict[str, Any]:
    """Each mention's names with scores, best first, by us and by the reference.

    same_best: share of mentions with the same best name, or with best names whose scores are within TIE.
    best_differs: those with another best name, ties told. lower_ranks_differ: those with the same one and other names
    below it. largest_score_difference: over all names that both found.
    """
    best_differs, lower, differences = [], [], [0.0]
    for mention, mine, other in zip(mentions, ours, theirs, strict=True):
        scores, other_scores = dict(mine), dict(other)
        differences += [abs(scores[name] - other_scores[name]) for name in scores.keys() & other_scores.keys()]
        names, other_names = [name for name, _ in mine], [name for name, _ in other]
        row = {"mention": mention, "ours": names, "reference": other_names}
        if names[:1] != other_names[:1]:
            tie = bool(mine and other) and abs(mine[0][1] - other[0][1]) <= TIE
            best_differs.append({**row, "tie": tie})
        elif names != other_names:
            lower.append(row)
    wrong = sum(not row["tie"] for row in best_differs)
    return {
        "same_best": round(1 - wrong / max(1, len(mentions)), 4),
        "best_differs": best_differs,
        "lower_ranks_differ": lower,
        "largest_score_difference": float(f"{max(differences):.3g}"),
    }
