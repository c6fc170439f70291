"""A fitted decision's report: no doc is decided by what was fitted on it, what features are worth, and the notes."""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.evaluation import decision_report
from spacy_gemel.evaluation.decision_cases import DecisionCase
from spacy_gemel.evaluation.decision_report import Answers, by_decision, cross_fit, fit, fit_report
from spacy_gemel.evaluation.report import write_decision
from spacy_gemel.evaluation.text import decision_text
from spacy_gemel.linking.decision import NIL_INDEX, Decision

COLUMNS = ["score", "prior", "noise"]
FEATURES = {"ScoreFeature": ["score"], "PriorFeature": ["prior"], "Noise": ["noise"]}
SETTINGS = {"settings": {"pipeline": "here", "data": "dev.spacy"}}


def case_of(rng: np.random.Generator, doc: str, gold: str = "", **changes: Any) -> DecisionCase:
    """Four candidates, of which the prior knows the gold, the score says a little, and the noise nothing."""
    values = rng.normal(size=(4, 3))
    index = int(rng.integers(4))
    gold = gold or "abcd"[index]
    if gold in "abcd":
        values["abcd".index(gold), :2] += 0.7, 3.0
    return DecisionCase(doc, "m", gold, tuple("abcd"), values, current=("a", "a", 0.6), **changes)


def cases_of(docs: int = 40, each: int = 3, nil: int = 0, seed: int = 0) -> list[DecisionCase]:
    """With `nil`, every so-manieth mention is NIL."""
    rng = np.random.default_rng(seed)
    numbers = range(docs * each)
    return [case_of(rng, f"d{n // each}", "NIL" if nil and n % nil == 0 else "") for n in numbers]


def test_the_gold_among_the_candidates() -> None:
    case = cases_of(1, 1)[0]
    assert replace(case, gold="c").gold_index == 2
    assert replace(case, gold="z").gold_index is None
    assert replace(case, gold="NIL").gold_index == NIL_INDEX


def test_a_case_is_decided() -> None:
    case = replace(cases_of(1, 1)[0], values=np.array([[1.0, 0, 0], [2.0, 0, 0], [2.0, 0, 0], [0.0, 0, 0]]))
    answer, best, probability = case.decide(Decision({"score": 1.0}), COLUMNS)
    assert (answer, best) == ("b", "b")  # the first of equals
    shares = np.exp([1, 2, 2, 0])
    assert probability == pytest.approx(shares[1] / shares.sum())
    assert case.decide(Decision({"score": 1.0}, nil=1.9), COLUMNS)[0] == "b"
    answer, best, probability = case.decide(Decision({"score": 1.0}, nil=2.1), COLUMNS)
    assert (answer, best, probability) == ("NIL", "b", pytest.approx(shares[1] / (shares.sum() + np.exp(2.1))))
    nothing = replace(case, ids=(), values=np.zeros((0, 3)))
    assert nothing.decide(Decision({"score": 1.0}), COLUMNS) == ("NIL", "NIL", None)


def test_the_right_answers() -> None:
    cases = [replace(case, gold=gold) for case, gold in zip(cases_of(1, 4), ["a", "b", "NIL", "NIL"], strict=True)]
    answers = Answers(["a", "a", "NIL", "a"], ["a"] * 4, [0.5] * 4)
    assert answers.right(cases) == [True, False, True, False]
    assert answers.figures(cases)["accuracy_with_nil"] == 0.5


docs_of_cases = st.lists(st.integers(0, 7), min_size=12, max_size=30).filter(lambda docs: len(set(docs)) > 4)


@given(docs_of_cases, st.integers(0, 100), st.integers(2, 4))
@settings(max_examples=25)
def test_what_is_true_of_a_doc_has_no_part_in_its_answers(docs: list[int], seed: int, folds: int) -> None:
    """With other golds and other values in one doc its own answers follow from the other docs alone."""
    rng = np.random.default_rng(seed)
    cases = [case_of(rng, f"d{doc}") for doc in docs]
    before = cross_fit(cases, COLUMNS, COLUMNS, folds)
    for doc in set(docs):
        turned = [
            replace(case, gold="abcd"[("abcd".index(case.gold) + 1) % 4]) if case.doc == f"d{doc}" else case
            for case in cases
        ]
        after = cross_fit(turned, COLUMNS, COLUMNS, folds)
        own = [index for index, case in enumerate(cases) if case.doc == f"d{doc}"]
        assert [after.confidences[index] for index in own] == [before.confidences[index] for index in own]
        assert [after.best[index] for index in own] == [before.best[index] for index in own]


