"""The shortcut and the alias match against plain Python, on made knowledge bases."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_gemel.evaluation.baselines import (
    AliasMatch,
    FoldedSurfaces,
    KBSurfaces,
    MostFrequentEntity,
    TrainingMentions,
)
from tests.research.baselines.world import open_kb

SURFACES = ["Java", "java", "JAVA", "Java Sea", "java_sea", "Jaguar", "jaguar", "Straße", "STRASSE", "x"]
surface = st.sampled_from(SURFACES)
entities = st.lists(
    st.fixed_dictionaries(
        {"name": surface, "aliases": st.lists(surface, max_size=3), "count": st.integers(0, 3)},
    ),
    min_size=1,
    max_size=7,
)
Row = dict[str, Any]


def numbered(rows: list[Row]) -> list[Row]:
    # the last one can be said by the tokenizer whatever is drawn: a knowledge base needs one
    return [{"id": f"Q{number}", **row} for number, row in enumerate([*rows, {"name": "y", "aliases": [], "count": 1}])]


def wiki(text: str) -> str:
    spaced = text.replace("_", " ")
    return spaced[0].upper() + spaced[1:]


def expected_shortcut(rows: list[Row], training: list[tuple[str, int]], mention: str, fold: bool) -> str | None:
    same = (lambda a, b: a.casefold() == b.casefold()) if fold else (lambda a, b: a == b)
    meant = [row for text, row in training if same(text, mention)]
    pool = meant or [number for number, row in enumerate(rows) if same(row["name"], mention)]
    if not pool:
        return None
    return f"Q{min(pool, key=lambda row: (-meant.count(row), -rows[row]['count'], row))}"


def expected_alias(rows: list[Row], mention: str, fold: bool) -> list[str]:
    key = str.casefold if fold else wiki
    bearers = []
    for number, row in enumerate(rows):
        named = key(row["name"]) == key(mention)
        if named or key(mention) in [key(alias) for alias in row["aliases"]]:
            bearers.append((-row["count"], not named, number))
    return [f"Q{number}" for _, _, number in sorted(bearers)]


def counted(training: list[tuple[str, int]]) -> TrainingMentions:
    rows: dict[str, Counter[int]] = {}
    for text, row in training:
        rows.setdefault(text, Counter())[row] += 1
    return TrainingMentions(rows, frozenset(), len(training), 0, 0, 0)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(entities, st.lists(st.tuples(surface, st.integers(0, 99)), max_size=12))
def test_both_answer_as_plain_python_does(made: list[Row], pairs: list[tuple[str, int]]) -> None:
    rows = numbered(made)
    training = [(text, number % len(rows)) for text, number in pairs]
    with tempfile.TemporaryDirectory() as folder:
        kb = open_kb(Path(folder), rows)
        for fold in (False, True):
            names = FoldedSurfaces(kb, progress=False) if fold else KBSurfaces(kb, exact=True)
            shortcut = MostFrequentEntity(kb, counted(training), names)
            alias = AliasMatch(kb, FoldedSurfaces(kb, progress=False) if fold else KBSurfaces(kb, exact=False))
            for mention in SURFACES:
                found = shortcut.candidates(mention)
                assert (found[0].kb_id if found else None) == expected_shortcut(rows, training, mention, fold)
                bearers = alias.candidates(mention)
                assert [candidate.kb_id for candidate in bearers] == expected_alias(rows, mention, fold)
                for candidates in (found, bearers):
                    shares = [candidate.probability for candidate in candidates]
                    assert shares == sorted(shares, reverse=True)
                    assert not shares or abs(sum(shares) - 1) < 1e-9


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(entities)
def test_exact_surfaces_are_the_strings_as_they_are(made: list[Row]) -> None:
    rows = numbered(made)
    with tempfile.TemporaryDirectory() as folder:
        surfaces = KBSurfaces(open_kb(Path(folder), rows), exact=True)
        for mention in SURFACES:
            named = [number for number, row in enumerate(rows) if row["name"] == mention]
            aliased = [n for n, row in enumerate(rows) if mention in row["aliases"] and row["name"] != mention]
            assert surfaces.lookup(mention) == (named, aliased)


def test_shares_tell_how_often(tmp_path: Path) -> None:
    kb = open_kb(tmp_path, numbered([{"name": "Java", "count": 0}, {"name": "Java", "count": 4}]))
    shortcut = MostFrequentEntity(kb, counted([("Java", 0), ("Java", 0), ("Java", 1)]), KBSurfaces(kb, exact=True))
    assert [(c.kb_id, round(c.probability, 3)) for c in shortcut.candidates("Java")] == [("Q0", 0.667), ("Q1", 0.333)]
    names = AliasMatch(kb, KBSurfaces(kb, exact=False))
    assert [(c.kb_id, c.probability) for c in names.candidates("java")] == [("Q1", 1.0), ("Q0", 0.0)]
    assert names.candidates("Sumatra") == []
