"""spaCy's own commands on a pipeline with a linker; a config of one line is filled and goes through all of them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import spacy
from spacy.cli._util import app as spacy_app
from spacy.tokens import DocBin
from thinc.api import Config
from typer.testing import CliRunner

from spacy_gemel.pipeline.gemel_linker import DEFAULT_CONFIG
from tests.mini_pipeline import LINKER, captions, is_linked, make_config

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    code: int
    output: str


def call(*arguments: object, program: bool = False) -> Done:
    """spaCy's command line in this process, or as `python -m spacy` in one of its own."""
    words = [str(argument) for argument in arguments]
    if program:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "spacy", *words], capture_output=True, text=True, env=environment, timeout=300
        )
        return Done(done.returncode, done.stdout + done.stderr)
    result = CliRunner().invoke(spacy_app, words)
    return Done(result.exit_code, result.output + (f"\n{result.exception!r}" if result.exception else ""))


def partial(models: Path, kb: Path) -> Config:
    """What a user writes: the linker and its models, the reader, the knowledge base."""
    reader = {"@readers": "spacy_gemel.MultimodalCorpus.v1", "gold_ents": True}
    return Config(
        {
            "nlp": {"lang": "en", "pipeline": [LINKER]},
            "components": {LINKER: {"factory": LINKER, **make_config(models)}},
            "corpora": {name: {**reader, "path": f"${{paths.{name}}}"} for name in ("train", "dev")},
            "training": {"max_steps": 4, "eval_frequency": 2},
            "initialize": {
                "components": {LINKER: {"kb_loader": {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(kb)}}}
            },
        }
    )


