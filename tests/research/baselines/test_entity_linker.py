"""`python -m research baseline`, as a user calls it: its files, and what it says of mistakes."""

import json
from pathlib import Path
from typing import Any

import pytest
import spacy
from typer.testing import CliRunner

from research.__main__ import app
from research.baselines import entity_linker
from spacy_gemel.evaluation.results import read_mentions
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


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with train.spacy, test.spacy and kb in it."""
    make_corpus(tmp_path / "train.spacy", TRAIN)
    make_corpus(tmp_path / "test.spacy", TEST)
    make_kb(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def baseline(*options: object) -> Any:
    words = ["baseline", "train.spacy", "test.spacy", "--kb", "kb", "-o", "m/linker.json", "-q", *map(str, options)]
    return CliRunner().invoke(app, words)


def test_the_entity_linker(here: Path) -> None:
    done = baseline("--epochs", 2, "--vector-length", 16, "--seed", 7, "--dev", "train.spacy")
    assert done.exit_code == 0, done.output
    metrics = json.loads(Path("m/linker.json").read_text())
    settings = metrics["settings"]
    expected = {"baseline": "entity_linker", "epochs": 2, "seed": 7, "vector_length": 16, "dev": "train.spacy"}
    assert {key: settings[key] for key in expected} == expected
    assert 1 <= settings["epoch"] <= len(settings["dev_accuracy"]) == 2
    answers = [result.predicted for result in read_mentions(Path("m/linker.mentions.jsonl"))]
    # what is called by one entity only, or by none, needs no learning
    assert answers[3:] == [CAT, CARS, ELEMENT, "NIL", "NIL", "NIL", "NIL"]
    assert answers[0] in (PLANET, ELEMENT, GOD)
    assert sorted(path.name for path in here.iterdir() if path.is_dir()) == ["kb", "m"], "the linker is not saved"


def test_an_epoch_chosen_on_training_texts_held_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is trained twice: without those texts, priors included, to choose; and on all of them for so many epochs."""
    calls: list[tuple[set[str], set[str], int]] = []
    real = entity_linker.train_linker

    def noted(nlp: Any, kb: Any, training: Any, train: Any, dev: Any, options: Any, entities: Any) -> Any:
        counted = sum(sum(times.values()) for times in training.rows.values())
        texts, held = ({doc.text for doc in docs or ()} for docs in (train, dev))
        calls.append((texts, held, options.epochs))
        assert counted == sum(
            len([ent for ent in doc.ents if ent.kb_id_.startswith("Q") and ent.kb_id_ != "Q999999"]) for doc in train
        )
        return real(nlp, kb, training, train, dev, options, entities)

    monkeypatch.setattr(entity_linker, "train_linker", noted)
    assert baseline("--held-out", 0.3, "--epochs", 4, "--vector-length", 8).exit_code == 0
    everything = {text for text, _ in TRAIN}
    settings = json.loads(Path("m/linker.json").read_text())["settings"]
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
    assert baseline("--epochs", 2, "--vector-length", 16).exit_code == 0
    metrics = json.loads(Path("m/linker.json").read_text())
    alone, among = (metrics["settings"][name] for name in ("prior_alone", "gold_among_candidates"))
    # every gold but that of "JAGUAR cars", which nothing is called as it is written
    assert (among["n"], among["accuracy"]) == (7, pytest.approx(6 / 7))
    assert alone["n"] == 7
    assert alone["low"] <= alone["accuracy"] <= among["accuracy"]
    assert metrics["accuracy"] <= among["accuracy"]
    untrained = baseline("--epochs", 1, "--vector-length", 16, "--seed", 3)
    assert untrained.exit_code == 0
    assert json.loads(Path("m/linker.json").read_text())["settings"]["gold_among_candidates"] == among


def test_descriptions_by_a_sentence_encoder(here: Path, models: Path) -> None:
    done = baseline("--epochs", 1, "--encoder", models / "sentence_encoder")
    assert done.exit_code == 0, done.output
    settings = json.loads(Path("m/linker.json").read_text())["settings"]
    assert settings["vectors"] == str(models / "sentence_encoder")
    assert settings["vector_length"] != 300
    done = baseline("--encoder", here / "none")
    assert (done.exit_code, done.stderr[:7]) == (1, "error: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--held-out", 0.1, "--dev", "train.spacy"], "not both"),
        (["--held-out", -0.1], "held_out is -0.1"),
        (["-o", "m/linker.txt"], "must end in .json"),
        (["--kb", "nowhere"], "nowhere"),
        (["--dev", "nil.spacy"], "not one mention of the dev data"),
        (["--lang", "qq"], "qq"),
    ],
)
def test_mistakes_give_one_line_and_nothing_is_written(here: Path, options: list[str], message: str) -> None:
    make_corpus(here / "nil.spacy", [("Mercury", [("Mercury", "NIL")])])
    done = baseline(*options)
    assert done.exit_code == 1
    assert message in done.stderr and done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not Path("m").exists()


def test_an_interrupt_writes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entity_linker, "train_linker", stop)
    done = baseline()
    assert done.exit_code == 130
    assert "interrupted" in done.stderr
    assert not Path("m").exists()
