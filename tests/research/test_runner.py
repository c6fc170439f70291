"""The runner: each training once, what is cached stays, one failure ends no other, an interrupt loses one step."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import lock_descriptor
from thinc.api import Config
from typer.testing import CliRunner

from research import machine, worker
from research.__main__ import app
from research.cache import read_object
from research.commands import CommandFailed, run_command
from research.configs import read_config, value_at
from spacy_gemel.utils.files import lock_file
from tests.research.conftest import ROOT, FakeCommands, grid_of, write_corpus

TABLES = {
    "a": {"rows": [{"name": "full", "paper": "full"}, {"name": "text", "image": False}, {"name": "k", "k": 2}]},
    "b": {"rows": [{"name": "alias", "baseline": "alias"}, {"name": "full"}, {"name": "big", "not_run": "no weights"}]},
}
ALL = [
    "train full-42",
    "measure full-42",
    "measure full-42-no-image",
    "train k-2-42",
    "measure k-2-42",
    "baseline alias",
]


@pytest.fixture(autouse=True)
def keep_signals() -> Any:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def call(folder: Path, *options: object) -> Any:
    words = ["grid", "configs/grid.yml", "--output", "out", *map(str, options)]
    return CliRunner().invoke(app, words)


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "experiments.json").read_text())


def test_each_setting_once_and_nothing_twice(folder: Path, commands: FakeCommands) -> None:
    grid_of(folder, TABLES)
    done = call(folder)
    assert done.exit_code == 0, done.output
    assert commands.calls == ALL
    assert not list(folder.glob("out/trainings/*/model-last")) + list(folder.glob("out/**/*.partial*"))
    first = results(folder)
    commands.calls.clear()
    assert call(folder).exit_code == 0
    assert commands.calls == []
    assert results(folder) == first
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
def test_only_what_has_changed_runs_again(
    folder: Path, commands: FakeCommands, changed: str, expected: list[str]
) -> None:
    grid_of(folder, TABLES)
    call(folder)
    commands.calls.clear()
    config = folder / "configs" / "mini.cfg"
    if changed == "comment":
        config.write_text("# a comment\n" + config.read_text())
    elif changed == "config":
        config.write_text(config.read_text().replace("max_steps = 1280", "max_steps = 1281"))
    elif changed in ("test picture", "train"):
        write_corpus(folder / f"{changed.split()[0]}.spacy", 200)
    elif changed == "kb":
        (folder / "kb" / "meta.json").write_text("[]")
    elif changed == "model":
        (folder / "assets/mini/language_model/weights").write_text("x")
    elif changed == "mentions":
        (folder / "out/trials/full-42-no-image.mentions.jsonl").unlink()
    else:
        shutil.rmtree(folder / "out/trainings/k-2-42/model-best")
        (folder / "out/trials/k-2-42.json").unlink()
    assert call(folder).exit_code == 0
    assert commands.calls == expected


def test_one_failure_ends_no_other_and_is_tried_again(folder: Path, commands: FakeCommands) -> None:
    grid_of(folder, TABLES)
    commands.broken = {"train k-2": CommandFailed, "trainings/k-2-42.partial/train.cfg": CommandFailed}
    commands.broken["!full-42-no-image"] = CommandFailed
    done = call(folder)
    assert done.exit_code == 1
    assert "error: 2 trials failed: full-42-no-image, k-2-42" in done.stderr
    assert commands.calls == [*ALL[:3], "baseline alias"]
    found = results(folder)
    statuses = [row["status"] for row in found["tables"][0]["rows"]]
    assert statuses == ["run", "failed", "failed"]
    reasons = [row["reason"] for row in found["tables"][0]["rows"]]
    assert reasons[1] == "it would not"
    assert reasons[2].startswith("spacy train: because it is broken (all of it in out/trainings/k-2-42.partial/")
    assert "failed (it would not)" in (folder / "out" / "experiments.md").read_text()
    commands.broken, commands.calls = {}, []
    assert call(folder).exit_code == 0
    assert commands.calls == [ALL[2], *ALL[3:5]]


def test_a_mapper_that_did_not_learn_is_no_result(folder: Path, commands: FakeCommands) -> None:
    """Its figures would be those of an untrained one; figures without an image do not need it."""
    grid_of(folder, TABLES)
    commands.not_learning = {"full-42"}
    for again in (False, True):
        done = call(folder)
        assert done.exit_code == 1
        assert "no result: full-42: no update after the first made it better on dev data" in done.stderr
        rows = {row["name"]: row for row in results(folder)["tables"][0]["rows"]}
        assert {name: row["status"] for name, row in rows.items()} == {"full": "failed", "text": "run", "k": "run"}
        assert "accuracy" not in rows["full"]
        assert "failed (no update after the first" in (folder / "out" / "experiments.md").read_text()
        assert commands.calls == ([] if again else ALL)
        commands.calls.clear()
    done = call(folder, "--steps", 20)
    assert done.exit_code == 0, done.output


def test_a_mapper_that_was_evaluated_once_is_no_result(folder: Path, commands: FakeCommands) -> None:
    """With fewer steps than from one evaluation to the next there is none after the first update's."""
    grid_of(folder, {"t": {"rows": [{"name": "full"}]}})
    commands.evaluations = 1
    done = call(folder)
    assert done.exit_code == 1
    assert "no result: full-42: it was evaluated on dev data once" in done.stderr
    assert "smaller eval_frequency" in done.stderr


