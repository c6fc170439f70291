"""Running a grid: each training once, what is kept stays, one failure ends no other, an interrupt loses one step."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from thinc.api import Config
from typer.testing import CliRunner

from research.grid.configs import read_config, value_at
from research.grid.processes import CommandFailed
from spacy_gemel.__main__ import app
from spacy_gemel.utils.files import lock_file
from tests.research.grid.conftest import Pretender, grid_of, write_corpus

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


def call(index: Path, *options: object) -> Any:
    words = ["experiments", "configs/grid.yml", "--output", "out", *map(str, options)]
    return CliRunner().invoke(app, words)


def results(index: Path, folder: str = "out") -> dict[str, Any]:
    return json.loads((index / folder / "experiments.json").read_text())


def test_each_setting_once_and_nothing_twice(index: Path, pretender: Pretender) -> None:
    grid_of(index, TABLES)
    done = call(index)
    assert done.exit_code == 0, done.output
    assert pretender.calls == ALL
    assert not list(index.glob("out/trainings/*/model-last")) + list(index.glob("out/**/*.partial*"))
    first = results(index)
    pretender.calls.clear()
    assert call(index).exit_code == 0
    assert pretender.calls == []
    assert results(index) == first
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
def test_only_what_has_changed_runs_again(index: Path, pretender: Pretender, changed: str, expected: list[str]) -> None:
    grid_of(index, TABLES)
    call(index)
    pretender.calls.clear()
    config = index / "configs" / "mini.cfg"
    if changed == "comment":
        config.write_text("# a comment\n" + config.read_text())
    elif changed == "config":
        config.write_text(config.read_text().replace("max_steps = 1280", "max_steps = 1281"))
    elif changed in ("test picture", "train"):
        write_corpus(index / f"{changed.split()[0]}.spacy", 200)
    elif changed == "kb":
        (index / "kb" / "meta.json").write_text("[]")
    elif changed == "model":
        (index / "assets/mini/language_model/weights").write_text("x")
    elif changed == "mentions":
        (index / "out/trials/full-42-no-image.mentions.jsonl").unlink()
    else:
        shutil.rmtree(index / "out/trainings/k-2-42/model-best")
        (index / "out/trials/k-2-42.json").unlink()
    assert call(index).exit_code == 0
    assert pretender.calls == expected


def test_one_failure_ends_no_other_and_is_tried_again(index: Path, pretender: Pretender) -> None:
    grid_of(index, TABLES)
    pretender.broken = {"train k-2": CommandFailed, "trainings/k-2-42.partial/train.cfg": CommandFailed}
    pretender.broken["!full-42-no-image"] = CommandFailed
    done = call(index)
    assert done.exit_code == 1
    assert "error: 2 trials failed: full-42-no-image, k-2-42" in done.stderr
    assert pretender.calls == [*ALL[:3], "peer alias"]
    found = results(index)
    statuses = [row["status"] for row in found["tables"][0]["rows"]]
    assert statuses == ["run", "failed", "failed"]
    reasons = [row["reason"] for row in found["tables"][0]["rows"]]
    assert reasons[1] == "it would not"
    assert reasons[2].startswith("spacy train: because it is broken (all of it in out/trainings/k-2-42.partial/")
    assert "failed (it would not)" in (index / "out" / "experiments.md").read_text()
    pretender.broken, pretender.calls = {}, []
    assert call(index).exit_code == 0
    assert pretender.calls == [ALL[2], *ALL[3:5]]


def test_a_mapper_that_did_not_learn_is_no_result(index: Path, pretender: Pretender) -> None:
    """Its figures would be those of an untrained one; what is told without an image does not need it."""
    grid_of(index, TABLES)
    pretender.learns_nothing = {"full-42"}
    for again in (False, True):
        done = call(index)
        assert done.exit_code == 1
        assert "no result: full-42: no update after the first made it better on dev data" in done.stderr
        rows = {row["name"]: row for row in results(index)["tables"][0]["rows"]}
        message = {name: row["status"] for name, row in rows.items()}
        assert message == {"full": "failed", "text": "run", "k": "run"}
        assert "accuracy" not in rows["full"]
        assert "failed (no update after the first" in (index / "out" / "experiments.md").read_text()
        assert pretender.calls == ([] if again else ALL)
        pretender.calls.clear()
    done = call(index, "--steps", 20)
    assert done.exit_code == 0, done.output


def test_one_look_at_dev_tells_nothing(index: Path, pretender: Pretender) -> None:
    """With fewer steps than from one evaluation to the next there is none after the first update's."""
    grid_of(index, {"t": {"rows": [{"name": "full"}]}})
    pretender.looks = 1
    done = call(index)
    assert done.exit_code == 1
    assert "no result: full-42: it was evaluated on dev data once" in done.stderr
    assert "smaller eval_frequency" in done.stderr


