"""The baselines against plain Python on made knowledge bases, and `evaluate --baseline` as a user calls it."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from spacy_gemel.__main__ import app
from spacy_gemel.evaluation.baselines import (
    FoldedSurfaces,
    KBSurfaces,
    TrainingMentions,
    alias_match,
    most_frequent_entity,
)
from spacy_gemel.evaluation.report import read_runs
from spacy_gemel.evaluation.results import read_mentions
from tests.research.baselines.world import CARS, CAT, ELEMENT, GOD, PLANET, make_corpus, make_kb, open_kb

SURFACES = ["Java", "java", "JAVA", "Java Sea", "java_sea", "Jaguar", "jaguar", "Straße", "STRASSE", "x"]
surface = st.sampled_from(SURFACES)
entities = st.lists(
    st.fixed_dictionaries({"name": surface, "aliases": st.lists(surface, max_size=3), "count": st.integers(0, 3)}),
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


@settings(max_examples=20)
@given(entities, st.lists(st.tuples(surface, st.integers(0, 99)), max_size=12))
def test_both_answer_as_plain_python_does(made: list[Row], pairs: list[tuple[str, int]]) -> None:
    rows = numbered(made)
    training = [(text, number % len(rows)) for text, number in pairs]
    with tempfile.TemporaryDirectory() as folder:
        kb = open_kb(Path(folder), rows)
        for fold in (False, True):
            names = FoldedSurfaces(kb, progress=False) if fold else KBSurfaces(kb, exact=True)
            shortcut = most_frequent_entity(kb, counted(training), names)
            alias = alias_match(kb, FoldedSurfaces(kb, progress=False) if fold else KBSurfaces(kb, exact=False))
            for mention in SURFACES:
                found = shortcut(mention)
                assert (found[0].kb_id if found else None) == expected_shortcut(rows, training, mention, fold)
                bearers = alias(mention)
                assert [candidate.kb_id for candidate in bearers] == expected_alias(rows, mention, fold)
                for candidates in (found, bearers):
                    shares = [candidate.probability for candidate in candidates]
                    assert shares == sorted(shares, reverse=True)
                    assert not shares or abs(sum(shares) - 1) < 1e-9


@settings(max_examples=10)
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
    shortcut = most_frequent_entity(kb, counted([("Java", 0), ("Java", 0), ("Java", 1)]), KBSurfaces(kb, exact=True))
    assert [(c.kb_id, round(c.probability, 3)) for c in shortcut("Java")] == [("Q0", 0.667), ("Q1", 0.333)]
    names = alias_match(kb, KBSurfaces(kb, exact=False))
    assert [(c.kb_id, c.probability) for c in names("java")] == [("Q1", 1.0), ("Q0", 0.0)]
    assert names("Sumatra") == []


TRAIN = [
    ("Mercury near the sun", [("Mercury", PLANET)]),
    ("Mercury and Mercury", [("Mercury", PLANET), ("Mercury", ELEMENT)]),
    ("A jaguar", [("jaguar", CAT)]),
    ("Hg and Mercury", [("Hg", "NIL"), ("Mercury", "Q999999")]),
]
TEST = [
    ("Mercury rises", [("Mercury", PLANET)]),  # most frequent in training
    ("The god Mercury and a Jaguar", [("Mercury", GOD), ("Jaguar", CAT)]),
    ("A jaguar", [("jaguar", CAT)]),
    ("The Jaguar Cars and Hg", [("Jaguar Cars", "Jaguar_Cars"), ("Hg", ELEMENT)]),  # the gold is a title
    ("Venus", [("Venus", "NIL")]),
    ("Venus again, Venus and Venus", [("Venus", "Q999999"), ("Venus", "")]),
    ("Three JAGUAR cars", [("JAGUAR cars", CARS)]),
]
ANSWERS = {
    "most-frequent": [PLANET, PLANET, CAT, CAT, CARS, "NIL", "NIL", "NIL", "NIL", "NIL"],
    # Jaguar and Jaguar Cars are counted alike: the name comes before the alias; the first letter's case does not count
    "alias": [PLANET, PLANET, CAT, CAT, CARS, ELEMENT, "NIL", "NIL", "NIL", "NIL"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with train.spacy, test.spacy and kb in it."""
    make_corpus(tmp_path / "train.spacy", TRAIN)
    make_corpus(tmp_path / "test.spacy", TEST)
    make_kb(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(*options: object, train: str = "train.spacy", test: str = "test.spacy", output: str = "m.json") -> Any:
    arguments = ["evaluate", train, test, "-o", output, "-q", *options]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", ANSWERS)
def test_the_files_of_a_baseline(folder: Path, name: str) -> None:
    done = evaluate("--baseline", name, "--kb", "kb", "--tail-share", 0.3)
    assert done.exit_code == 0, done.output
    metrics, results = json.loads(Path("m.json").read_text()), read_mentions(Path("m.mentions.jsonl"))
    assert [result.predicted for result in results] == ANSWERS[name]
    assert (metrics["n"], metrics["accuracy"]) == (7, pytest.approx((4 if name == "most-frequent" else 5) / 7))
    assert (metrics["nil"]["n"], metrics["nil"]["accuracy"]) == (1, 1.0)
    assert (metrics["not_in_kb"]["n"], metrics["unannotated"]["n"]) == (1, 1)
    # 9 + 3 + 5 + 5 of counts: the god's 3 are the tail at 30 %, the element has no count
    assert (metrics["tail"]["n"], metrics["tail"]["threshold"], metrics["uncounted"]["n"]) == (1, 3, 1)
    assert [result.seen for result in results[:6]] == [True, False, True, True, False, True]
    settings = metrics["settings"]
    assert (settings["baseline"], settings["ignore_case"], settings["tail_share"]) == (name, False, 0.3)
    assert settings["training_mentions"] == 4
    assert settings["training_mentions_unused"] == {"nil": 1, "unannotated": 0, "not_in_kb": 1}
    assert results[0].candidates[0]["kb_id"] == results[0].predicted
    assert results[0].probability == pytest.approx(2 / 3 if name == "most-frequent" else 9 / 12)


def test_ignoring_case(folder: Path) -> None:
    assert evaluate("--baseline", "most-frequent", "--kb", "kb", "--ignore-case").exit_code == 0
    [_, _, jaguar, *_] = read_mentions(Path("m.mentions.jsonl"))
    assert (jaguar.mention, jaguar.predicted, jaguar.probability) == ("Jaguar", CAT, 1.0)
    assert evaluate("--baseline", "alias", "--kb", "kb", "--ignore-case").exit_code == 0
    assert read_mentions(Path("m.mentions.jsonl"))[-1].predicted == CARS
    [run] = read_runs([Path("m.json")])
    assert (run.title, "ignoring case" in run.description) == ("Names and aliases", True)


@pytest.mark.parametrize(
    ("options", "files", "message"),
    [
        (["--baseline", "guess", "--kb", "kb"], {}, "'guess' is not a baseline: use most-frequent or alias"),
        (["--baseline", "alias"], {}, "give --kb KB_DIR"),
        (["--kb", "kb"], {}, "--kb has no effect without --baseline"),
        (["--lang", "de"], {}, "--lang has no effect without --baseline"),
        (["--baseline", "alias", "--kb", "kb", "--no-image"], {}, "--no-image has no effect with --baseline"),
        (["--baseline", "alias", "--kb", "kb", "--gpu-id", "0"], {}, "--gpu-id has no effect with --baseline"),
        (["--baseline", "alias", "--kb", "kb", "--batch-size", "2"], {}, "--batch-size has no effect with --baseline"),
        (["--baseline", "alias", "--kb", "nowhere"], {}, "nowhere"),
        (["--baseline", "alias", "--kb", "kb", "--lang", "qq"], {}, "qq"),
        (["--baseline", "alias", "--kb", "kb"], {"output": "m.txt"}, "must end in .json"),
        (["--baseline", "alias", "--kb", "kb"], {"train": "nil.spacy"}, "not one mention of 1 docs has a gold"),
        (["--baseline", "alias", "--kb", "kb"], {"test": "none.spacy"}, "not one mention in 1 docs"),
        (["--baseline", "alias", "--kb", "kb"], {"train": "nowhere.spacy"}, "nowhere.spacy: no such file"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    folder: Path, options: list[str], files: dict[str, str], message: str
) -> None:
    make_corpus(folder / "nil.spacy", [("Mercury", [("Mercury", "NIL")])])
    make_corpus(folder / "none.spacy", [("Mercury", [])])
    done = evaluate(*options, **files)
    assert done.exit_code == 1
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not Path("m.json").exists()