def test_dev_data_that_are_the_test_data_are_reported(folder: Path, commands: FakeCommands) -> None:
    grid_of(folder, TABLES)
    assert "dev docs are the test docs" not in call(folder).stderr + (folder / "out" / "experiments.md").read_text()
    done = call(folder, "--dev", "test.spacy", "--output", "other")
    for text in (done.stderr, *([(folder / "other" / "experiments.md").read_text()])):
        assert "The dev docs are the test docs" in text


@pytest.mark.parametrize("at", ["k-2-42.partial/train.cfg", "k-2-42/job.json", "--baseline"])
def test_an_interrupt_leaves_what_was_done_and_nothing_half(folder: Path, commands: FakeCommands, at: str) -> None:
    grid_of(folder, TABLES)
    commands.broken = {at: KeyboardInterrupt}
    done = call(folder)
    assert done.exit_code == 130
    assert "the same command continues" in done.stderr
    content = results(folder)
    assert content["interrupted"] and "Interrupted: the same" in (folder / "out" / "experiments.md").read_text()
    statuses = [row["status"] for table in content["tables"] for row in table["rows"]]
    assert statuses == ["run", "run", "run" if at == "--baseline" else "not run", "not run", "run", "not run"]
    first = commands.calls
    commands.broken, commands.calls = {}, []
    assert call(folder).exit_code == 0
    assert first + commands.calls == ALL
    assert not results(folder)["interrupted"]


def test_only_some_tables(folder: Path, commands: FakeCommands) -> None:
    """The others show what is kept of them."""
    grid_of(folder, TABLES)
    assert call(folder, "--only", "b").exit_code == 0
    assert commands.calls == ["train full-42", "measure full-42", "baseline alias"]
    rows = results(folder)["tables"][0]["rows"]
    assert [row["status"] for row in rows] == ["run", "not run", "not run"]
    assert call(folder, "--only", "z").exit_code == 1


def test_dry_run_runs_and_writes_nothing(folder: Path, commands: FakeCommands) -> None:
    grid_of(folder, TABLES, estimate={"training": 60, "evaluation": 30, "baseline": 30})
    done = call(folder, "--dry-run")
    assert done.exit_code == 0, done.output
    assert commands.calls == [] and not (folder / "out").exists()
    lines = done.stdout.splitlines()
    assert [line.split(None, 2) for line in lines[:3]] == [
        ["2.0", "min", "train, measure full-42, full-42-no-image"],
        ["1.5", "min", "train, measure k-2-42"],
        ["0.5", "min", "measure baseline-alias"],
    ]
    assert lines[-1] == "4 trials: 0 kept, 4 to run, 2 trainings; about 4 min"
    call(folder, "--only", "b")
    assert "4 trials: 2 kept, 2 to run, 1 trainings" in call(folder, "--dry-run").stdout
    (folder / "test.spacy").unlink()
    listed = call(folder, "--dry-run")
    assert listed.exit_code == 0
    assert "missing: test: " in listed.stdout and "4 to run" in listed.stdout
    refused = call(folder)
    assert refused.exit_code == 1
    assert "test.spacy: no such file or folder; make it with" in refused.stderr


def test_a_setting_without_its_section_is_refused_before_anything_runs(folder: Path, commands: FakeCommands) -> None:
    grid_of(folder, {"t": {"rows": [{"name": "a"}, {"name": "b", "set": {"trainig.max_steps": 5}}]}})
    done = call(folder)
    assert done.exit_code == 1
    assert "mini.cfg, for set-" in done.stderr and "no section [trainig] in the config" in done.stderr
    assert commands.calls == []


