"""`python -m spacy_gemel peer`, as a user calls it: its files beside a linker's, and what it says of mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import DocBin
from typer.testing import CliRunner

from research.baselines import entity_linker, runner
from spacy_gemel.__main__ import app
from spacy_gemel.evaluation.report import difference, read_runs
from spacy_gemel.evaluation.results import mentions_path, read_mentions, write_evaluation
from spacy_gemel.evaluation.runner import EvaluateOptions, evaluate
from spacy_gemel.pipeline.loaded import linker_of
from tests.mini_pipeline import examples, make_pipeline
from tests.mini_pipeline import make_kb as make_linker_kb
from tests.research.baselines.world import CARS, CAT, ELEMENT, GOD, PLANET, make_corpus, make_kb

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
SAID = {
    "shortcut": [PLANET, PLANET, CAT, CAT, CARS, "NIL", "NIL", "NIL", "NIL", "NIL"],
    # Jaguar and Jaguar Cars are counted alike: the name comes before the alias; the first letter's case does not count
    "alias": [PLANET, PLANET, CAT, CAT, CARS, ELEMENT, "NIL", "NIL", "NIL", "NIL"],
}


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with train.spacy, test.spacy and kb in it."""
    make_corpus(tmp_path / "train.spacy", TRAIN)
    make_corpus(tmp_path / "test.spacy", TEST)
    make_kb(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def peer(kind: str, *more: object) -> Any:
    return call("peer", kind, "train.spacy", "test.spacy", "--kb", "kb", "-o", f"m/{kind}.json", "-q", *more)


@pytest.mark.parametrize("kind", ["shortcut", "alias"])
def test_what_it_says_and_writes(here: Path, kind: str) -> None:
    done = peer(kind, "--tail-share", 0.3)
    assert done.exit_code == 0, done.output
    metrics = json.loads(Path(f"m/{kind}.json").read_text())
    results = read_mentions(Path(f"m/{kind}.mentions.jsonl"))
    assert [result.predicted for result in results] == SAID[kind]
    assert [result.doc for result in results] == ["d0", "d1", "d1", "d2", "d3", "d3", "d4", "d5", "d5", "d6"]
    right = {"shortcut": 4, "alias": 5}[kind]
    assert (metrics["n"], metrics["accuracy"]) == (7, pytest.approx(right / 7))
    assert metrics["low"] < metrics["accuracy"] <= metrics["high"]
    assert (metrics["nil"]["n"], metrics["nil"]["accuracy"]) == (1, 1.0)
    assert (metrics["not_in_kb"]["n"], metrics["unannotated"]["n"]) == (1, 1)
    # 9 + 3 + 5 + 5 of counts: the god's 3 are the tail at 30 %, the element has no count
    assert (metrics["tail"]["n"], metrics["tail"]["threshold"], metrics["uncounted"]["n"]) == (1, 3, 1)
    assert [result.seen for result in results[:6]] == [True, False, True, True, False, True]
    settings = metrics["settings"]
    assert (settings["peer"], settings["ignore_case"], settings["tail_share"]) == (kind, False, 0.3)
    assert settings["training_mentions"] == 4
    assert settings["training_mentions_unused"] == {"nil": 1, "unannotated": 0, "not_in_kb": 1}
    first = results[0]
    assert first.candidates[0]["kb_id"] == first.predicted
    assert first.probability == pytest.approx(2 / 3 if kind == "shortcut" else 9 / 12)
    assert f"of {metrics['n']}" in done.output
    assert sorted(path.name for path in Path("m").iterdir()) == [f"{kind}.json", f"{kind}.mentions.jsonl"]


def test_ignoring_case(here: Path) -> None:
    assert peer("shortcut", "--ignore-case").exit_code == 0
    [_, _, jaguar, *_] = read_mentions(Path("m/shortcut.mentions.jsonl"))
    assert (jaguar.mention, jaguar.predicted, jaguar.probability) == ("Jaguar", CAT, 1.0)
    assert peer("alias", "--ignore-case").exit_code == 0
    assert read_mentions(Path("m/alias.mentions.jsonl"))[-1].predicted == CARS
    assert "ignoring case" in read_runs([Path("m/alias.json")])[0].description


def test_the_entity_linker(here: Path) -> None:
    done = peer("entity_linker", "--epochs", 2, "--vector-length", 16, "--seed", 7, "--dev", "train.spacy")
    assert done.exit_code == 0, done.output
    metrics = json.loads(Path("m/entity_linker.json").read_text())
    settings = metrics["settings"]
    expected = {"peer": "entity_linker", "epochs": 2, "seed": 7, "vector_length": 16, "dev": "train.spacy"}
    assert {key: settings[key] for key in expected} == expected
    assert 1 <= settings["epoch"] <= len(settings["dev_accuracy"]) == 2
    said = [result.predicted for result in read_mentions(Path("m/entity_linker.mentions.jsonl"))]
    # what is called by one entity only, or by none, needs no learning
    assert said[3:] == [CAT, CARS, ELEMENT, "NIL", "NIL", "NIL", "NIL"]
    assert said[0] in (PLANET, ELEMENT, GOD)
    assert sorted(path.name for path in here.iterdir() if path.is_dir()) == ["kb", "m"], "the linker is not kept"


def test_an_epoch_chosen_on_training_texts_held_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is trained twice: without those texts, priors included, to choose; and on all of them for so many epochs."""
    calls: list[tuple[set[str], set[str], int]] = []
    real = entity_linker.train_linker

    def noted(nlp: Any, kb: Any, training: Any, train: Any, dev: Any, options: Any, known: Any) -> Any:
        counted = sum(sum(times.values()) for times in training.rows.values())
        texts, held = ({doc.text for doc in docs or ()} for docs in (train, dev))
        calls.append((texts, held, options.epochs))
        assert counted == sum(
            len([ent for ent in doc.ents if ent.kb_id_.startswith("Q") and ent.kb_id_ != "Q999999"]) for doc in train
        )
        return real(nlp, kb, training, train, dev, options, known)

    monkeypatch.setattr(entity_linker, "train_linker", noted)
    assert peer("entity_linker", "--held-out", 0.3, "--epochs", 4, "--vector-length", 8).exit_code == 0
    everything = {text for text, _ in TRAIN}
    settings = json.loads(Path("m/entity_linker.json").read_text())["settings"]
    (learnt, held, most), (all_texts, none, epochs) = calls
    assert learnt | held == all_texts == everything and not learnt & held and len(held) == 1
    assert (most, none, epochs) == (4, set(), settings["epoch"])
    assert (settings["held_out"], settings["held_out_docs"], settings["dev"]) == (0.3, 1, None)
    assert settings["epoch"] == settings["dev_accuracy"].index(max(settings["dev_accuracy"])) + 1


def test_docs_of_one_text_are_held_out_together(here: Path) -> None:
    nlp = spacy.blank("en")
    docs = [nlp(f"text {number // 3}") for number in range(30)]
    learn, held = entity_linker.hold_out(docs, 0.25, 5)
    assert (len(learn), len(held)) == (24, 6)
    assert not {doc.text for doc in learn} & {doc.text for doc in held}
    again, other = entity_linker.hold_out(docs, 0.25, 5), entity_linker.hold_out(docs, 0.25, 6)
    assert [doc.text for doc in again[1]] == [doc.text for doc in held] != [doc.text for doc in other[1]]
    with pytest.raises(ValueError, match="1 training text is too few"):
        entity_linker.hold_out(docs[:3], 0.5, 0)


def test_what_bounds_the_entity_linker(here: Path) -> None:
    """Its prior alone is the most probable candidate, and no answer is right where the gold is no candidate."""
    assert peer("entity_linker", "--epochs", 2, "--vector-length", 16).exit_code == 0
    metrics = json.loads(Path("m/entity_linker.json").read_text())
    alone, among = (metrics["settings"][name] for name in ("prior_alone", "gold_among_candidates"))
    # every gold but that of "JAGUAR cars", which nothing is called as it is written
    assert (among["n"], among["accuracy"]) == (7, pytest.approx(6 / 7))
    assert alone["n"] == 7
    assert alone["low"] <= alone["accuracy"] <= among["accuracy"]
    assert metrics["accuracy"] <= among["accuracy"]
    untrained = peer("entity_linker", "--epochs", 1, "--vector-length", 16, "--seed", 3)
    assert untrained.exit_code == 0
    assert json.loads(Path("m/entity_linker.json").read_text())["settings"]["gold_among_candidates"] == among


def test_descriptions_by_a_sentence_encoder(here: Path, models: Path) -> None:
    done = peer("entity_linker", "--epochs", 1, "--encoder", models / "sentence_encoder")
    assert done.exit_code == 0, done.output
    settings = json.loads(Path("m/entity_linker.json").read_text())["settings"]
    assert settings["vectors"] == str(models / "sentence_encoder")
    assert settings["vector_length"] != 300
    done = peer("entity_linker", "--encoder", here / "none")
    assert (done.exit_code, done.stderr[:7]) == (1, "error: ")


def test_beside_a_linker(models: Path, tmp_path: Path) -> None:
    """The same mentions judged alike, so that the report pairs them."""
    kb = make_linker_kb(tmp_path, models)
    nlp = make_pipeline(models, kb)
    made = [example.reference for example in examples(nlp)]
    for number, doc in enumerate(made):
        doc.user_data = {"id": f"d{number}"}
    DocBin(docs=made, store_user_data=True).to_disk(tmp_path / "data.spacy")
    data = tmp_path / "data.spacy"
    metrics, results = evaluate(nlp, data, EvaluateOptions(progress=False))
    write_evaluation(metrics, results, tmp_path / "full.json")
    paths = [tmp_path / "full.json"]
    for kind in runner.KINDS:
        paths.append(tmp_path / f"{kind}.json")
        done = call("peer", kind, data, data, "--kb", kb, "-o", paths[-1], "-q", *_short(kind))
        assert done.exit_code == 0, done.output
        peers = read_mentions(mentions_path(paths[-1]))
        assert [judged(result) for result in peers] == [judged(result) for result in results]
        theirs = json.loads(paths[-1].read_text())
        assert theirs.keys() == metrics.keys()
        for part in ("n", "common", "tail", "seen", "unseen", "uncounted", "nil"):
            assert count_of(theirs[part]) == count_of(metrics[part]), part
    assert linker_of(nlp).training_golds == {result.gold for result in results if result.seen}
    full, *others = read_runs(paths)
    assert [run.title for run in others] == ["Most frequent entity", "Names and aliases", "spaCy's entity_linker"]
    for run in others:
        gap = difference(run, full)
        assert gap is not None
        assert gap[0] == pytest.approx(run.metrics["accuracy"] - full.metrics["accuracy"])
    done = call("report", *paths, "-o", tmp_path / "report")
    assert done.exit_code == 0, done.output
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "the most frequent training entity for the mention" in page
    assert "its name or alias, but for the first letter&#39;s case and underscores" in page
    assert page.count("text only, ") == 3


def judged(result: Any) -> tuple[Any, ...]:
    return (result.key, result.mention, result.seen, result.tail, result.image, result.in_kb, result.text)


def count_of(part: Any) -> int:
    return part["n"] if isinstance(part, dict) else part


def _short(kind: str) -> list[object]:
    return ["--epochs", 1, "--vector-length", 8] if kind == "entity_linker" else []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["guess"], "'guess' is no peer: use one of shortcut, alias, entity_linker"),
        (["entity_linker", "--ignore-case"], "cannot ignore case"),
        (["alias", "--dev", "train.spacy"], "alias chooses nothing on dev data"),
        (["shortcut", "--epochs", 99], "shortcut has no use for --epochs; it takes ignore_case"),
        (["shortcut", "--epochs", 10], "shortcut has no use for --epochs"),
        (["shortcut", "--encoder", "nope"], "shortcut has no use for --encoder"),
        (["alias", "--seed", 0], "alias has no use for --seed"),
        (["alias", "--vector-length", 3], "alias has no use for --vector-length"),
        (["alias", "--held-out", 0.1], "alias has no use for --held-out"),
        (["entity_linker", "--held-out", 0.1, "--dev", "train.spacy"], "not both"),
        (["entity_linker", "--held-out", -0.1], "held_out is -0.1"),
        (["alias", "-o", "m/alias.txt"], "must end in .json"),
        (["alias", "--kb", "nowhere"], "nowhere"),
        (["entity_linker", "--dev", "nil.spacy"], "not one mention of the dev data"),
        (["shortcut", "--lang", "qq"], "qq"),
    ],
)
def test_mistakes_are_told_in_one_line_and_nothing_is_written(here: Path, arguments: list[str], says: str) -> None:
    make_corpus(here / "nil.spacy", [("Mercury", [("Mercury", "NIL")])])
    done = peer(*arguments)
    assert done.exit_code == 1
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not Path("m").exists()


def test_data_that_cannot_be_used(here: Path) -> None:
    make_corpus(here / "nil.spacy", [("Mercury", [("Mercury", "NIL")])])
    make_corpus(here / "none.spacy", [("Mercury", [])])
    for train, test, says in [
        ("nil.spacy", "test.spacy", "not one mention of 1 docs has a gold that kb holds"),
        ("train.spacy", "none.spacy", "not one mention in 1 docs"),
        ("nowhere.spacy", "test.spacy", "nowhere.spacy: no such file"),
    ]:
        done = call("peer", "alias", train, test, "--kb", "kb", "-o", "m.json", "-q")
        assert done.exit_code == 1
        assert says in done.stderr
        assert not Path("m.json").exists()


def test_an_interrupt_writes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entity_linker, "train_linker", stop)
    done = peer("entity_linker")
    assert done.exit_code == 130
    assert "interrupted: nothing was written" in done.stderr
    assert not Path("m").exists()


def test_limit_counts_test_docs(here: Path) -> None:
    assert peer("alias", "--limit", 2).exit_code == 0
    assert json.loads(Path("m/alias.json").read_text())["n"] == 3