def test_dev_data_that_are_the_test_data_are_told(index: Path, pretender: Pretender) -> None:
    grid_of(index, TABLES)
    assert "dev docs are the test docs" not in call(index).stderr + (index / "out" / "experiments.md").read_text()
    done = call(index, "--dev", "test.spacy", "--output", "other")
    for text in (done.stderr, *((index / "other" / f"experiments.{kind}").read_text() for kind in ("md", "html"))):
        assert "The dev docs are the test docs" in text


@pytest.mark.parametrize("at", ["k-2-42.partial/train.cfg", "k-2-42/job.json", "peer"])
def test_an_interrupt_leaves_what_was_done_and_nothing_half(index: Path, pretender: Pretender, at: str) -> None:
    grid_of(index, TABLES)
    pretender.broken = {at: KeyboardInterrupt}
    done = call(index)
    assert done.exit_code == 130
    assert "the same command goes on" in done.stderr
    shown = results(index)
    assert shown["interrupted"] and "Interrupted: the same" in (index / "out" / "experiments.md").read_text()
    statuses = [row["status"] for table in shown["tables"] for row in table["rows"]]
    assert statuses == ["run", "run", "run" if at == "peer" else "not run", "not run", "run", "not run"]
    before = pretender.calls
    pretender.broken, pretender.calls = {}, []
    assert call(index).exit_code == 0
    assert before + pretender.calls == ALL
    assert not results(index)["interrupted"]


def test_only_some_tables(index: Path, pretender: Pretender) -> None:
    """The others show what is kept of them."""
    grid_of(index, TABLES)
    assert call(index, "--only", "b").exit_code == 0
    assert pretender.calls == ["train full-42", "measure full-42", "peer alias"]
    rows = results(index)["tables"][0]["rows"]
    assert [row["status"] for row in rows] == ["run", "not run", "not run"]
    assert call(index, "--only", "z").exit_code == 1


def test_dry_run_runs_and_writes_nothing(index: Path, pretender: Pretender) -> None:
    grid_of(index, TABLES, estimate={"training": 60, "evaluation": 30, "peer": 30})
    done = call(index, "--dry-run")
    assert done.exit_code == 0, done.output
    assert pretender.calls == [] and not (index / "out").exists()
    lines = done.stdout.splitlines()
    assert [line.split(None, 2) for line in lines[:3]] == [
        ["2.0", "min", "train, measure full-42, full-42-no-image"],
        ["1.5", "min", "train, measure k-2-42"],
        ["0.5", "min", "measure peer-alias"],
    ]
    assert lines[-1] == "4 trials: 0 kept, 4 to run, 2 trainings; about 4 min"
    call(index, "--only", "b")
    assert "4 trials: 2 kept, 2 to run, 1 trainings" in call(index, "--dry-run").stdout
    (index / "test.spacy").unlink()
    listed = call(index, "--dry-run")
    assert listed.exit_code == 0
    assert "missing: test: " in listed.stdout and "4 to run" in listed.stdout
    refused = call(index)
    assert refused.exit_code == 1
    assert "test.spacy: no such file or folder; make it with" in refused.stderr


def test_a_setting_without_its_section_is_refused_before_anything_runs(index: Path, pretender: Pretender) -> None:
    grid_of(index, {"t": {"rows": [{"name": "a"}, {"name": "b", "set": {"trainig.max_steps": 5}}]}})
    done = call(index)
    assert done.exit_code == 1
    assert "mini.cfg, for set-" in done.stderr and "no section [trainig] in the config" in done.stderr
    assert pretender.calls == []


def test_a_try_has_a_folder_of_its_own(index: Path, pretender: Pretender) -> None:
    grid_of(index, TABLES)
    assert call(index, "--steps", 8, "--limit", 3, "--only", "a").exit_code == 0
    folder = index / "out" / "try-steps-8-limit-3"
    assert "Only a try: training steps 8, test docs 3" in (folder / "experiments.md").read_text()
    config = read_config(folder / "trainings" / "k-2-42" / "train.cfg")
    assert value_at(config, "training.max_steps") == 8
    assert value_at(config, "training.optimizer.learn_rate.total_steps") == 8
    assert value_at(config, "components.gemel_linker.model.prefix_length") == 2
    job = json.loads((folder / "trainings" / "k-2-42" / "job.json").read_text())
    assert job["trials"][0]["options"]["limit"] == 3
    pretender.calls.clear()
    assert call(index).exit_code == 0
    assert pretender.calls == ALL