def test_a_try_has_a_folder_of_its_own(folder: Path, commands: FakeCommands) -> None:
    grid_of(folder, TABLES)
    assert call(folder, "--steps", 8, "--limit", 3, "--only", "a").exit_code == 0
    folder = folder / "out" / "try-steps-8-limit-3"
    assert "Only a try: training steps 8, test docs 3" in (folder / "experiments.md").read_text()
    config = read_config(folder / "trainings" / "k-2-42" / "train.cfg")
    assert value_at(config, "training.max_steps") == 8
    assert value_at(config, "training.optimizer.learn_rate.total_steps") == 8
    assert value_at(config, "components.gemel_linker.model.prefix_length") == 2
    job = json.loads((folder / "trainings" / "k-2-42" / "job.json").read_text())
    assert job["trials"][0]["options"]["limit"] == 3
    commands.calls.clear()
    assert call(folder).exit_code == 0
    assert commands.calls == ALL


def test_fresh_forgets_and_two_at_once_are_refused(folder: Path, commands: FakeCommands) -> None:
    grid_of(folder, TABLES)
    call(folder)
    with lock_file(folder / "out" / ".lock", "no"):
        done = call(folder)
    assert done.exit_code == 1 and "another process is running experiments here" in done.stderr
    commands.calls.clear()
    assert call(folder, "--fresh").exit_code == 0
    assert commands.calls == ALL


def test_fresh_forgets_the_tables_that_are_run_and_only_when_they_can_be(folder: Path, commands: FakeCommands) -> None:
    grid_of(folder, TABLES)
    call(folder)
    commands.calls.clear()
    assert "4 trials: 0 kept, 4 to run, 2 trainings" in call(folder, "--fresh", "--dry-run").stdout
    (folder / "test.spacy").rename(folder / "away.spacy")
    assert call(folder, "--fresh").exit_code == 1
    (folder / "away.spacy").rename(folder / "test.spacy")
    with lock_file(folder / "out" / ".lock", "no"):
        assert call(folder, "--fresh").exit_code == 1
    assert call(folder).exit_code == 0
    assert commands.calls == [], "what could not run has forgotten nothing"
    assert call(folder, "--fresh", "--only", "b").exit_code == 0
    assert commands.calls == ["train full-42", "measure full-42", "baseline alias"]
    commands.calls.clear()
    assert call(folder).exit_code == 0
    assert commands.calls == [], "the other table's trials are kept"


def test_a_trial_that_kills_its_process_takes_no_other_with_it(folder: Path, commands: FakeCommands) -> None:
    grid_of(folder, TABLES)
    commands.killed = {"full-42"}
    done = call(folder)
    assert done.exit_code == 1
    assert "error: 1 trials failed: full-42\n" in done.stderr
    assert commands.calls == ALL
    rows = results(folder)["tables"][0]["rows"]
    assert [row["status"] for row in rows] == ["failed", "run", "run"]
    assert "ended by signal 9 (all of it in out/trainings/full-42/measuring.log)" in rows[0]["reason"]
    commands.calls.clear()
    assert call(folder).exit_code == 1
    assert commands.calls == ["measure full-42"]
    commands.killed = {"loading"}
    assert call(folder).exit_code == 1
    assert "full-42" in results(folder)["failed"]


def test_a_process_that_is_killed_before_the_pipeline_is_there_is_not_started_again(
    folder: Path, commands: FakeCommands
) -> None:
    """It would be killed for each trial, after a long time."""
    grid_of(folder, TABLES)
    commands.killed = {"loading"}
    done = call(folder, "--only", "a")
    assert "error: 3 trials failed: full-42, full-42-no-image, k-2-42" in done.stderr
    assert [name for name in commands.calls if name.startswith("measure")] == []
    assert not list(folder.glob("out/trainings/*/measuring-2.log"))