@pytest.fixture(scope="module")
def config(models: Path, kb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled config."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "partial.cfg").write_text(partial(models, kb).to_str())
    done = call("init", "fill-config", folder / "partial.cfg", folder / "full.cfg")
    assert done.code == 0, done.output
    return folder / "full.cfg"


@pytest.fixture(scope="module")
def paths(corpus: Path) -> list[str]:
    return ["--paths.train", str(corpus), "--paths.dev", str(corpus)]


def test_a_config_of_one_line_is_filled(tmp_path: Path) -> None:
    short = {"nlp": {"lang": "en", "pipeline": [LINKER]}, "components": {LINKER: {"factory": LINKER}}}
    (tmp_path / "a.cfg").write_text(Config(short).to_str())
    done = call("init", "fill-config", tmp_path / "a.cfg", tmp_path / "b.cfg")
    assert done.code == 0, done.output
    filled = Config().from_disk(tmp_path / "b.cfg")
    linker = filled["components"][LINKER]
    assert linker.keys() == {"factory", *DEFAULT_CONFIG}
    settings = {"@misc", "name", "revision", "device", "dtype", "bos", "quantization"}
    assert linker["language_model"].keys() == settings
    expected = {"nel_micro_f": 1.0, "nel_micro_r": None, "nel_micro_p": None, "nel_nil_f": 0.0}
    assert filled["training"]["score_weights"] == expected


def test_debug_config(config: Path, paths: list[str]) -> None:
    done = call("debug", "config", config, *paths)
    assert done.code == 0, done.output
    assert "Config is valid" in done.output


def test_debug_config_names_what_is_wrong(config: Path, tmp_path: Path, paths: list[str]) -> None:
    for name, value in {"beams": 5, "beam_size": "many"}.items():
        wrong = Config().from_disk(config, interpolate=False)
        wrong["components"][LINKER][name] = value
        (tmp_path / "wrong.cfg").write_text(wrong.to_str())
        done = call("debug", "config", tmp_path / "wrong.cfg", *paths)
        assert done.code == 1
        assert f"{LINKER} -> {name}" in done.output


def test_debug_data(config: Path, paths: list[str]) -> None:
    """It has nothing to say of a linker, but takes the reader's data and initializes the pipe with them."""
    done = call("debug", "data", config, *paths)
    assert done.code == 0, done.output
    assert "Pipeline can be initialized with data" in done.output
    assert "Corpus is loadable" in done.output
    assert "108 training docs" in done.output


@pytest.fixture(scope="module")
def best(config: Path, paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m spacy train` leaves, run as a program."""
    folder = tmp_path_factory.mktemp("training")
    done = call("train", config, "--output", folder, *paths, program=True)
    assert done.code == 0, done.output
    assert "NEL_MICRO_F" in done.output
    return folder / "model-best"


def test_train(best: Path) -> None:
    nlp = spacy.load(best)
    assert is_linked(nlp(captions(nlp)[0]))
    meta = json.loads((best / "meta.json").read_text())
    assert meta["performance"].keys() >= {"nel_micro_f", "nel_micro_p", "nel_micro_r", "gemel_linker_loss"}
    assert meta["performance"]["gemel_linker_loss"] > 0


def test_assemble_takes_a_trained_linker(best: Path, tmp_path: Path) -> None:
    patterns = [{"label": "ENT", "pattern": "Mercury"}]
    parts = {
        "nlp": {"lang": "en", "pipeline": ["entity_ruler", LINKER]},
        "components": {"entity_ruler": {"factory": "entity_ruler"}, LINKER: {"source": str(best)}},
        "initialize": {"components": {"entity_ruler": {"patterns": patterns}}},
    }
    (tmp_path / "parts.cfg").write_text(Config(parts).to_str())
    done = call("assemble", tmp_path / "parts.cfg", tmp_path / "assembled")
    assert done.code == 0, done.output
    nlp = spacy.load(tmp_path / "assembled")
    assert nlp.pipe_names == ["entity_ruler", LINKER]
    doc = nlp("Mercury is far.")
    assert is_linked(doc)
    assert doc.ents[0]._.gemel_candidates == spacy.load(best)(doc.copy()).ents[0]._.gemel_candidates


def test_assemble_makes_no_linker_out_of_nothing(config: Path, paths: list[str], tmp_path: Path) -> None:
    done = call("assemble", config, tmp_path / "assembled", *paths)
    assert done.code == 1
    assert "no training data" in done.output
    assert 'source = "' in done.output
    assert not (tmp_path / "assembled").exists()


@pytest.mark.parametrize("command", [["evaluate"], ["benchmark", "accuracy"]])
def test_evaluate_and_benchmark_accuracy_never_score_the_text_alone(
    best: Path, corpus: Path, tmp_path: Path, command: list[str]
) -> None:
    done = call(*command, best, corpus, "--output", tmp_path / "metrics.json")
    assert done.code == 1
    assert "108 of 108 docs have an image in the gold that the linker was not given" in done.output
    assert "python -m spacy_gemel evaluate" in done.output
    assert not (tmp_path / "metrics.json").exists()


def test_find_threshold(best: Path, corpus: Path, tmp_path: Path) -> None:
    """It works through the config where there are no images; where they would be lost it names what keeps them."""
    nlp = spacy.load(best)
    nlp.add_pipe("entity_ruler", before=LINKER).add_patterns([{"label": "ENT", "pattern": "Mercury"}])
    nlp.to_disk(tmp_path / "ruled")
    answers = [nlp(f"Number {number} is Mercury.") for number in range(6)]  # its own answers are the golds
    DocBin(docs=answers).to_disk(tmp_path / "text.spacy")
    words = [LINKER, "threshold", "nel_micro_r", "--n_trials", "3"]
    done = call("find-threshold", tmp_path / "ruled", tmp_path / "text.spacy", *words)
    assert done.code == 0, done.output
    table = dict(re.findall(r"^([\d.]+) +([\d.]+)", done.output, re.MULTILINE))
    assert list(table) == ["0.0", "0.5", "1.0"]
    assert (table["0.0"], table["1.0"]) == ("1.0", "0.0")  # no candidate is certain
    done = call("find-threshold", tmp_path / "ruled", corpus, *words)
    assert done.code == 1
    assert "python -m spacy_gemel fit-decision" in done.output


def test_benchmark_speed(best: Path, corpus: Path) -> None:
    done = call("benchmark", "speed", best, corpus, "--batches", 30, "-b", 2, "--warmup", 1)
    assert done.code == 0, done.output
    assert "words/s" in done.output


def test_training_goes_on_from_a_trained_linker(best: Path, config: Path, paths: list[str], tmp_path: Path) -> None:
    """source = in place of factory =, and frozen: nothing of it changes; not frozen: its mapper does."""
    weights = {}
    for frozen in (True, False):
        changed = Config().from_disk(config, interpolate=False)
        changed["components"][LINKER] = {"source": str(best)}
        changed["training"]["frozen_components"] = [LINKER] if frozen else []
        (tmp_path / "more.cfg").write_text(changed.to_str())
        done = call("train", tmp_path / "more.cfg", "--output", tmp_path / str(frozen), *paths)
        assert done.code == 0, done.output
        weights[frozen] = (tmp_path / str(frozen) / "model-last" / LINKER / "model").read_bytes()
    before = (best / LINKER / "model").read_bytes()
    assert weights[True] == before
    assert weights[False] != before


def test_training_with_spacys_own_reader_says_so_before_it_learns_much(
    config: Path, corpus: Path, paths: list[str], tmp_path: Path
) -> None:
    changed = Config().from_disk(config, interpolate=False)
    changed["corpora"]["dev"] = {"@readers": "spacy.Corpus.v1", "path": str(corpus)}
    (tmp_path / "plain.cfg").write_text(changed.to_str())
    done = call("train", tmp_path / "plain.cfg", *paths)
    assert done.code == 1
    assert "MultimodalCorpus" in done.output