def test_fresh_forgets_and_two_at_once_are_refused(index: Path, pretender: Pretender) -> None:
    grid_of(index, TABLES)
    call(index)
    with lock_file(index / "out" / ".lock", "no"):
        done = call(index)
    assert done.exit_code == 1 and "another process is running experiments here" in done.stderr
    pretender.calls.clear()
    assert call(index, "--fresh").exit_code == 0
    assert pretender.calls == ALL


def test_fresh_forgets_the_tables_that_are_run_and_only_when_they_can_be(index: Path, pretender: Pretender) -> None:
    grid_of(index, TABLES)
    call(index)
    pretender.calls.clear()
    assert "4 trials: 0 kept, 4 to run, 2 trainings" in call(index, "--fresh", "--dry-run").stdout
    (index / "test.spacy").rename(index / "away.spacy")
    assert call(index, "--fresh").exit_code == 1
    (index / "away.spacy").rename(index / "test.spacy")
    with lock_file(index / "out" / ".lock", "no"):
        assert call(index, "--fresh").exit_code == 1
    assert call(index).exit_code == 0
    assert pretender.calls == [], "what could not run has forgotten nothing"
    assert call(index, "--fresh", "--only", "b").exit_code == 0
    assert pretender.calls == ["train full-42", "measure full-42", "peer alias"]
    pretender.calls.clear()
    assert call(index).exit_code == 0
    assert pretender.calls == [], "the other table's trials are kept"


def test_a_trial_that_kills_its_process_takes_no_other_with_it(index: Path, pretender: Pretender) -> None:
    grid_of(index, TABLES)
    pretender.killed = {"full-42"}
    done = call(index)
    assert done.exit_code == 1
    assert "error: 1 trials failed: full-42\n" in done.stderr
    assert pretender.calls == ALL
    rows = results(index)["tables"][0]["rows"]
    assert [row["status"] for row in rows] == ["failed", "run", "run"]
    assert "ended by signal 9 (all of it in out/trainings/full-42/measuring.log)" in rows[0]["reason"]
    pretender.calls.clear()
    assert call(index).exit_code == 1
    assert pretender.calls == ["measure full-42"]
    pretender.killed = {"loading"}
    assert call(index).exit_code == 1
    assert "full-42" in results(index)["failed"]


def test_a_process_that_is_killed_before_the_pipeline_is_there_is_not_started_again(
    index: Path, pretender: Pretender
) -> None:
    """It would be killed for each trial, after a long time."""
    grid_of(index, TABLES)
    pretender.killed = {"loading"}
    done = call(index, "--only", "a")
    assert "error: 3 trials failed: full-42, full-42-no-image, k-2-42" in done.stderr
    assert [name for name in pretender.calls if name.startswith("measure")] == []
    assert not list(index.glob("out/trainings/*/measuring-2.log"))


def test_a_failure_is_remembered_with_its_reason(index: Path, pretender: Pretender) -> None:
    """By a run of another table; not once what it reads has changed, nor once it has succeeded."""
    grid_of(index, TABLES)
    pretender.broken = {"!full-42-no-image": CommandFailed}
    call(index)
    assert call(index, "--only", "b").exit_code == 0
    row = results(index)["tables"][0]["rows"][1]
    assert (row["status"], row["reason"]) == ("failed", "it would not")
    assert "failed (it would not)" in (index / "out" / "experiments.md").read_text()
    write_corpus(index / "test.spacy", 200)
    call(index, "--only", "b")
    assert results(index)["tables"][0]["rows"][1]["status"] == "not run"
    pretender.broken = {}
    call(index)
    (index / "out" / "trials" / "full-42-no-image.json").unlink()
    call(index, "--only", "b")
    assert results(index)["tables"][0]["rows"][1]["status"] == "not run"


def cut(path: Path, to: int) -> None:
    path.write_bytes(path.read_bytes()[:to])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut off": lambda path: cut(path, path.stat().st_size // 2),
    "emptied": lambda path: cut(path, 0),
    "braces": lambda path: path.write_text("{}"),
    "a list": lambda path: path.write_text("[1]"),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(
    ("file", "again"),
    [
        ("trials/full-42.json", ["measure full-42"]),
        ("trials/peer-alias.json", ["peer alias"]),
        ("trainings/k-2-42/trial.json", []),
        ("digests.json", []),
        ("failures.json", []),
        ("made_of.json", []),
    ],
)
def test_damaged_files_are_not_kept_and_stop_nothing(
    index: Path, pretender: Pretender, file: str, again: list[str], how: str
) -> None:
    grid_of(index, TABLES)
    call(index)
    path = index / "out" / file
    if not path.exists():
        path.write_text('{"full-42": {"key": "x", "reason": "y"}}')
    DAMAGE[how](path)
    before = results(index)["tables"]
    pretender.calls.clear()
    assert call(index, "--dry-run").exit_code == 0
    done = call(index)
    assert done.exit_code == 0, done.output
    assert pretender.calls == again
    assert results(index)["tables"] == before


