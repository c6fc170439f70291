"""A decision fitted on dev data, and what it and each of its features are worth on docs that it was not fitted on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spacy_gemel.evaluation.bootstrap import SEED, accuracy_of, difference_of, folds_by_doc
from spacy_gemel.evaluation.calibration import answer_figures
from spacy_gemel.evaluation.decision_cases import DecisionCase
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.linking.decision import Decision, fit_decision

FOLDS = 5
FEW = 50
_FEW_DEMONSTRATIONS = 0.05  # of the mentions: a few captions are the same in any two parts of a data set


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to cases by one way to decide; see `answer_figures`."""

    answers: Sequence[str]
    best: Sequence[str]
    confidences: Sequence[float | None]

    def right(self, cases: Sequence[DecisionCase]) -> list[bool]:
        """Whether each is the gold, NIL for NIL."""
        return [answer == case.gold for answer, case in zip(self.answers, cases, strict=True)]

    def figures(self, cases: Sequence[DecisionCase]) -> dict[str, Any]:
        """See `answer_figures`."""
        return answer_figures([case.gold for case in cases], self.answers, self.best, self.confidences)


def fit(cases: Sequence[DecisionCase], columns: Sequence[str], used: Sequence[str]) -> Decision:
    """A decision of some columns. Raises ValueError if no case has its gold among its candidates."""
    indices = [columns.index(name) for name in used]
    return fit_decision([case.values[:, indices] for case in cases], [case.gold_index for case in cases], used)


def cross_fit(cases: Sequence[DecisionCase], columns: Sequence[str], used: Sequence[str], folds: int) -> Answers:
    """The answer to each case by a decision that was fitted on the docs of the other folds; no doc is split."""
    # Few docs that can be fitted on are dealt out evenly, so that each fold leaves some; else those with NIL.
    learned, nil = _docs_to_learn(cases), {case.doc for case in cases if case.gold == NIL}
    spread = learned if len(learned) < 2 * folds else nil
    fold_of = folds_by_doc([case.doc for case in cases], folds, spread=spread)
    results: list[tuple[str, str, float | None]] = [(NIL, NIL, None)] * len(cases)
    for fold in range(folds):
        decision = fit([case for case, of in zip(cases, fold_of, strict=True) if of != fold], columns, used)
        for index in np.flatnonzero(fold_of == fold).tolist():
            results[index] = cases[index].decide(decision, columns)
    return Answers(*zip(*results, strict=True))


def _docs_to_learn(cases: Sequence[DecisionCase]) -> set[str]:
    """The docs with a mention whose gold entity is among its candidates."""
    return {case.doc for case in cases if (index := case.gold_index) is not None and index >= 0}


def by_decision(cases: Sequence[DecisionCase], columns: Sequence[str], decision: Decision) -> Answers:
    """The answers by one decision to all cases."""
    return Answers(*zip(*(case.decide(decision, columns) for case in cases), strict=True))


def fit_report(
    cases: Sequence[DecisionCase], columns: Sequence[str], features: Mapping[str, Sequence[str]], *, folds: int = FOLDS
) -> tuple[Decision, dict[str, Any]]:
    """The decision fitted on all cases, and the content of DECISION.json.

    Args:
        cases: Of dev data.
        columns: Of their values.
        features: The columns of each feature, by its name in the config.
        folds: Of the cross-fitting, at most as many as docs.

    Returns:
        The decision; and its table, the figures before and after, cross-fitted, and `worth`: what is lost without each
        feature, cross-fitted, with intervals over docs. Cross-fitted figures are None for a single doc.

    Raises:
        ValueError: If nothing can be fitted.
    """
    decision = fit(cases, columns, columns)
    docs, notes = [case.doc for case in cases], []
    folds = min(folds, len(_docs_to_learn(cases)))
    entities = [case for case in cases if case.gold != NIL]
    before = Answers(*zip(*(case.current for case in cases), strict=True))
    content: dict[str, Any] = {
        "decision": asdict(decision),
        "mentions": {"n": len(cases), "nil": len(cases) - len(entities), "docs": len(set(docs)), "folds": folds},
        "candidate_recall": sum(case.gold_index is not None for case in entities) / len(entities) if entities else None,
        "before": before.figures(cases) | _groups(before, cases),
        "after": None,
        "worth": {},
    }
    if folds > 1:
        after = cross_fit(cases, columns, columns, folds)
        right = after.right(cases)
        content["after"] = after.figures(cases) | _groups(after, cases)
        content["after_minus_before"] = difference_of(right, before.right(cases), docs)
        for name, dropped in features.items():
            rest = [column for column in columns if column not in dropped]
            if any(decision.weights[column] for column in dropped) and rest:
                without = cross_fit(cases, columns, rest, folds).right(cases)
                content["worth"][name] = difference_of(right, without, docs)
    else:
        notes.append("There is only one doc to fit on, so none can be held out and there are no cross-fitted figures.")
    if len(cases) < FEW:
        notes.append(f"Only {len(cases)} mentions: the weights and all of these figures are rough.")
    if decision.nil is None:
        notes.append("No gold is NIL, so NIL is no alternative: it is learned from mentions without an entity.")
    unreadable = sum(case.unreadable_image for case in cases)
    if unreadable:
        notes.append(
            f"The image of {unreadable} of the {len(cases)} mentions could not be read. They count, in the figures and "
            "in the weights, with what was linked from their text alone."
        )
    known = sum(case.is_demonstration for case in cases)
    if known > _FEW_DEMONSTRATIONS * len(cases):
        notes.append(
            f"{known} of the {len(cases)} mentions are, in the same text, among the pipe's demonstrations, as those of "
            "training data are: they know the answer, and the weights trust them too much. Fit on dev data."
        )
    return decision, {**content, "seed": SEED, "notes": notes}


def _groups(answers: Answers, cases: Sequence[DecisionCase]) -> dict[str, Any]:
    """The accuracy over the gold entities, and over some of them, with intervals over docs."""
    right = answers.right(cases)
    groups = {
        "entities": [case.gold != NIL for case in cases],
        "seen": [case.gold != NIL and case.seen for case in cases],
        "unseen": [case.gold != NIL and not case.seen for case in cases],
        "described": [case.gold != NIL and case.has_description for case in cases],
        "undescribed": [case.gold != NIL and not case.has_description for case in cases],
    }
    return {
        name: accuracy_of(
            [each for each, inside in zip(right, mask, strict=True) if inside],
            [case.doc for case, inside in zip(cases, mask, strict=True) if inside],
        )
        for name, mask in groups.items()
    }
