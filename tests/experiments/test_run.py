"""Running a grid: each training once, what is kept stays, one failure ends no other, an interrupt loses one step."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spacy_gemel.cli import app
from spacy_gemel.experiments.configs import read_config, value_at
from spacy_gemel.experiments.processes import CommandFailed
from spacy_gemel.locks import held
from tests.experiments.conftest import Pretender, grid_of, write_corpus

TABLES = {
    "a": {"rows": [{"name": "full", "paper": "full"}, {"name": "text", "image": False}, {"name": "k", "k": 2}]},
    "b": {"rows": [{"name": "alias", "peer": "alias"}, {"name": "full"}, {"name": "big", "not_run": "no weights"}]},
}
ALL = ["train full-42", "measure full-42", "measure full-42-no-image", "train k-2-42", "measure k-2-42", "peer alias"]


@pytest.fixture(autouse=True)
def keep_signals() -> Any:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def call(place: Path, *options: object) -> Any:
    words = ["experiments", "configs/grid.yml", "--output", "out", *map(str, options)]
    return CliRunner().invoke(app, words)


def results(place: Path, folder: str = "out") -> dict[str, Any]:
    return json.loads((place / folder / "experiments.json").read_text())


def test_each_setting_once_and_nothing_twice(place: Path, pretender: Pretender) -> None:
    grid_of(place, TABLES)
    done = call(place)
    assert done.exit_code == 0, done.output
    assert pretender.calls == ALL
    assert not list(place.glob("out/trainings/*/model-last")) + list(place.glob("out/**/*.partial*"))
    first = results(place)
    pretender.calls.clear()
    assert call(place).exit_code == 0
    assert pretender.calls == []
    assert results(place) == first
    rows = {row["name"]: row for table in first["tables"] for row in table["rows"]}
    assert (rows["text"]["n"], rows["text"]["accuracy"], rows["big"]["status"]) == (40, 0.75, "not run")
    assert first["seconds"] >= 6


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("comment", []),
        ("test picture", [call for call in ALL if not call.startswith("train")]),
        ("train", ALL),
        ("kb", ALL),
        ("model", ALL[:-1]),
        ("config", ALL[:-1]),
        ("k's pipeline", ALL[3:5]),
        ("mentions", ALL[2:3]),
    ],
)
def test_only_what_has_changed_runs_again(place: Path, pretender: Pretender, changed: str, expected: list[str]) -> None:
    grid_of(place, TABLES)
    call(place)
    pretender.calls.clear()
    config = place / "configs" / "mini.cfg"
    if changed == "comment":
        config.write_text("# a comment\n" + config.read_text())
    elif changed == "config":
        config.write_text(config.read_text().replace("max_steps = 1280", "max_steps = 1281"))
    elif changed in ("test picture", "train"):
        write_corpus(place / f"{changed.split()[0]}.spacy", 200)
    elif changed == "kb":
        (place / "kb" / "meta.json").write_text("[]")
    elif changed == "model":
        (place / "assets/mini/language_model/weights").write_text("x")
    elif changed == "mentions":
        (place / "out/trials/full-42-no-image.mentions.jsonl").unlink()
    else:
        (place / "out/trainings/k-2-42/model-best").rmdir()
        (place / "out/trials/k-2-42.json").unlink()
    assert call(place).exit_code == 0
    assert pretender.calls == expected


def test_one_failure_ends_no_other_and_is_tried_again(place: Path, pretender: Pretender) -> None:
    grid_of(place, TABLES)
    pretender.broken = {"train k-2": CommandFailed, "trainings/k-2-42.partial/train.cfg": CommandFailed}
    pretender.broken["!full-42-no-image"] = CommandFailed
    done = call(place)
    assert done.exit_code == 1
    assert "error: 2 trials failed: full-42-no-image, k-2-42" in done.stderr
    assert pretender.calls == [*ALL[:3], "peer alias"]
    found = results(place)
    statuses = [row["status"] for row in found["tables"][0]["rows"]]
    assert statuses == ["run", "failed", "failed"]
    reasons = [row["reason"] for row in found["tables"][0]["rows"]]
    assert reasons[1] == "it would not"
    assert reasons[2].startswith("spacy train: because it is broken (all of it in out/trainings/k-2-42.partial/")
    assert "failed (it would not)" in (place / "out" / "experiments.md").read_text()
    pretender.broken, pretender.calls = {}, []
    assert call(place).exit_code == 0
    assert pretender.calls == [ALL[2], *ALL[3:5]]


@pytest.mark.parametrize("at", ["k-2-42.partial/train.cfg", "k-2-42/job.json", "peer"])
def test_an_interrupt_leaves_what_was_done_and_nothing_half(place: Path, pretender: Pretender, at: str) -> None:
    grid_of(place, TABLES)
    pretender.broken = {at: KeyboardInterrupt}
    done = call(place)
    assert done.exit_code == 130
    assert "the same command goes on" in done.stderr
    assert not (place / "out" / "experiments.json").exists()
    before = pretender.calls
    pretender.broken, pretender.calls = {}, []
    assert call(place).exit_code == 0
    assert before + pretender.calls == ALL


def test_only_some_tables(place: Path, pretender: Pretender) -> None:
    """The others show what is kept of them."""
    grid_of(place, TABLES)
    assert call(place, "--only", "b").exit_code == 0
    assert pretender.calls == ["train full-42", "measure full-42", "peer alias"]
    rows = results(place)["tables"][0]["rows"]
    assert [row["status"] for row in rows] == ["run", "not run", "not run"]
    assert call(place, "--only", "z").exit_code == 1


def test_dry_run_runs_and_writes_nothing(place: Path, pretender: Pretender) -> None:
    grid_of(place, TABLES, estimate={"training": 60, "evaluation": 30, "peer": 30})
    done = call(place, "--dry-run")
    assert done.exit_code == 0, done.output
    assert pretender.calls == [] and not (place / "out").exists()
    lines = done.stdout.splitlines()
    assert [line.split(None, 2) for line in lines[:3]] == [
        ["2.0", "min", "train, measure full-42, full-42-no-image"],
        ["1.5", "min", "train, measure k-2-42"],
        ["0.5", "min", "measure peer-alias"],
    ]
    assert lines[-1] == "4 trials: 0 kept, 4 to run, 2 trainings; about 4 min"
    call(place, "--only", "b")
    assert "4 trials: 2 kept, 2 to run, 1 trainings" in call(place, "--dry-run").stdout
    (place / "test.spacy").unlink()
    listed = call(place, "--dry-run")
    assert listed.exit_code == 0
    assert "missing: test: " in listed.stdout and "4 to run" in listed.stdout
    refused = call(place)
    assert refused.exit_code == 1
    assert "test.spacy: no such file or folder; make it with" in refused.stderr


def test_a_setting_without_its_section_is_refused_before_anything_runs(place: Path, pretender: Pretender) -> None:
    grid_of(place, {"t": {"rows": [{"name": "a"}, {"name": "b", "set": {"trainig.max_steps": 5}}]}})
    done = call(place)
    assert done.exit_code == 1
    assert "mini.cfg, for set-" in done.stderr and "no section [trainig] in the config" in done.stderr
    assert pretender.calls == []


def test_a_try_has_a_folder_of_its_own(place: Path, pretender: Pretender) -> None:
    grid_of(place, TABLES)
    assert call(place, "--steps", 8, "--limit", 3, "--only", "a").exit_code == 0
    folder = place / "out" / "try-steps-8-limit-3"
    assert "Only a try: training steps 8, test docs 3" in (folder / "experiments.md").read_text()
    config = read_config(folder / "trainings" / "k-2-42" / "train.cfg")
    assert value_at(config, "training.max_steps") == 8
    assert value_at(config, "training.optimizer.learn_rate.total_steps") == 8
    assert value_at(config, "components.gemel_linker.model.prefix_length") == 2
    job = json.loads((folder / "trainings" / "k-2-42" / "job.json").read_text())
    assert job["trials"][0]["options"]["limit"] == 3
    pretender.calls.clear()
    assert call(place).exit_code == 0
    assert pretender.calls == ALL


def test_fresh_forgets_and_two_at_once_are_refused(place: Path, pretender: Pretender) -> None:
    grid_of(place, TABLES)
    call(place)
    with held(place / "out" / ".lock", "no"):
        done = call(place)
    assert done.exit_code == 1 and "another process is running experiments here" in done.stderr
    pretender.calls.clear()
    assert call(place, "--fresh").exit_code == 0
    assert pretender.calls == ALL


def test_another_language_model_gets_a_knowledge_base_of_its_own(place: Path, pretender: Pretender) -> None:
    tables = {"t": {"rows": [{"name": "a", "language_model": "OPT"}, {"name": "b", "language_model": "OPT", "k": 2}]}}
    (place / "models" / "opt").mkdir(parents=True)
    (place / "models" / "opt" / "config.json").write_text("{}")
    grid_of(place, tables, language_models={"OPT": {"name": "../models/opt", "dtype": "float32"}})
    refused = call(place)
    assert refused.exit_code == 1
    assert "rows with another language model need a knowledge base for its tokenizer" in refused.stderr
    (place / "entities.jsonl").write_text("{}\n")
    assert call(place, "--entities", "entities.jsonl").exit_code == 0
    builds = [call for call in pretender.calls if call.startswith("build-kb")]
    assert builds == ["build-kb models/opt"]
    config = read_config(place / "out" / "trainings" / "language-OPT-42" / "train.cfg")
    name = value_at(config, "components.gemel_linker.language_model.name")
    assert (place / "out" / "trainings" / "language-OPT-42" / name).resolve() == place / "models" / "opt"
    assert not Path(name).is_absolute()
    os.utime(place / "entities.jsonl")
    pretender.calls.clear()
    assert call(place, "--entities", "entities.jsonl").exit_code == 0
    assert pretender.calls == []