def test_a_failure_is_remembered_with_its_reason(folder: Path, commands: FakeCommands) -> None:
    """By a run of another table; not once what it reads has changed, nor once it has succeeded."""
    grid_of(folder, TABLES)
    commands.broken = {"!full-42-no-image": CommandFailed}
    call(folder)
    assert call(folder, "--only", "b").exit_code == 0
    row = results(folder)["tables"][0]["rows"][1]
    assert (row["status"], row["reason"]) == ("failed", "it would not")
    assert "failed (it would not)" in (folder / "out" / "experiments.md").read_text()
    write_corpus(folder / "test.spacy", 200)
    call(folder, "--only", "b")
    assert results(folder)["tables"][0]["rows"][1]["status"] == "not run"
    commands.broken = {}
    call(folder)
    (folder / "out" / "trials" / "full-42-no-image.json").unlink()
    call(folder, "--only", "b")
    assert results(folder)["tables"][0]["rows"][1]["status"] == "not run"


@pytest.mark.parametrize("content", [b"[1]", b"\xff\xfe\x00"])
def test_damaged_files_are_not_used_and_stop_nothing(folder: Path, commands: FakeCommands, content: bytes) -> None:
    grid_of(folder, TABLES)
    call(folder)
    tables = results(folder)["tables"]
    for name in ("trials/full-42", "trials/baseline-alias", "trainings/k-2-42/trial", "digests", "failures", "made_of"):
        (folder / "out" / f"{name}.json").write_bytes(content)
    commands.calls.clear()
    assert call(folder, "--dry-run").exit_code == 0
    done = call(folder)
    assert done.exit_code == 0, done.output
    assert commands.calls == ["measure full-42", "baseline alias"]
    assert results(folder)["tables"] == tables


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_mentions_that_are_not_whole_are_measured_again(folder: Path, commands: FakeCommands, damage: str) -> None:
    """Cut at a line's end they would be read, and counted as so many fewer."""
    grid_of(folder, TABLES)
    call(folder)
    mentions = folder / "out" / "trials" / "full-42.mentions.jsonl"
    lines = mentions.read_bytes().splitlines(keepends=True)
    five = b"".join(lines[:5])
    if damage == "cut":
        mentions.write_bytes(five)
    else:
        mentions.unlink()
    commands.calls.clear()
    call(folder, "--only", "b")
    assert commands.calls == ["measure full-42"]
    assert results(folder)["tables"][0]["rows"][0]["n"] == 40
    mentions.write_bytes(five)
    grid_of(folder, {"c": {"rows": [{"name": "k", "k": 2}]}, **TABLES})
    call(folder, "--only", "c")
    assert results(folder)["tables"][1]["rows"][0]["status"] == "not run", "a table that is not run shows no part of it"


def test_trials_of_other_data_are_not_replaced(folder: Path, commands: FakeCommands) -> None:
    grid_of(folder, TABLES)
    call(folder)
    write_corpus(folder / "theirs.spacy", 90)
    commands.calls.clear()
    for more in ((), ("--fresh",)):
        refused = call(folder, "--train", "theirs.spacy", *more)
        assert refused.exit_code == 1
        assert "--output out holds trials of train ../train.spacy and not ../theirs.spacy" in refused.stderr
        assert "give another --output" in refused.stderr
    assert commands.calls == []
    assert call(folder).exit_code == 0
    assert commands.calls == [], "nothing was taken away"
    (folder / "train.spacy").rename(folder / "moved.spacy")
    assert call(folder, "--train", "moved.spacy").exit_code == 0
    assert commands.calls == [], "the same data by another name are the same"


def test_a_baseline_gets_its_options_and_the_configs_language(folder: Path, commands: FakeCommands) -> None:
    config = folder / "configs" / "mini.cfg"
    config.write_text(config.read_text().replace('lang = "en"', 'lang = "de"'))
    (folder / "configs" / "encoder").mkdir()
    (folder / "configs" / "encoder" / "config.json").write_text("{}")
    linker = {"kind": "entity_linker", "encoder": "encoder", "epochs": 3, "seed": 7}
    rows = [
        {"name": "linker", "baseline": linker},
        {"name": "alias", "baseline": {"kind": "alias", "ignore_case": True}},
        {"name": "held out", "baseline": {**linker, "held_out": 0.1}},
    ]
    grid_of(folder, {"t": {"rows": rows}})
    assert call(folder).exit_code == 0
    message = [words[words.index("--lang") :] for words in commands.options]
    dev = ["--dev", "dev.spacy"]
    options = ["--epochs", "3", "--seed", "7", "--encoder", "configs/encoder"]
    assert message == [
        ["--lang", "de", "--quiet", *dev, *options],
        ["--lang", "de", "--quiet", "--ignore-case"],
        ["--lang", "de", "--quiet", *options, "--held-out", "0.1"],
    ]
    commands.options.clear()
    (folder / "configs" / "encoder" / "config.json").write_text('{"other": 1}')
    assert call(folder).exit_code == 0
    assert len(commands.options) == 2, "those with the encoder"
    commands.options.clear()
    config.write_text(config.read_text().replace('lang = "de"', 'lang = "fr"'))
    assert call(folder).exit_code == 0
    assert len(commands.options) == 3