def test_no_fold_is_fitted_on_a_doc_that_it_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = cases_of(23, nil=5)
    doc_of = {id(case): case.doc for case in cases}
    fitted_on: list[set[str]] = []
    decided: defaultdict[int, set[str]] = defaultdict(set)
    whole = decision_report.fit

    def watched(some: Any, *arguments: Any) -> Decision:
        fitted_on.append({doc_of[id(case)] for case in some})
        return whole(some, *arguments)

    decide = DecisionCase.decide

    def noted(case: DecisionCase, *arguments: Any) -> Any:
        decided[len(fitted_on) - 1].add(case.doc)
        return decide(case, *arguments)

    monkeypatch.setattr(decision_report, "fit", watched)
    monkeypatch.setattr(DecisionCase, "decide", noted)
    cross_fit(cases, COLUMNS, COLUMNS, 5)
    everything = {case.doc for case in cases}
    assert len(fitted_on) == len(decided) == 5
    assert set.union(*decided.values()) == everything
    for fold, own in enumerate(fitted_on):
        assert own == everything - decided[fold]


def test_cross_fitting_tells_overfitting() -> None:
    """Columns of chance fit the docs that they were fitted on, and no other."""
    rng = np.random.default_rng(0)
    names = [f"chance {number}" for number in range(20)]
    cases = [replace(case, values=rng.normal(size=(4, 20))) for case in cases_of(30, 1)]
    own = by_decision(cases, names, fit(cases, names, names)).right(cases)
    held_out = cross_fit(cases, names, names, 5).right(cases)
    assert sum(own) > len(cases) / 2 > sum(held_out)


def test_the_report() -> None:
    cases = cases_of(nil=6)
    decision, content = fit_report(cases, COLUMNS, FEATURES)
    assert decision == fit(cases, COLUMNS, COLUMNS)
    assert content["decision"]["weights"] == decision.weights
    assert content["mentions"] == {"n": 120, "nil": 20, "docs": 40, "folds": 5}
    assert content["candidate_recall"] == 1.0
    assert content["before"]["nil"] == {"n": 20, "p": None, "r": 0.0, "f": 0.0}
    after = cross_fit(cases, COLUMNS, COLUMNS, 5)
    right = after.right(cases)
    assert content["after"]["accuracy_with_nil"] == sum(right) / 120 > 0.7
    assert content["after"]["nil"]["f"] > 0
    by_before = [case.gold == "a" for case in cases]
    assert content["after_minus_before"]["difference"] == pytest.approx((sum(right) - sum(by_before)) / 120)
    assert json.loads(json.dumps(content)) == content


def test_what_a_feature_is_worth() -> None:
    cases = cases_of()
    _, content = fit_report(cases, COLUMNS, FEATURES)
    worth, right = content["worth"], cross_fit(cases, COLUMNS, COLUMNS, 5).right(cases)
    assert set(worth) == set(FEATURES)
    for name, columns in FEATURES.items():
        rest = [column for column in COLUMNS if column not in columns]
        without = cross_fit(cases, COLUMNS, rest, 5).right(cases)
        assert worth[name]["difference"] == pytest.approx((sum(right) - sum(without)) / len(cases))
        assert worth[name]["low"] <= worth[name]["difference"] <= worth[name]["high"]
    assert worth["PriorFeature"]["low"] > 0.1
    assert abs(worth["Noise"]["difference"]) < 0.05


def test_what_has_no_weight_or_nothing_beside_it_is_worth_nothing() -> None:
    constant = [replace(case, values=case.values * [1, 1, 0] + [0, 0, 7]) for case in cases_of()]
    decision, content = fit_report(constant, COLUMNS, FEATURES)
    assert decision.weights["noise"] == 0.0
    assert set(content["worth"]) == {"ScoreFeature", "PriorFeature"}
    alone = [replace(case, values=case.values[:, :1]) for case in cases_of()]
    assert fit_report(alone, ["score"], {"ScoreFeature": ["score"]})[1]["worth"] == {}