def test_digests_that_are_none_are_taken_again(index: Path, pretender: Pretender) -> None:
    grid_of(index, TABLES)
    call(index)
    memory = index / "out" / "digests.json"
    for wrong in (1, [1], [1, 2, 3], ["a", 2, "b"], None):
        memory.write_text(json.dumps(dict.fromkeys(json.loads(memory.read_text()), wrong)))
        pretender.calls.clear()
        assert call(index).exit_code == 0
        assert pretender.calls == []


@pytest.mark.parametrize("to", ["a line's middle", "a line's end", "nothing", "gone"])
def test_mentions_that_are_not_whole_are_measured_again(index: Path, pretender: Pretender, to: str) -> None:
    """Cut at a line's end they would be read, and counted as so many fewer."""
    grid_of(index, TABLES)
    call(index)
    mentions = index / "out" / "trials" / "full-42.mentions.jsonl"
    lines = mentions.read_bytes().splitlines(keepends=True)
    five = b"".join(lines[:5])
    mentions.write_bytes({"a line's middle": five + lines[5][:9], "a line's end": five}.get(to, b""))
    if to == "gone":
        mentions.unlink()
    pretender.calls.clear()
    call(index, "--only", "b")
    assert pretender.calls == ["measure full-42"]
    assert results(index)["tables"][0]["rows"][0]["n"] == 40
    mentions.write_bytes(five)
    grid_of(index, {"c": {"rows": [{"name": "k", "k": 2}]}, **TABLES})
    call(index, "--only", "c")
    assert results(index)["tables"][1]["rows"][0]["status"] == "not run", "a table that is not run shows no part of it"


def test_trials_of_other_data_are_not_replaced(index: Path, pretender: Pretender) -> None:
    grid_of(index, TABLES)
    call(index)
    write_corpus(index / "theirs.spacy", 90)
    pretender.calls.clear()
    for more in ((), ("--fresh",)):
        refused = call(index, "--train", "theirs.spacy", *more)
        assert refused.exit_code == 1
        assert "--output out holds trials of train ../train.spacy and not ../theirs.spacy" in refused.stderr
        assert "give another --output" in refused.stderr
    assert pretender.calls == []
    assert call(index).exit_code == 0
    assert pretender.calls == [], "nothing was taken away"
    (index / "train.spacy").rename(index / "moved.spacy")
    assert call(index, "--train", "moved.spacy").exit_code == 0
    assert pretender.calls == [], "the same data by another name are the same"


def test_a_peer_is_told_its_options_and_the_configs_language(index: Path, pretender: Pretender) -> None:
    config = index / "configs" / "mini.cfg"
    config.write_text(config.read_text().replace('lang = "en"', 'lang = "de"'))
    (index / "configs" / "encoder").mkdir()
    (index / "configs" / "encoder" / "config.json").write_text("{}")
    linker = {"kind": "entity_linker", "encoder": "encoder", "epochs": 3, "seed": 7}
    rows = [
        {"name": "linker", "peer": linker},
        {"name": "alias", "peer": {"kind": "alias", "ignore_case": True}},
        {"name": "held out", "peer": {**linker, "held_out": 0.1}},
    ]
    grid_of(index, {"t": {"rows": rows}})
    assert call(index).exit_code == 0
    message = [words[words.index("--lang") :] for words in pretender.message]
    dev = ["--dev", "dev.spacy"]
    options = ["--encoder", "configs/encoder", "--epochs", "3", "--seed", "7"]
    assert message == [
        ["--lang", "de", "--quiet", *dev, *options],
        ["--lang", "de", "--quiet", "--ignore-case"],
        ["--lang", "de", "--quiet", *options, "--held-out", "0.1"],
    ]
    pretender.message.clear()
    (index / "configs" / "encoder" / "config.json").write_text('{"other": 1}')
    assert call(index).exit_code == 0
    assert len(pretender.message) == 2, "those with the encoder"
    pretender.message.clear()
    config.write_text(config.read_text().replace('lang = "de"', 'lang = "fr"'))
    assert call(index).exit_code == 0
    assert len(pretender.message) == 3