def test_an_output_that_cannot_be_a_folder(folder: Path, commands: FakeCommands) -> None:
    grid_of(folder, TABLES)
    (folder / "file").write_text("")
    done = call(folder, "--output", "file/below/it", "--dry-run")
    assert done.exit_code == 1
    message = "file is a file; name a folder, or one that does not exist"
    assert done.stderr == f"error: --output file/below/it: {message}\n"
    assert call(folder, "--output", "a/b/c").exit_code == 0 and (folder / "a/b/c/experiments.md").is_file()


def test_a_model_folder_without_a_slash(folder: Path, commands: FakeCommands) -> None:
    """It is found beside the grid, read from where the training runs, and part of the key."""
    grid_of(
        folder,
        {"t": {"rows": [{"name": "a", "language_model": "mine", "retriever": "mine"}]}},
        entities="../entities.jsonl",
        language_models={"mine": {"name": "lm"}},
        retrievers={"mine": {"@misc": "spacy_gemel.SentenceTransformerRetriever.v1", "name": "encoder"}},
    )
    (folder / "entities.jsonl").write_text("{}\n")
    for name in ("lm", "encoder"):
        (folder / "configs" / name).mkdir()
        (folder / "configs" / name / "config.json").write_text("{}")
    assert call(folder).exit_code == 0
    assert commands.calls[0] == "build-kb configs/lm"
    training = folder / "out" / "trainings" / "language-mine-retriever-mine-42"
    config = read_config(training / "train.cfg")
    for block, name in (("language_model", "lm"), ("retriever", "encoder")):
        found = value_at(config, f"components.gemel_linker.{block}.name")
        assert (training / found).resolve() == folder / "configs" / name
    for name in ("lm", "encoder"):
        commands.calls.clear()
        (folder / "configs" / name / "config.json").write_text('{"other": 1}')
        assert call(folder).exit_code == 0
        assert "train language-mine-retriever-mine-42" in commands.calls


def test_a_model_that_a_variable_names_counts_by_its_name_and_its_files(folder: Path, commands: FakeCommands) -> None:
    config = read_config(folder / "configs" / "mini.cfg")
    config["paths"]["language_model"] = "../assets/mini/language_model"
    config["components"]["gemel_linker"]["language_model"]["name"] = "${paths.language_model}"
    Config(config).to_disk(folder / "configs" / "mini.cfg", interpolate=False)
    grid_of(folder, {"t": {"rows": [{"name": "full"}]}})
    expected = ["train full-42", "measure full-42"]
    assert call(folder).exit_code == 0
    assert commands.calls == expected
    commands.calls.clear()
    assert call(folder).exit_code == 0
    assert commands.calls == []
    (folder / "assets" / "mini" / "language_model" / "config.json").write_text('{"other": 1}')
    assert call(folder).exit_code == 0
    assert commands.calls == expected
    commands.calls.clear()
    config["paths"]["language_model"] = "org/another"
    Config(config).to_disk(folder / "configs" / "mini.cfg", interpolate=False)
    assert call(folder).exit_code == 0
    assert commands.calls == expected


def test_another_language_model_gets_a_knowledge_base_of_its_own(folder: Path, commands: FakeCommands) -> None:
    tables = {"t": {"rows": [{"name": "a", "language_model": "OPT"}, {"name": "b", "language_model": "OPT", "k": 2}]}}
    (folder / "models" / "opt").mkdir(parents=True)
    (folder / "models" / "opt" / "config.json").write_text("{}")
    grid_of(folder, tables, language_models={"OPT": {"name": "../models/opt", "dtype": "float32"}})
    refused = call(folder)
    assert refused.exit_code == 1
    assert "rows with another language model need a knowledge base for its tokenizer" in refused.stderr
    (folder / "entities.jsonl").write_text("{}\n")
    assert call(folder, "--entities", "entities.jsonl").exit_code == 0
    builds = [call for call in commands.calls if call.startswith("build-kb")]
    assert builds == ["build-kb models/opt"]
    config = read_config(folder / "out" / "trainings" / "language-OPT-42" / "train.cfg")
    name = value_at(config, "components.gemel_linker.language_model.name")
    assert (folder / "out" / "trainings" / "language-OPT-42" / name).resolve() == folder / "models" / "opt"
    assert not Path(name).is_absolute()
    os.utime(folder / "entities.jsonl")
    commands.calls.clear()
    assert call(folder, "--entities", "entities.jsonl").exit_code == 0
    assert commands.calls == []


