"""Intervals over seeds and mentions against a bootstrap that draws them one by one."""

import numpy as np
import pytest

from research import statistics
from research.statistics import Term, seeds_and_mentions_interval
from spacy_gemel.evaluation.bootstrap import accuracy_interval, paired_difference


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
    monkeypatch.setattr(statistics, "_COUNTS_AT_ONCE", 10**9)
    whole = seeds_and_mentions_interval(terms)
    sizes: list[int] = []
    percentile = np.nanpercentile

    def noted(draws: np.ndarray, ends: list[float]) -> np.ndarray:
        sizes.append(len(draws))
        return percentile(draws, ends)

    monkeypatch.setattr(np, "nanpercentile", noted)
    monkeypatch.setattr(statistics, "_COUNTS_AT_ONCE", 7 * kinds)
    assert seeds_and_mentions_interval(terms) == whole
    assert sizes == [statistics.RESAMPLES]
    assert statistics.RESAMPLES % 7


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