@pytest.mark.parametrize("output", ["file", "file/below/it"])
def test_an_output_that_cannot_be_a_folder(index: Path, pretender: Pretender, output: str) -> None:
    grid_of(index, TABLES)
    (index / "file").write_text("")
    for more in ((), ("--dry-run",)):
        done = CliRunner().invoke(app, ["experiments", "configs/grid.yml", "--output", output, *more])
        assert done.exit_code == 1
        assert (
            done.stderr
            == f"error: --output {output}: file is a file; name a folder, which is made where it is not there\n"
        )
    done = CliRunner().invoke(app, ["experiments", "configs/grid.yml", "--output", "a/b/c"])
    assert done.exit_code == 0 and (index / "a" / "b" / "c" / "experiments.md").is_file()


def test_a_model_folder_without_a_slash(index: Path, pretender: Pretender) -> None:
    """It is found beside the grid, read from where the training runs, and part of the key."""
    grid_of(
        index,
        {"t": {"rows": [{"name": "a", "language_model": "mine", "retriever": "mine"}]}},
        entities="../entities.jsonl",
        language_models={"mine": {"name": "lm"}},
        retrievers={"mine": {"@misc": "spacy_gemel.SentenceTransformerRetriever.v1", "name": "encoder"}},
    )
    (index / "entities.jsonl").write_text("{}\n")
    for name in ("lm", "encoder"):
        (index / "configs" / name).mkdir()
        (index / "configs" / name / "config.json").write_text("{}")
    assert call(index).exit_code == 0
    assert pretender.calls[0] == "build-kb configs/lm"
    training = index / "out" / "trainings" / "language-mine-retriever-mine-42"
    config = read_config(training / "train.cfg")
    for block, name in (("language_model", "lm"), ("retriever", "encoder")):
        found = value_at(config, f"components.gemel_linker.{block}.name")
        assert (training / found).resolve() == index / "configs" / name
    for name in ("lm", "encoder"):
        pretender.calls.clear()
        (index / "configs" / name / "config.json").write_text('{"other": 1}')
        assert call(index).exit_code == 0
        assert "train language-mine-retriever-mine-42" in pretender.calls


def test_a_model_that_a_variable_names_counts_by_its_name_and_its_files(index: Path, pretender: Pretender) -> None:
    config = read_config(index / "configs" / "mini.cfg")
    config["paths"]["language_model"] = "../assets/mini/language_model"
    config["components"]["gemel_linker"]["language_model"]["name"] = "${paths.language_model}"
    Config(config).to_disk(index / "configs" / "mini.cfg", interpolate=False)
    grid_of(index, {"t": {"rows": [{"name": "full"}]}})
    expected = ["train full-42", "measure full-42"]
    assert call(index).exit_code == 0
    assert pretender.calls == expected
    pretender.calls.clear()
    assert call(index).exit_code == 0
    assert pretender.calls == []
    (index / "assets" / "mini" / "language_model" / "config.json").write_text('{"other": 1}')
    assert call(index).exit_code == 0
    assert pretender.calls == expected
    pretender.calls.clear()
    config["paths"]["language_model"] = "org/another"
    Config(config).to_disk(index / "configs" / "mini.cfg", interpolate=False)
    assert call(index).exit_code == 0
    assert pretender.calls == expected


def test_another_language_model_gets_a_knowledge_base_of_its_own(index: Path, pretender: Pretender) -> None:
    tables = {"t": {"rows": [{"name": "a", "language_model": "OPT"}, {"name": "b", "language_model": "OPT", "k": 2}]}}
    (index / "models" / "opt").mkdir(parents=True)
    (index / "models" / "opt" / "config.json").write_text("{}")
    grid_of(index, tables, language_models={"OPT": {"name": "../models/opt", "dtype": "float32"}})
    refused = call(index)
    assert refused.exit_code == 1
    assert "rows with another language model need a knowledge base for its tokenizer" in refused.stderr
    (index / "entities.jsonl").write_text("{}\n")
    assert call(index, "--entities", "entities.jsonl").exit_code == 0
    builds = [call for call in pretender.calls if call.startswith("build-kb")]
    assert builds == ["build-kb models/opt"]
    config = read_config(index / "out" / "trainings" / "language-OPT-42" / "train.cfg")
    name = value_at(config, "components.gemel_linker.language_model.name")
    assert (index / "out" / "trainings" / "language-OPT-42" / name).resolve() == index / "models" / "opt"
    assert not Path(name).is_absolute()
    os.utime(index / "entities.jsonl")
    pretender.calls.clear()
    assert call(index, "--entities", "entities.jsonl").exit_code == 0
    assert pretender.calls == []
