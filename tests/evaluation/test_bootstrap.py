"""The intervals against a bootstrap that draws mention by mention."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.evaluation import bootstrap
from spacy_gemel.evaluation.bootstrap import (
    Term,
    accuracy_interval,
    interval_by_doc,
    paired_difference,
    seeds_and_mentions_interval,
)


def slow_interval(values: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(1)
    means = [rng.choice(values, len(values)).mean() for _ in range(4000)]
    return tuple(np.percentile(means, [2.5, 97.5]))


def test_accuracy_as_by_drawing_mentions() -> None:
    right = np.array([1.0] * 70 + [0.0] * 30)
    assert accuracy_interval(70, 100) == pytest.approx(slow_interval(right), abs=0.015)


def test_difference_as_by_drawing_pairs() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.random(120) < 0.8, rng.random(120) < 0.6
    difference, low, high = paired_difference(list(first), list(second))
    assert difference == pytest.approx(first.mean() - second.mean())
    assert (low, high) == pytest.approx(slow_interval(first.astype(float) - second), abs=0.015)


@settings(deadline=None)
@given(st.integers(1, 500), st.data())
def test_the_interval_holds_the_accuracy_and_repeats(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    low, high = accuracy_interval(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    assert (low, high) == accuracy_interval(correct, n)
    assert low < high, "however they went, so many mentions settle it no more than that"


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=100))
def test_the_difference_turns_its_sign_with_the_order(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    difference, low, high = paired_difference(first, second)
    assert low <= difference <= high
    assert paired_difference(second, first)[0] == -difference
    assert paired_difference(first, first) == (0, 0, 0)


def test_nothing_and_unequal() -> None:
    assert accuracy_interval(0, 0) is None
    assert paired_difference([], []) is None
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([True], [])


def naive_intervals(terms: list[Term], resamples: int = 4000) -> tuple[float, float, float]:
    """Draw seeds and mentions one by one."""
    seeds, n = max(len(term.correct) for term in terms), terms[0].correct.shape[1]

    def value(of_seeds: np.ndarray, of_mentions: np.ndarray) -> float:
        total = 0.0
        for term in terms:
            rows = np.broadcast_to(term.correct, (seeds, n))[of_seeds]
            kept = of_mentions if term.keep is None else of_mentions[term.keep[of_mentions]]
            total += term.sign * rows[:, kept].mean()
        return total

    rng = np.random.default_rng(5)
    draws = [value(rng.integers(0, seeds, seeds), rng.integers(0, n, n)) for _ in range(resamples)]
    return (value(np.arange(seeds), np.arange(n)), *np.percentile(draws, [2.5, 97.5]))


def outcomes(share: float, seeds: int, n: int = 80, seed: int = 0) -> np.ndarray:
    """(seeds, mentions): mentions of unlike difficulty, seeds of unlike luck."""
    rng = np.random.default_rng(seed)
    return rng.random((seeds, n)) < share + 0.2 * (rng.random(n) - 0.5) + 0.1 * (rng.random((seeds, 1)) - 0.5)


TAIL = np.arange(80) % 3 == 0


@pytest.mark.parametrize(
    "terms",
    [
        [Term(outcomes(0.7, 3))],
        [Term(outcomes(0.7, 3)), Term(outcomes(0.5, 3, seed=1), sign=-1)],
        [Term(outcomes(0.7, 3)), Term(outcomes(0.5, 1, seed=2), sign=-1)],
        [Term(outcomes(0.7, 3), ~TAIL), Term(outcomes(0.7, 3), TAIL, -1)],
        [
            Term(outcomes(0.5, 1, seed=2), ~TAIL),
            Term(outcomes(0.5, 1, seed=2), TAIL, -1),
            Term(outcomes(0.8, 3), ~TAIL, -1),
            Term(outcomes(0.8, 3), TAIL),
        ],
        [Term(outcomes(0.7, 1))],
    ],
    ids=["accuracy", "paired", "one row for all seeds", "gap", "difference of gaps", "one seed"],
)
def test_two_ways_as_by_drawing_seeds_and_mentions(terms: list[Term]) -> None:
    found = seeds_and_mentions_interval(terms)
    assert found == pytest.approx(naive_intervals(terms), abs=0.02)
    assert found is not None and found[1] <= found[0] <= found[2]
    assert found == seeds_and_mentions_interval(terms)


def test_one_seed_is_the_bootstrap_over_mentions() -> None:
    first, second = outcomes(0.7, 1), outcomes(0.5, 1, seed=1)
    assert seeds_and_mentions_interval([Term(first), Term(second, sign=-1)]) == pytest.approx(
        paired_difference(first[0].tolist(), second[0].tolist()), abs=0.015
    )


def test_seeds_that_differ_widen_the_interval() -> None:
    apart = np.repeat([[True], [False], [True]], 80, axis=1)
    found = seeds_and_mentions_interval([Term(apart)])
    assert found == (pytest.approx(2 / 3), 0, 1)


def test_all_right_has_wilsons_interval_and_settings_stay_paired() -> None:
    """Wilson's score interval, solved for: (p - 1)^2 = z^2 p (1 - p) / n. Seeds are no mentions."""
    right = np.ones((3, 50), dtype=bool)
    low = 1 / (1 + 1.959964**2 / 50)
    assert seeds_and_mentions_interval([Term(right)]) == (1, pytest.approx(low, abs=1e-6), 1)
    assert (low - 1) ** 2 == pytest.approx(1.959964**2 * low * (1 - low) / 50)
    assert seeds_and_mentions_interval([Term(~right)]) == (0, 0, pytest.approx(1 - low, abs=1e-6))
    assert accuracy_interval(50, 50) == (pytest.approx(low, abs=1e-6), 1)
    assert accuracy_interval(0, 50) == (0, pytest.approx(1 - low, abs=1e-6))
    part = np.arange(50) < 20
    mixed_elsewhere = right & (part | (np.arange(50) % 2 == 0))
    assert seeds_and_mentions_interval([Term(mixed_elsewhere, part)]) == (1, *accuracy_interval(20, 20))  # type: ignore[misc]
    mixed = outcomes(0.6, 3)
    assert seeds_and_mentions_interval([Term(mixed), Term(mixed, sign=-1)]) == (0, 0, 0)