CALLER = """
import sys
from pathlib import Path
from research import runner
from research.grid.grid import read_grid
from research.grid.tables import Experiments

real = runner.run_command

def slow(root, *arguments, log=None, keep_open=()):
    code = "import os, signal; print(os.getpid(), file=open('started', 'w'), flush=True); signal.pause()"
    real(root, "-c", code, log=log, keep_open=keep_open)

runner.run_command = slow
grid = read_grid(Path("configs/grid.yml"))
Experiments(grid, Path("out")).run(grid.tables)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a command inherits no lock there")
def test_a_training_that_outlives_a_killed_run_keeps_the_folder(folder: Path) -> None:
    """Or the next run would train into the same folder beside it."""
    grid_of(folder, {"t": {"rows": [{"name": "full"}]}})
    os.mkfifo(folder / "started")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    caller = subprocess.Popen([sys.executable, "-c", CALLER], stderr=subprocess.DEVNULL, env=environment)
    child = int((folder / "started").read_text())  # the pipe opens when the training has started
    try:
        caller.send_signal(signal.SIGKILL)
        assert caller.wait() == -signal.SIGKILL
        refused = call(folder)
        assert refused.exit_code == 1
        assert "a command that outlived the one it was started by; wait for it" in " ".join(refused.stderr.split())
        assert (folder / "out" / "trainings" / "full-42.partial").is_dir()
    finally:
        os.kill(child, signal.SIGKILL)
    with (folder / "out" / ".lock").open("a") as lock:
        lock_descriptor(lock.fileno())  # returns when the training has gone


def test_a_worker_records_which_trial_it_is_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file that appears after the pipeline is loaded: a killed worker fails that trial alone."""
    monkeypatch.chdir(tmp_path)
    trials = [{"output": f"{name}.json", "key": "x", "options": {}, "trial": {"id": name}} for name in ("a", "b", "c")]
    (tmp_path / "job.json").write_text(json.dumps({"pipeline": "p", "data": "d", "gpu_id": -1, "trials": trials}))
    current: list[str] = []

    def load(*arguments: Any, **options: Any) -> None:
        assert not (tmp_path / "at.json").exists()

    def evaluate(*arguments: Any, **options: Any) -> tuple[dict[str, Any], list[Any]]:
        current.append(read_object(tmp_path / "at.json")["output"])
        if current[-1] == "b.json":
            raise SystemExit(9)
        return {"n": 0}, []

    monkeypatch.setattr(worker, "load_pipeline", load)
    monkeypatch.setattr(worker, "evaluate", evaluate)
    with pytest.raises(SystemExit):
        worker.main(["job.json"])
    assert current == ["a.json", "b.json"]
    assert not (tmp_path / "errors.json").exists()
    assert (tmp_path / "a.json").is_file() and not (tmp_path / "b.json").exists()


def test_the_reason_of_a_failed_command(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("Traceback\n│ Error: it is so │\n╰────╯\n\n")
    assert CommandFailed(["x"], 1, log).reason == "Error: it is so"
    assert CommandFailed(["x"], -9, log).reason == "ended by signal 9"
    log.write_text("")
    assert CommandFailed(["x"], 3, log).reason == "ended with 3"
    with log.open("w") as file, pytest.raises(RuntimeError, match=r"ended with 3.*\nbecause"):
        run_command(tmp_path, "-c", "print('because'); raise SystemExit(3)", log=file)


def test_results_that_are_kept_have_their_machine(
    folder: Path, commands: FakeCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall time is that of a run of all trials in one go."""
    monkeypatch.setattr(machine, "describe_machine", lambda: {"cores": 2})
    grid_of(folder, TABLES)
    for more, in_one_go in (((), True), ((), False), (("--fresh",), True)):
        assert call(folder, "--keep", "kept", *more).exit_code == 0
        content = json.loads((folder / "kept" / "experiments.json").read_text())
        assert content["machine"] == {"cores": 2}
        assert (content["wall_seconds"] is not None) == in_one_go
        assert content["tables"] == results(folder)["tables"]
