"""Temperature and threshold against brute force and known truths, and what is said where neither can be had."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.evaluation.calibration import (
    COLDEST,
    Decision,
    calibrate,
    cases_of,
    confidence,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    reliability,
)
from spacy_gemel.evaluation.report import write_calibration
from spacy_gemel.evaluation.results import MentionResult
from spacy_gemel.evaluation.text import calibration_text
from spacy_gemel.linking.candidates import ScoredName, decide, to_candidates

START = Decision(1.0, None)


def result(
    gold: str, found: Sequence[ScoredName], *, doc: str = "d", temperature: float = 1.0, in_kb: bool | None = None
) -> MentionResult:
    candidates = to_candidates(found, temperature)
    return MentionResult(
        doc=doc,
        start=0,
        end=1,
        mention="m",
        gold=gold,
        predicted=decide(candidates, None),
        probability=None,
        seen=False,
        tail=None,
        image=False,
        in_kb=gold not in ("", "NIL") if in_kb is None else in_kb,
        candidates=[candidate._asdict() for candidate in candidates],
    )


def sure(probability: float, gold: str, doc: str) -> MentionResult:
    """A mention whose best of two candidates, "x", has this probability at temperature 1."""
    gap = float(np.log(probability / (1 - probability)))
    return result(gold, [ScoredName("x", -1.0, [("x", 1)]), ScoredName("y", -1.0 - gap, [("y", 1)])], doc=doc)


def mentions(*rows: tuple[float, str]) -> list[MentionResult]:
    """One doc each, 0.5 < probability < 1."""
    return [sure(probability, gold, f"d{index}") for index, (probability, gold) in enumerate(rows)]


def calibrated(results: Sequence[MentionResult], **given: Any) -> dict[str, Any]:
    return calibrate(results, START, **given)


names = st.lists(
    st.tuples(st.floats(-20, 0), st.lists(st.integers(0, 50), min_size=1, max_size=3)), min_size=1, max_size=5
)


def found_names(drawn: list[tuple[float, list[int]]]) -> list[ScoredName]:
    """As the search and the knowledge base give them: best name first, most counted entity first."""
    return [
        ScoredName(
            f"n{index}", score, [(f"n{index}e{n}", count) for n, count in enumerate(sorted(counts, reverse=True))]
        )
        for index, (score, counts) in enumerate(sorted(drawn, key=lambda name: -name[0]))
    ]


@settings(max_examples=200)
@given(names, st.floats(0.05, 20), st.floats(0.3, 20))
def test_probabilities_are_those_that_the_pipe_would_give(
    drawn: list[tuple[float, list[int]]], temperature: float, now: float
) -> None:
    found = found_names(drawn)
    best = to_candidates(found, temperature)[0]
    cases, _ = cases_of([result(best.kb_id, found, temperature=now)])
    assert confidence(cases, temperature)[0] == pytest.approx(best.probability, abs=1e-9)
    assert cases.right[0]
    assert log_loss(cases, temperature) == pytest.approx(
        -np.log(np.clip(best.probability, 1e-6, 1 - 1e-6)), abs=1e-6, rel=1e-6
    )


@pytest.mark.parametrize("truth", [0.3, 1.0, 2.5])
def test_a_known_temperature_is_found(truth: float) -> None:
    rng = np.random.default_rng(0)
    results = []
    for number in range(3000):
        scores = np.sort(rng.normal(0, 1.5, 4))[::-1]
        shares = np.exp(scores / truth) / np.exp(scores / truth).sum()
        gold = f"e{rng.choice(4, p=shares)}"
        results.append(
            result(gold, [ScoredName(f"n{n}", s, [(f"e{n}", 1)]) for n, s in enumerate(scores)], doc=str(number))
        )
    found = calibrated(results)
    assert found["after"]["temperature"] == pytest.approx(truth, rel=0.1)
    assert found["after"]["ece"] < 0.03
    assert found["after"]["log_loss"] <= found["before"]["log_loss"]
    assert found["cross_fitted"] is not None and found["cross_fitted"]["ece"] < 0.03
    if truth != 1.0:
        assert found["before"]["ece"] > 0.05


rows = st.lists(
    st.tuples(st.integers(51, 99).map(lambda percent: percent / 100), st.sampled_from(["x", "y", "NIL"])),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150)
@given(rows)
def test_the_threshold_is_the_smallest_of_the_best(drawn: list[tuple[float, str]]) -> None:
    found = calibrated(mentions(*drawn))
    temperature, threshold = found["after"]["temperature"], found["after"]["threshold"]
    cases, _ = cases_of(mentions(*drawn))
    sureness = confidence(cases, temperature)
    golds = [gold for _, gold in drawn]

    def f1(smallest: float) -> float:
        hits = sum(p >= smallest and gold == "x" for p, gold in zip(sureness, golds, strict=True))
        links = sum(p >= smallest for p in sureness)
        return 2 * hits / (links + sum(gold != "NIL" for gold in golds)) if links else 0.0

    best = max([f1(0.0), *(f1(p) for p in sureness if p > min(sureness) + 1e-6)])
    if "NIL" not in golds:
        assert threshold is None
    elif threshold is None:
        assert f1(0.0) == best or max(sureness) - min(sureness) < 1e-5
    else:
        assert f1(threshold) == pytest.approx(found["after"]["linking"]["f"])
        ordered = np.unique(np.round(sureness, 12))
        if np.diff(ordered).min(initial=1.0) > 1e-5:  # all that can be told apart
            assert f1(threshold) == best
            assert all(f1(p) < best for p in sureness if p < threshold)
        assert min(abs(threshold - p) for p in sureness) > 1e-7, "not on a probability, which varies with the batch"


def test_of_equally_good_thresholds_the_smallest() -> None:
    """To leave out the first, or the first four: either way an F1 of two thirds."""
    found = calibrated(mentions((0.55, "NIL"), (0.6, "x"), (0.65, "NIL"), (0.7, "NIL"), (0.9, "x")))
    assert found["after"]["linking"] == {"p": 2 / 4, "r": 1.0, "f": pytest.approx(2 / 3)}


def test_figures_by_hand() -> None:
    found = calibrated(
        mentions(*[(0.95, "x")] * 6, (0.9, "y"), (0.85, "NIL"), (0.6, "NIL"), (0.55, "NIL"), (0.52, "x"))
    )
    assert (found["mentions"]["entity"], found["mentions"]["nil"]) == (8, 3)
    before, after = found["before"], found["after"]
    assert before["linking"] == {"p": 7 / 11, "r": 7 / 8, "f": pytest.approx(14 / 19)}
    assert before["nil"] == {"n": 3, "p": None, "r": 0.0, "f": 0.0}
    assert (before["accuracy"], before["accuracy_with_nil"]) == (7 / 8, 7 / 11)
    # the best cut leaves the six and nothing else (12 / 14), or the one of 0.9 as well (12 / 15)
    assert after["linking"] == {"p": 1.0, "r": 6 / 8, "f": pytest.approx(12 / 14)}
    assert after["nil"] == {"n": 3, "p": 3 / 5, "r": 1.0, "f": pytest.approx(6 / 8)}
    assert (after["accuracy"], after["accuracy_with_nil"]) == (6 / 8, 9 / 11)


def test_calibration_error_by_hand() -> None:
    bins = reliability(np.array([0.05, 0.9, 0.91, 1.0, 0.0]), np.array([False, True, True, False, False]))
    assert [row["n"] for row in bins] == [2, 0, 0, 0, 0, 0, 0, 0, 1, 2], (
        "the upper end of a bin is in it, and 0 in the first"
    )
    assert bins[9]["confidence"] == pytest.approx(0.955) and bins[9]["accuracy"] == 0.5
    assert bins[4]["confidence"] is None
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.025 + 0.1 + 2 * 0.455) / 5)
    assert expected_calibration_error(reliability(np.zeros(0), np.zeros(0, dtype=bool))) is None


def test_without_nil_the_temperature_alone_is_fitted() -> None:
    found = calibrated(mentions(*[(0.9, "x")] * 40, *[(0.9, "y")] * 30))
    assert found["after"]["threshold"] is None
    assert confidence(cases_of(mentions((0.9, "x")))[0], found["after"]["temperature"])[0] == pytest.approx(
        4 / 7, abs=1e-3
    )
    assert "No gold is NIL, so the threshold is null" in " ".join(found["notes"])
    assert found["after"]["nil"] == {"n": 0, "p": None, "r": None, "f": None}


@pytest.mark.parametrize(
    ("results", "says"),
    [
        (mentions((0.9, "NIL"), (0.8, "NIL")), "Every gold is NIL"),
        (mentions((0.9, "x"), (0.8, "x")), "All 2 best candidates are right"),
        (mentions((0.9, "y"), (0.8, "NIL")), "All 2 best candidates are wrong"),
        ([result("x", [])], "No mention has a candidate"),
        ([result(gold, [ScoredName("x", -1.0, [("x", 1)])]) for gold in "xy"], "more than one name to choose from"),
        (mentions((0.6, "x"), (0.6, "x"), (0.9, "NIL")), "No threshold links better than none"),
        (mentions((0.6, "x"), (0.9, "x")), "Only 2 mentions"),
    ],
)
def test_what_cannot_be_fitted_is_reported(results: list[MentionResult], says: str, tmp_path: Path) -> None:
    found = calibrate(results, Decision(1.5, 0.4))
    assert says in " ".join(found["notes"])
    assert found["after"]["threshold"] is None
    assert "The old threshold, 0.4, is removed" in " ".join(found["notes"])
    if "threshold links" not in says:
        assert found["after"]["temperature"] == 1.5
    content = {"settings": {}, **found}
    assert says in calibration_text(content)
    assert says in write_calibration(content, tmp_path / "c.json").read_text(encoding="utf-8")


def test_a_temperature_beyond_the_end() -> None:
    tiny = [
        result("x", [ScoredName("x", -1.0, [("x", 1)]), ScoredName("y", -1.0 - gap, [("y", 1)])])
        for gap in (0.001, 0.002)
    ]
    wrong = result("y", [ScoredName("x", -1.0, [("x", 1)]), ScoredName("y", -1.0, [("y", 1)])])
    temperature, note = fit_temperature(cases_of([*tiny * 20, wrong])[0])
    assert temperature == COLDEST
    assert "lies beyond 0.01" in note


def test_mentions_that_cannot_be_used() -> None:
    unfound = result("x", [ScoredName("x", -1.0, [("x", 1)])])
    unfound = MentionResult(**{**{f: getattr(unfound, f) for f in unfound.__slots__}, "predicted": None})
    outside = result("z", [ScoredName("x", -1.0, [("x", 1)])], in_kb=False)
    useless = [unfound, outside, result("", [])]
    with pytest.raises(ValueError, match="not one mention to calibrate on: of 3, 1 have no gold, 1 a gold that"):
        calibrated(useless)
    found = calibrated([*useless, *mentions((0.9, "x"))])
    assert (found["mentions"]["entity"], found["mentions"]["nil"], found["mentions"]["not_in_kb"]) == (1, 0, 1)
    assert (found["mentions"]["unannotated"], found["mentions"]["not_found"]) == (1, 1)
    found = calibrated([*useless, *mentions((0.9, "x"))], missing_as_nil=True)
    assert (found["mentions"]["entity"], found["mentions"]["nil"], found["mentions"]["not_in_kb"]) == (1, 1, 0)


def test_a_name_of_no_entity_is_nil_at_any_threshold() -> None:
    free = result("NIL", [ScoredName("blue", -0.1, [("NIL", 0)]), ScoredName("x", -1.0, [("x", 1)])])
    found = calibrated([free, *mentions((0.9, "x"))])
    assert found["before"]["nil"] == {"n": 1, "p": 1.0, "r": 1.0, "f": 1.0}
    assert sum(row["n"] for row in found["before"]["reliability"]) == 1


def test_cross_fitting_parts_docs_and_tells_overfitting() -> None:
    rng = np.random.default_rng(1)
    chance = [
        sure(p, gold, f"d{index // 3}")
        for index, (p, gold) in enumerate(zip(rng.uniform(0.51, 0.99, 90), rng.choice(["x", "NIL"], 90), strict=True))
    ]
    found = calibrated(chance)
    assert found["cross_fitted"] is not None
    assert [fold["judged"] for fold in found["cross_fitted"]["folds"]] == [45, 45]
    assert found["cross_fitted"]["linking"]["f"] <= found["after"]["linking"]["f"]
    assert found["cross_fitted"]["log_loss"] >= found["after"]["log_loss"]
    assert sum(row["n"] for row in found["cross_fitted"]["reliability"]) == 90
    assert calibrated(chance) == found, "the same each time"
    one_doc = [sure(0.9, "x", "d"), sure(0.6, "NIL", "d")]
    assert calibrated(one_doc)["cross_fitted"] is None
    assert "cross-fitted" in calibration_text({"settings": {}, **calibrated(one_doc)})


def test_ties_are_decided_by_order_alone() -> None:
    """Equal scores: the name that the search gave first; in a name: the entity that the knowledge base has first."""
    tied = [ScoredName("n", -1.0, [("a", 3), ("b", 3)]), ScoredName("m", -1.0, [("c", 5), ("d", 1)])]
    candidates = to_candidates(tied)
    assert [(c.kb_id, c.probability) for c in candidates] == [
        ("a", 0.25),
        ("b", 0.25),
        ("c", pytest.approx(5 / 12)),
        ("d", pytest.approx(1 / 12)),
    ]
    assert decide(candidates, None) == decide(candidates, 0.25) == "a"
    assert decide(candidates, 0.2500001) == "NIL", "the best candidate decides, likelier ones below it or not"
    cases, _ = cases_of([result("a", tied), result("c", tied)])
    assert confidence(cases, 1.0).tolist() == pytest.approx([0.25, 0.25])
    assert cases.right.tolist() == [True, False]
    # mentions that are equally sure are never parted
    found = calibrated(mentions(*[(0.8, "x")] * 3, *[(0.8, "NIL")] * 3, (0.6, "NIL"), (0.9, "x")))
    assert found["after"]["threshold"] is not None
    assert found["after"]["nil"]["r"] in (0.25, 1.0)


def test_the_page_needs_no_other_file_and_escapes_all_text(tmp_path: Path) -> None:
    found = calibrated(mentions((0.9, "x"), (0.8, "NIL"), (0.7, "x")))
    content = {"settings": {"pipeline": "<script>alert(1)</script>", "data": "dev"}, **found}
    page = write_calibration(content, tmp_path / "c.json").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("<svg") == 3
    assert "http" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