def test_the_groups() -> None:
    cases = [
        replace(case, seen=number % 2 == 0, has_description=number % 3 == 0, current=(before, "a", 0.5))
        for number, (case, before) in enumerate(zip(cases_of(nil=4), "abc" * 40, strict=True))
    ]
    _, content = fit_report(cases, COLUMNS, FEATURES)
    for group, inside in (
        ("entities", lambda case: True),
        ("seen", lambda case: case.seen),
        ("unseen", lambda case: not case.seen),
        ("described", lambda case: case.has_description),
        ("undescribed", lambda case: not case.has_description),
    ):
        own = [case for case in cases if case.gold != "NIL" and inside(case)]
        right = sum(case.current[0] == case.gold for case in own)
        assert content["before"][group]["n"] == content["after"][group]["n"] == len(own)
        assert content["before"][group]["accuracy"] == right / len(own)
        assert content["before"][group]["low"] < right / len(own) < content["before"][group]["high"]


def test_a_gold_that_is_no_candidate_counts_in_the_figures() -> None:
    cases = [replace(case, gold="z") if number % 4 == 0 else case for number, case in enumerate(cases_of())]
    decision, content = fit_report(cases, COLUMNS, FEATURES)
    assert content["candidate_recall"] == 0.75 >= content["after"]["accuracy"]
    assert decision == fit([case for case in cases if case.gold != "z"], COLUMNS, COLUMNS)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "No gold is NIL, so NIL is no alternative"),
        (
            {"doc": "d"},
            "There is only one doc to fit on, so none can be held out and there are no cross-fitted figures",
        ),
        ({"is_demonstration": True}, "120 of the 120 mentions are, in the same text, among the pipe's demonstrations"),
        ({"unreadable_image": True}, "The image of 120 of the 120 mentions could not be read"),
    ],
)
def test_what_is_noted(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    cases = [replace(case, **changes) for case in cases_of()]
    _, content = fit_report(cases, COLUMNS, FEATURES)
    assert sum(says in note for note in content["notes"]) == 1
    content = {**SETTINGS, **content}
    assert says in decision_text(content)
    assert says.replace("'", "&#39;") in write_decision(content, tmp_path / "d.json").read_text(encoding="utf-8")


def test_what_need_not_be_noted() -> None:
    cases = cases_of(nil=6)
    cases[:5] = [replace(case, is_demonstration=True) for case in cases[:5]]
    assert fit_report(cases, COLUMNS, FEATURES)[1]["notes"] == []
    [note] = fit_report(cases[:40], COLUMNS, FEATURES)[1]["notes"][:1]
    assert note == "Only 40 mentions: the weights and all of these figures are rough."


def test_one_doc_has_no_cross_fitted_figures(tmp_path: Path) -> None:
    decision, content = fit_report([replace(case, doc="d") for case in cases_of()], COLUMNS, FEATURES)
    assert decision.weights["prior"] > 0
    assert (content["after"], content["worth"], content["mentions"]["folds"]) == (None, {}, 1)
    assert "after_minus_before" not in content
    content = {**SETTINGS, **content}
    assert "after - before" not in decision_text(content)
    assert write_decision(content, tmp_path / "d.json").read_text(encoding="utf-8").count("<svg") == 1


def test_nothing_to_fit() -> None:
    with pytest.raises(ValueError, match="no mention has its gold entity among its candidates"):
        fit_report([replace(case, gold="z") for case in cases_of(2, 2)], COLUMNS, FEATURES)


def test_the_text_and_the_page_say_the_same(tmp_path: Path) -> None:
    decision, content = fit_report(cases_of(nil=6), COLUMNS, FEATURES)
    content = {"settings": {"pipeline": "<script>alert(1)</script>", "data": "dev"}, **content}
    text, page = decision_text(content), write_decision(content, tmp_path / "d.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "d.json").read_text()) == json.loads(json.dumps(content))
    for name, weight in decision.weights.items():
        scaled = weight * decision.scales[name]
        assert [line.split() for line in text.splitlines() if line.startswith(f"{name} ")] == [
            [name, f"{weight:.3f}", f"{scaled:.2f}"]
        ]
        assert f'<th scope="row">{name}</th><td>{weight:.3f}</td><td>{scaled:.2f}</td>' in page
    assert f"NIL{decision.nil:>31.3f}" in text
    assert "120 mentions in 40 docs, 20 of them NIL; the gold entity is among the candidates of 100.0 %" in text
    for feature in FEATURES:
        assert feature in text and feature in page
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count("<svg") == 2
    assert "://" not in page