def test_empty_and_nearly_empty_parts() -> None:
    mixed = outcomes(0.6, 3)
    nothing, one = np.zeros(80, dtype=bool), np.arange(80) == 0
    assert seeds_and_mentions_interval([Term(mixed), Term(mixed, nothing, -1)]) is None
    assert seeds_and_mentions_interval([Term(np.zeros((3, 0), dtype=bool))]) is None
    # a third of the resamples lack the one mention: they say nothing
    found = seeds_and_mentions_interval([Term(mixed, one)])
    assert found is not None and np.isfinite(found).all()


def test_pieces_draw_what_the_whole_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """7 resamples at a time, and a last piece of fewer."""
    terms = [Term(outcomes(0.7, 3), ~TAIL), Term(outcomes(0.6, 3, seed=1), TAIL, -1)]
    kinds = np.unique(np.concatenate([*(term.correct & term.keep for term in terms), TAIL[None]]), axis=1).shape[1]
    monkeypatch.setattr(bootstrap, "_COUNTS_AT_ONCE", 10**9)
    whole = seeds_and_mentions_interval(terms)
    sizes: list[int] = []
    percentile = np.nanpercentile

    def noted(draws: np.ndarray, ends: list[float]) -> np.ndarray:
        sizes.append(len(draws))
        return percentile(draws, ends)

    monkeypatch.setattr(np, "nanpercentile", noted)
    monkeypatch.setattr(bootstrap, "_COUNTS_AT_ONCE", 7 * kinds)
    assert seeds_and_mentions_interval(terms) == whole
    assert sizes == [bootstrap.RESAMPLES]
    assert bootstrap.RESAMPLES % 7


@pytest.mark.parametrize(
    "terms",
    [
        [],
        [Term(np.ones((2, 5), dtype=bool)), Term(np.ones((3, 5), dtype=bool))],
        [Term(np.ones((2, 5), dtype=bool)), Term(np.ones((2, 4), dtype=bool))],
        [Term(np.ones((2, 5), dtype=bool), np.ones(4, dtype=bool))],
    ],
)
def test_terms_that_do_not_fit(terms: list[Term]) -> None:
    with pytest.raises(ValueError, match=r"no term|do not fit"):
        seeds_and_mentions_interval(terms)


def test_docs_as_by_drawing_doc_by_doc() -> None:
    """Of one to six mentions, some docs easy and some hard; values of single mentions, and of pairs."""
    rng = np.random.default_rng(5)
    docs = [f"doc {doc}" for doc in range(80) for _ in range(rng.integers(1, 7))]
    ease = dict(zip(dict.fromkeys(docs), rng.random(80), strict=True))
    right = np.array([rng.random() < ease[doc] for doc in docs], dtype=float)
    for values in (right, right - (rng.random(len(docs)) < 0.5)):
        of_doc = [values[[index for index, own in enumerate(docs) if own == doc]] for doc in dict.fromkeys(docs)]
        means = []
        for _ in range(4000):
            drawn = [of_doc[doc] for doc in rng.integers(0, 80, 80)]
            means.append(np.concatenate(drawn).mean())
        low, high = interval_by_doc(list(values), docs)
        assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.015)
        assert (low, high) == interval_by_doc(list(values), docs)
    # where each mention is a doc, they are what is drawn
    alone = interval_by_doc(list(right), [str(index) for index in range(len(right))])
    assert alone == pytest.approx(accuracy_interval(int(right.sum()), len(right)), abs=0.015)
    assert interval_by_doc([], []) is None
    with pytest.raises(ValueError, match="cannot be told apart"):
        interval_by_doc([1.0], [])
