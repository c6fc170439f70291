"""Calibration error and the figures of answers that may be NIL, by hand and against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_gemel.evaluation.calibration import BINS, answer_figures, expected_calibration_error, reliability


def test_calibration_error_by_hand() -> None:
    bins = reliability(np.array([0.05, 0.9, 0.91, 1.0, 0.0]), np.array([False, True, True, False, False]))
    assert [row["n"] for row in bins] == [2, 0, 0, 0, 0, 0, 0, 0, 1, 2], (
        "the upper end of a bin is in it, and 0 in the first"
    )
    assert bins[9]["confidence"] == pytest.approx(0.955) and bins[9]["accuracy"] == 0.5
    assert bins[4]["confidence"] is None
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.025 + 0.1 + 2 * 0.455) / 5)
    assert expected_calibration_error(reliability(np.zeros(0), np.zeros(0, dtype=bool))) is None


def test_figures_by_hand() -> None:
    gold = [*"xxxxxx", "y", "NIL", "NIL", "NIL", "x"]
    answers = [*"xxxxxx", "x", "NIL", "NIL", "x", "NIL"]
    best = ["x"] * 11
    found = answer_figures(gold, answers, best, [0.95] * 6 + [0.9, 0.35, 0.25, 0.85, 0.45])
    assert found["linking"] == {"p": 6 / 8, "r": 6 / 8, "f": pytest.approx(6 / 8)}
    assert found["nil"] == {"n": 3, "p": 2 / 3, "r": 2 / 3, "f": pytest.approx(2 / 3)}
    assert (found["accuracy"], found["accuracy_with_nil"]) == (6 / 8, 8 / 11)
    # what is answered NIL counts as well: its best candidate was as sure as it was
    assert sum(row["n"] for row in found["reliability"]) == 11
    assert found["ece"] == pytest.approx((6 * 0.05 + (0.9 + 0.85) + 0.35 + 0.25 + (1 - 0.45)) / 11)


def test_without_nil_and_without_entities() -> None:
    entities = answer_figures(["x", "y"], ["x", "x"], ["x", "x"], [0.9, 0.8])
    assert entities["nil"] == {"n": 0, "p": None, "r": None, "f": None}
    nils = answer_figures(["NIL"], ["NIL"], ["NIL"], [None])
    assert (nils["accuracy"], nils["accuracy_with_nil"], nils["ece"]) == (None, 1.0, None)
    assert nils["linking"] == {"p": None, "r": None, "f": None}


probabilities = st.integers(0, 999).map(lambda n: (n + 0.5) / 1000)  # on no edge of a bin
rows = st.lists(
    st.tuples(
        st.sampled_from(["x", "y", "NIL"]),
        st.booleans(),
        st.one_of(st.none(), st.tuples(st.sampled_from(["x", "y"]), probabilities)),
    ),
    min_size=1,
    max_size=25,
)


@given(rows)
def test_figures_against_brute_force(drawn: list[tuple[str, bool, tuple[str, float] | None]]) -> None:
    gold = [each for each, _, _ in drawn]
    best = [found[0] if found else "NIL" for _, _, found in drawn]
    answers = [one if links else "NIL" for one, (_, links, _) in zip(best, drawn, strict=True)]
    figures = answer_figures(gold, answers, best, [found and found[1] for _, _, found in drawn])
    pairs = [*zip(gold, answers, strict=True)]
    for part, inside in (("linking", lambda id_: id_ != "NIL"), ("nil", lambda id_: id_ == "NIL")):
        right = sum(one == other and inside(one) for one, other in pairs)
        predicted, there = sum(map(inside, answers)), sum(map(inside, gold))
        assert figures[part]["p"] == (right / predicted if predicted else None)
        assert figures[part]["r"] == (right / there if there else None)
    assert figures["accuracy_with_nil"] == sum(one == other for one, other in pairs) / len(pairs)
    rated = [(found[1], found[0] == one) for one, _, found in drawn if found]
    distance = 0.0
    for low in range(BINS):
        of_bin = [(p, ok) for p, ok in rated if low / BINS < p <= (low + 1) / BINS]
        distance += abs(sum(p for p, _ in of_bin) - sum(ok for _, ok in of_bin))
    assert figures["ece"] == (pytest.approx(distance / len(rated)) if rated else None)
