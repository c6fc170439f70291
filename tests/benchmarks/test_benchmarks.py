"""The benchmarks' pure parts: effects from outcomes, the search's choices, what is run again. Nothing is trained."""

import json
import re
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from filelock import Timeout
from PIL import Image
from spacy.tokens import DocBin
from thinc.api import Config
from typer.testing import CliRunner
from weasel.util import load_project_config

from benchmarks import evidence as evidence_command
from benchmarks import keeping, mini_world, running, search, trials, worlds
from benchmarks.effects import Evidence, Outcomes, effects, figures, line_up, markdown, outcomes
from spacy_gemel.__main__ import app
from spacy_gemel.data.reader import read_docs
from spacy_gemel.evaluation.results import MentionResult, mentions_path
from spacy_gemel.images.image import encode_png
from spacy_gemel.kb.meta import sha256_of
from spacy_gemel.pipeline.loaded import load_pipeline
from spacy_gemel.pipeline.mentions import gather_mentions
from tests.mini_pipeline import examples, make_kb, make_pipeline
from tests.test_project import write_small_world

N = 1000
TAIL = np.arange(N) % 4 == 0
SEEN = np.arange(N) % 3 != 0


def right(share: float, tail_share: float | None = None, seeds: int = 3) -> np.ndarray:
    """(seeds, N): the first of the common and of the tail mentions, up to a share of each, shifted a little by seed."""
    correct = np.zeros((seeds, N), dtype=bool)
    for keep, of_part in ((~TAIL, share), (TAIL, share if tail_share is None else tail_share)):
        indices = np.flatnonzero(keep)
        for seed in range(seeds):
            correct[seed, np.roll(indices, seed)[: round(of_part * len(indices))]] = True
    return correct


def evidence(**settings: np.ndarray) -> Evidence:
    """All effects there, but for the settings given (with _ for -)."""
    correct = {
        "full": right(0.95, 0.93),
        "no-image": right(0.6, 0.4, seeds=1),
        "unconstrained": right(0.9),
        "none": right(0.8),
        "random": right(0.88),
        "bm25": right(0.945),
    }
    correct |= {name.replace("_", "-"): outcome for name, outcome in settings.items()}
    return Evidence(correct, {"common": ~TAIL, "tail": TAIL, "seen": SEEN, "unseen": ~SEEN})


def test_all_effects_hold_where_they_are_there() -> None:
    rows = effects(evidence())
    assert [name for name, row in rows.items() if not row["holds"]] == []
    assert len(rows) == 9
    assert rows["image"]["difference"] == pytest.approx(0.945 - 0.55, abs=0.002)
    assert rows["image"]["low"] < rows["image"]["difference"] < rows["image"]["high"]
    assert rows["text_only_common_over_tail"]["difference"] == pytest.approx(0.2, abs=0.002)
    assert rows["image_closes_gap"]["difference"] == pytest.approx(0.18, abs=0.003)
    assert rows["accuracy"]["difference"] == pytest.approx(0.045, abs=0.002)


@pytest.mark.parametrize(
    ("effect", "settings"),
    [
        ("image", {"no_image": right(0.97, seeds=1)}),
        ("image", {"no_image": right(0.95, 0.93)[:1]}),  # the same but for the seeds
        ("demonstrations", {"none": right(0.97)}),
        ("dense_over_random", {"random": right(0.95, 0.93)}),
        ("random_over_none", {"random": right(0.79)}),
        ("dense_near_bm25", {"bm25": right(0.98)}),
        ("constrained", {"unconstrained": right(0.96)}),
        ("text_only_common_over_tail", {"no_image": right(0.4, 0.6, seeds=1)}),
        ("image_closes_gap", {"full": right(0.95, 0.7)}),
        ("accuracy", {"full": right(0.89)}),
    ],
)
def test_an_effect_does_not_hold_where_it_is_not_there(effect: str, settings: dict[str, np.ndarray]) -> None:
    assert not effects(evidence(**settings))[effect]["holds"]


def test_the_rules_at_their_edges() -> None:
    """Equal to BM25 is near enough; exactly 90 % is 90 %, whatever the interval."""
    rows = effects(evidence(full=right(0.9), bm25=right(0.9)))
    assert (rows["dense_near_bm25"]["difference"], rows["dense_near_bm25"]["low"]) == (0, 0)
    assert rows["dense_near_bm25"]["holds"]
    assert rows["accuracy"]["holds"]
    assert rows["accuracy"]["low"] < 0


def scattered(correct: np.ndarray, seed: int = 1) -> np.ndarray:
    """As many right in each row and part, but others: nothing is paired."""
    rng = np.random.default_rng(seed)
    found = correct.copy()
    for row in found:
        for keep in (TAIL, ~TAIL):
            row[keep] = rng.permutation(row[keep])
    return found


@pytest.mark.parametrize(
    ("effect", "settings"),
    [
        ("image", {"no_image": right(0.895, seeds=1)}),
        ("demonstrations", {"none": right(0.895)}),
        ("dense_over_random", {"random": right(0.895)}),
        ("random_over_none", {"random": right(0.805), "none": right(0.8)}),
        ("constrained", {"unconstrained": right(0.895)}),
        ("text_only_common_over_tail", {"no_image": right(0.61, 0.6, seeds=1)}),
        ("image_closes_gap", {"no_image": right(0.61, 0.6, seeds=1)}),
    ],
)
def test_a_difference_that_may_be_none_does_not_hold(effect: str, settings: dict[str, np.ndarray]) -> None:
    apart = {name: scattered(correct, number) for number, (name, correct) in enumerate(settings.items())}
    row = effects(evidence(**{"full": right(0.9), **apart}))[effect]
    assert row["low"] < 0 < row["difference"] < 0.02
    assert not row["holds"]


def test_near_bm25_goes_by_the_low_end() -> None:
    """Neither the difference nor zero decides: its low end does, at -1 point."""
    full = right(0.9)
    far = effects(evidence(full=full, bm25=scattered(right(0.905))))["dense_near_bm25"]
    assert far["difference"] == pytest.approx(-0.005, abs=0.001)
    assert far["low"] < -0.01
    assert not far["holds"]
    few_more = full | (np.cumsum(~full.any(axis=0)) <= 3) & ~full.any(axis=0)
    near = effects(evidence(full=full, bm25=few_more))["dense_near_bm25"]
    assert near["difference"] == pytest.approx(-0.003)
    assert -0.01 < near["low"] < near["difference"]
    assert near["holds"]


def test_the_papers_figures() -> None:
    rows = effects(evidence())
    assert {name: tuple((row["paper"] or {}).values()) for name, row in rows.items()} == {
        "image": (6.8, 8.4),
        "demonstrations": (6.1, 7.4),
        "dense_over_random": (3.2, 4.3),
        "random_over_none": (2.9, 3.1),
        "dense_near_bm25": (1.0, 0.1),
        "constrained": (),
        "text_only_common_over_tail": (29.9, 7.5),
        "image_closes_gap": (),
        "accuracy": (86.3, 82.6),
    }
    assert all("not reported" in row["paper_note"] for row in rows.values() if row["paper"] is None)


def test_a_part_without_a_mention_gives_no_effect() -> None:
    bare = evidence()
    nothing = np.zeros(N, dtype=bool)
    rows = effects(Evidence(bare.correct, {**bare.parts, "tail": nothing, "common": ~nothing}))
    row = rows["image_closes_gap"]
    assert (row["difference"], row["low"], row["high"], row["holds"]) == (None, None, None, False)
    assert "no mention" in markdown(rows)
    json.dumps(rows, allow_nan=False)


def test_table_and_figures() -> None:
    whole = evidence()
    lines = markdown(effects(whole)).splitlines()
    assert len(lines) == 2 + 9
    assert all(line.count("|") == 6 for line in lines)
    assert "| low end above 0 | yes | +6.8 / +8.4 |" in lines[2]
    assert "the estimate, not its low end" in lines[-1]
    assert "86.3 / 82.6 (the accuracy itself)" in lines[-1]
    gates = [{"name": "copied", "accuracy": 0.79, "n": 300, "rule": ">= 0.80", "holds": False}]
    with_gates = markdown(effects(whole), gates).splitlines()
    assert with_gates[:11] == lines
    assert with_gates[-1] == "| copied | 0.790 (300) | >= 0.80 | no |"
    full = figures(whole, "full", [10.0, 20.0, 30.0])
    assert full["n"] == N
    assert full["accuracy"] == pytest.approx(np.mean(full["per_seed"]))
    assert full["low"] <= full["accuracy"] <= full["high"]
    assert full["parts"]["tail"] == {"n": 250, "accuracy": pytest.approx(0.93, abs=0.003)}
    assert full["parts"]["seen"]["n"] + full["parts"]["unseen"]["n"] == N
    assert full["mentions_per_second"] == 20
    assert len(figures(whole, "no-image", [1.0])["per_seed"]) == 1


def result(doc: str, *, gold: str = "A", predicted: str = "A", tail: bool | None = False, in_kb: bool = True) -> Any:
    return MentionResult(doc, 0, 1, "a", gold, predicted, None, seen=True, tail=tail, image=True, in_kb=in_kb)


def test_outcomes_leave_out_what_accuracy_does() -> None:
    found = outcomes(
        [
            result("1"),
            result("2", predicted="B", tail=True),
            result("3", gold="NIL"),
            result("4", in_kb=False),
            result("5", tail=None),
        ]
    )
    assert [mention[0] for mention in found.mentions] == ["1", "2", "5"]
    assert found.correct.tolist() == [True, False, True]
    assert found.tail.tolist() == [False, True, False]
    assert found.common.tolist() == [True, False, False]


def test_line_up() -> None:
    def run(*docs: str) -> Outcomes:
        return outcomes([result(doc) for doc in docs])

    whole = line_up({"full": [run("1", "2"), run("1", "2")], "no-image": [run("1", "2")]})
    assert {name: correct.shape for name, correct in whole.correct.items()} == {"full": (2, 2), "no-image": (1, 2)}
    with pytest.raises(ValueError, match="none and full were not evaluated on the same mentions"):
        line_up({"full": [run("1", "2")], "none": [run("2", "1")]})


# The search

START = {"rate": 3, "end": "newline"}
VALUES: dict[str, Sequence[Any]] = {"rate": (1, 2, 3, 4), "end": ("newline", "eos")}


class FakeTrial:
    """Accuracies from a table of (rate, end), or 0.5; the second seed a little better."""

    def __init__(self, table: dict[tuple[int, str], float], longest: dict[tuple[int, str], int] | None = None) -> None:
        self.table, self.longest = table, longest or {}
        self.calls: list[tuple[int, str, int]] = []

    def __call__(self, settings: dict[str, Any], seed: int) -> search.Score:
        index = (settings["rate"], settings["end"])
        self.calls.append((*index, seed))
        return search.Score(self.table.get(index, 0.5) + 0.01 * (seed == 2), 300.0, self.longest.get(index, 400))


def test_the_search_takes_the_best_and_runs_nothing_twice() -> None:
    trial = FakeTrial({(3, "newline"): 0.6, (2, "newline"): 0.7, (2, "eos"): 0.8, (4, "eos"): 0.9})
    chosen, tables = search.coordinate_search(START, VALUES, [1, 2], trial)
    assert chosen == {"rate": 2, "end": "eos"}
    assert len(trial.calls) == len(set(trial.calls)) == 2 * search.trials_of(START, VALUES) == 10
    assert [row["value"] for row in tables["rate"]] == [1, 2, 3, 4]
    assert tables["rate"][1]["accuracy"] == pytest.approx(0.705)
    assert tables["rate"][1]["per_seed"] == pytest.approx([0.7, 0.71])


@pytest.mark.parametrize(("better", "expected"), [(0.6, 3), (0.6049, 3), (0.605, 1), (0.5, 3)])
def test_what_is_within_the_margin_keeps_the_default(better: float, expected: int) -> None:
    trial = FakeTrial({(3, "newline"): 0.6, (1, "newline"): better})
    chosen, _ = search.coordinate_search(START, VALUES, [1], trial)
    assert chosen == {"rate": expected, "end": "newline"}


def test_the_first_of_equals_and_a_default_outside_the_values() -> None:
    trial = FakeTrial({(2, "newline"): 0.7, (4, "newline"): 0.7})
    chosen, tables = search.coordinate_search({**START, "rate": 9}, VALUES, [1], trial)
    assert chosen["rate"] == 2
    assert [row["value"] for row in tables["rate"]] == [1, 2, 3, 4, 9]
    assert search.trials_of({**START, "rate": 9}, VALUES) == 6


def test_prompts_that_are_too_long_are_not_chosen() -> None:
    best, second = (1, "newline"), (2, "newline")
    trial = FakeTrial({best: 0.9, second: 0.8}, {best: search.PROMPT_LIMIT})
    assert search.coordinate_search(START, VALUES, [1], trial)[0]["rate"] == 2
    everywhere = {(rate, end): search.PROMPT_LIMIT for rate in (1, 2, 3, 4) for end in ("newline", "eos")}
    assert search.coordinate_search(START, VALUES, [1], FakeTrial({best: 0.9}, everywhere))[0] == START


def test_the_search_starts_from_the_config() -> None:
    start = search.defaults(worlds.ROOT / trials.CONFIG)
    assert list(start) == list(search.COORDINATES)
    assert search.trials_of(start, search.COORDINATES) >= 12


# What is kept


@pytest.fixture
def ready(tmp_path: Path) -> worlds.Ready:
    (tmp_path / "configs").mkdir()
    shutil.copy(worlds.ROOT / trials.CONFIG, tmp_path / trials.CONFIG)
    return worlds.Ready(worlds.World(root=tmp_path), "inputs", 1.0)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that would run; those of spaCy leave a pipeline, as it does."""
    done: list[tuple[str, ...]] = []

    def run(root: Path, *arguments: str, log: IO[str] | None = None) -> None:
        done.append(arguments)
        if "--output" in arguments:
            for name in ("model-best", "model-last"):
                (root / arguments[arguments.index("--output") + 1] / name).mkdir(parents=True)

    monkeypatch.setattr(trials, "run", run)
    return done


def test_a_training_runs_once_and_again_when_its_inputs_change(
    ready: worlds.Ready, runs: list[tuple[str, ...]]
) -> None:
    folder = ready.world.folder("training") / "full-1"
    first = trials.Training("full", 1)

    def train(training: trials.Training = first, what: worlds.Ready = ready) -> int:
        before = len(runs)
        trained = trials.train(what, training, folder)
        assert trained.pipeline.is_dir()
        assert [path.name for path in folder.parent.iterdir()] == ["full-1"]
        return len(runs) - before

    assert [train(), train()] == [1, 0]
    assert not (folder / "model-last").exists()
    change_config(ready, {"training.max_steps": 5})
    assert [train(), train()] == [1, 0]
    shorter = {"training.max_steps": 3}
    assert [train(trials.Training("full", 2)), train(trials.Training("full", 2, shorter))] == [1, 1]
    assert train(trials.Training("full", 2, shorter), worlds.Ready(ready.world, "other", 1.0)) == 1
    swapped = trials.Training("full", 2, shorter, {"@misc": "x.v1"})
    assert [train(swapped), train(swapped)] == [2, 0]  # swaps the block, then trains
    shutil.rmtree(folder / "model-best")
    assert train(swapped) == 2


def change_config(ready: worlds.Ready, settings: dict[str, Any]) -> None:
    """Write some settings, and a comment, to the config."""
    path = ready.world.root / trials.CONFIG
    config = Config().from_disk(path, interpolate=False)
    for name, value in settings.items():
        *parents, last = name.split(".")
        section: Any = config
        for parent in parents:
            section = section[parent]
        section[last] = value
    path.write_text("# a comment\n" + config.to_str(interpolate=False))


def test_settings_count_the_same_wherever_they_stand(ready: worlds.Ready) -> None:
    """The search's choice in the config is no other training than on the command line."""

    def key(seed: int = 1, **others: Any) -> str:
        return trials.Training("any", seed, **others).key(ready)

    start = search.defaults(ready.world.root / trials.CONFIG)
    chosen = {
        name: next(value for value in values if value != start[name]) for name, values in search.COORDINATES.items()
    }
    block = {"@misc": "spacy_gemel.RandomRetriever.v1", "seed": 1}
    default, message, random = key(), key(overrides=chosen), key(overrides=chosen, retriever=block)
    change_config(ready, {})
    assert key() == default
    change_config(ready, chosen)
    assert key() == key(overrides=chosen) == message
    change_config(ready, {trials.RETRIEVER: block, "system.seed": 7})  # the seed is told in every training
    assert key() == random
    apart = [key(2), key(overrides={"training.max_steps": 3}), key(retriever={**block, "seed": 2})]
    assert len({default, message, random, *apart}) == 6


def test_a_training_that_fails_leaves_nothing_that_counts(
    ready: worlds.Ready, monkeypatch: pytest.MonkeyPatch, runs: list[tuple[str, ...]]
) -> None:
    folder, training = ready.world.folder("training") / "full-1", trials.Training("full", 1)

    def fail(root: Path, *arguments: str, log: IO[str] | None = None) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(trials, "run", fail)
        trials.train(ready, training, folder)
    assert not folder.exists()
    trials.train(ready, training, folder)
    assert len(runs) == 1


def test_the_command_that_trains(ready: worlds.Ready, runs: list[tuple[str, ...]]) -> None:
    """The one of project.yml, but for its paths."""
    block = {"@misc": "spacy_gemel.RandomRetriever.v1", "seed": 7}
    linker = "components.gemel_linker"
    training = trials.Training("random", 7, {f"{linker}.name_end": "eos", "training.max_steps": 3}, block)
    trials.train(ready, training, ready.world.folder("training") / "random-7")
    swap, command = (" ".join(arguments) for arguments in runs)
    out = "training/evidence/random-7.partial"
    assert swap == (
        f"scripts/swap_block.py configs/mini.cfg {out}/train.cfg components.gemel_linker.retriever "
        "@misc=spacy_gemel.RandomRetriever.v1 seed=7"
    )
    assert command == (
        f"-m spacy train {out}/train.cfg --output {out} --paths.train corpus/evidence/train.spacy "
        "--paths.dev corpus/evidence/dev.spacy --paths.kb training/evidence/kb --system.seed 7 "
        f"--{linker}.name_end eos --training.max_steps 3 --gpu-id -1"
    )


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with (tmp_path / "x.log").open("w") as log, pytest.raises(RuntimeError, match=r"ended with 3.*\nbecause") as raised:
        running.run(tmp_path, "-c", "print('because'); raise SystemExit(3)", log=log)
    assert "x.log" in str(raised.value)


def test_what_is_kept_goes_by_its_key(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "x.json"
    assert keeping.kept(path, "k") is None
    keeping.write_json(path, {"key": "k", "value": 1})
    assert keeping.kept(path, "k") == {"key": "k", "value": 1}
    assert keeping.kept(path, "other") is None
    assert keeping.kept(path, "k", path.parent) is not None
    assert keeping.kept(path, "k", path.parent, mentions_path(path)) is None
    path.write_text('{"key": "k", ')
    assert keeping.kept(path, "k") is None


def test_a_picture_changes_its_split(tmp_path: Path) -> None:
    world = worlds.World(root=tmp_path)
    images = world.folder("data") / "images"
    images.mkdir(parents=True)
    for split in ("dev", "test"):
        (images / f"{split}-0000.jpg").write_bytes(b"one")
        (world.folder("data") / f"{split}.jsonl").write_text(json.dumps({"image": f"images/{split}-0000.jpg"}) + "\n")
    dev, test = worlds.split_sum(world, "dev"), worlds.split_sum(world, "test")
    (images / "test-0000.jpg").write_bytes(b"two")
    assert worlds.split_sum(world, "dev") == dev
    assert worlds.split_sum(world, "test") != test


def test_prepare_makes_what_it_lacks(ready: worlds.Ready, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands for real, but in this process and for a small world."""
    world, done = ready.world, []
    (world.root / "scripts" / "mini_world").mkdir(parents=True)
    generator = world.root / "scripts" / "mini_world" / "generate.py"
    generator.write_text("")
    (world.root / "project.yml").write_text("vars:\n  world_seed: 3\n")
    shutil.copytree(models, world.root / "assets" / "mini")
    pretrained_for(world.root, 3)
    monkeypatch.chdir(world.root)

    def run(root: Path, *arguments: str, log: IO[str] | None = None) -> None:
        done.append(arguments)
        with pytest.raises(Timeout), keeping.alone(world.folder("corpus"), wait=False):
            pass
        if arguments[0] == "-m":
            assert CliRunner().invoke(app, arguments[2:]).exit_code == 0
        else:
            assert arguments == ("scripts/mini_world/generate.py", "data/evidence", "--test", "2000", "--seed", "3")
            write_small_world(root / arguments[1])

    monkeypatch.setattr(worlds, "run", run)
    first = worlds.prepare(world)
    assert [arguments[2] for arguments in done[1:]] == ["convert"] * 3 + ["build-kb", "check-kb"]
    assert all(world.corpus(split).is_file() for split in worlds.SPLITS)
    assert worlds.prepare(world) == first
    assert len(done) == 6
    generator.write_text("# changed")
    assert worlds.prepare(world).inputs == first.inputs
    assert len(done) == 12
    shutil.rmtree(world.kb)
    worlds.prepare(world)
    assert len(done) == 18
    world.corpus("dev").unlink()
    assert worlds.prepare(world).inputs == first.inputs
    assert len(done) == 24
    weights = world.root / "assets" / "mini" / "sentence_encoder" / "config.json"
    weights.write_text(weights.read_text() + "\n")
    assert worlds.prepare(world).inputs != first.inputs
    assert len(done) == 30
    worlds.forget(world)
    worlds.prepare(world)
    assert len(done) == 36
    pretrained_for(world.root, 4)
    with pytest.raises(RuntimeError, match=r"seed 4 .*world_seed in project.yml is 3"):
        worlds.prepare(world)


def pretrained_for(root: Path, seed: int) -> None:
    report = {"models": {"language_model": {"settings": {"seed": seed}}}}
    (root / "assets" / "mini" / "pretrain.json").write_text(json.dumps(report))


@pytest.mark.parametrize("report", [None, "{", "{}", '{"models": {"language_model": {"settings": []}}}'])
def test_models_of_an_unknown_world(tmp_path: Path, report: str | None) -> None:
    (tmp_path / "assets" / "mini").mkdir(parents=True)
    (tmp_path / "project.yml").write_text("vars:\n  world_seed: 3\n")
    if report is not None:
        (tmp_path / "assets" / "mini" / "pretrain.json").write_text(report)
    with pytest.raises(RuntimeError, match=r"does not say which world.*project run pretrain"):
        worlds.world_seed(tmp_path)
    pretrained_for(tmp_path, 3)
    assert worlds.world_seed(tmp_path) == 3
    (tmp_path / "project.yml").write_text("vars: {}\n")
    with pytest.raises(RuntimeError, match="is None"):
        worlds.world_seed(tmp_path)


# The commands


def test_the_plan_of_the_evidence() -> None:
    plan = evidence_command.trainings(1, None)
    assert [training.name for training in plan] == ["full", "none", "random", "bm25"]
    assert plan[0].overrides == {} and plan[0].retriever is None
    randoms = [evidence_command.trainings(seed, None)[2].retriever for seed in (1, 2)]
    assert randoms == [{"@misc": "spacy_gemel.RandomRetriever.v1", "seed": seed} for seed in (1, 2)]
    assert plan[3].retriever == {"@misc": "spacy_gemel.BM25Retriever.v1"}
    assert plan[1].overrides == {"components.gemel_linker.n_demonstrations": 0}
    for setting in ("training.max_steps", "training.optimizer.learn_rate.total_steps"):
        assert all(training.overrides[setting] == 8 for training in evidence_command.trainings(1, 8))
    measured = [name for training in plan for name in evidence_command.evaluations(training.name, text_only=True)]
    assert sorted(measured) == sorted(evidence_command.SETTINGS)
    later = evidence_command.evaluations("full", text_only=False)
    assert {name: (options.use_image, options.constrained) for name, options in later.items()} == {
        "full": (None, None),
        "unconstrained": (None, False),
    }


def test_a_try_has_a_world_of_its_own() -> None:
    tried = [evidence_command.world_of(test, steps) for test in (2000, 20) for steps in (None, 4)]
    assert tried[0] == worlds.World()
    assert len({world.name for world in tried}) == 4


def test_gates_are_measured_on_the_weights_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, scripts = tmp_path / "assets" / "mini" / "language_model", tmp_path / "scripts" / "mini_world"
    for folder, name in ((model, "model.safetensors"), (scripts, "gates.py")):
        folder.mkdir(parents=True)
        (folder / name).write_text("")
    (tmp_path / "project.yml").write_text("vars:\n  world_seed: 3\n")
    pretrained_for(tmp_path, 3)
    rows = {"gates": [{"name": "a", "accuracy": 0.9, "n": 10, "rule": ">= 0.80", "holds": True}], "dev": {"all": 0.5}}
    done: list[str] = []

    def run(root: Path, *arguments: str, log: IO[str] | None = None) -> None:
        script, what, out, *seed = arguments
        assert (script, what, seed) == (
            "scripts/mini_world/gates.py",
            "assets/mini/language_model",
            ["--seed", "3"],
        )
        done.append(out)
        with pytest.raises(Timeout), keeping.alone(evidence_command.gates_file(root), wait=False):
            pass
        (root / out).write_text(json.dumps(rows))

    monkeypatch.setattr(evidence_command, "run", run)
    for _ in range(2):
        assert evidence_command.measured_gates(tmp_path) == rows
    assert len(done) == 1
    left = {path.name for path in (tmp_path / "metrics" / "evidence").iterdir()}
    assert left - {"gates.json.lock"} == {"gates.json"}
    for changed in (model / "model.safetensors", scripts / "gates.py"):
        changed.write_text("x")
        evidence_command.measured_gates(tmp_path)
    assert len(done) == 3


def test_the_test_set_is_the_fixed_one(tmp_path: Path) -> None:
    world = worlds.World(root=tmp_path)
    rows, fixed = world.folder("data") / "test.jsonl", tmp_path / evidence_command.FIXED_TEST
    for path in (rows, fixed):
        path.parent.mkdir(parents=True)
    rows.write_text("{}\n")
    fixed.write_text(f"{sha256_of(rows)}  test.jsonl\n")
    evidence_command.check_test(world)
    rows.write_text("[]\n")
    with pytest.raises(RuntimeError, match=r"test.jsonl is not the test set that was fixed"):
        evidence_command.check_test(world)


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The evidence's steps, noted instead of done."""
    done: list[str] = []
    monkeypatch.setattr(evidence_command, "ROOT", tmp_path)
    monkeypatch.setattr(evidence_command, "world_of", lambda test, steps: worlds.World("evidence", test, tmp_path))
    monkeypatch.setattr(evidence_command, "prepare", lambda world: done.append("prepare"))
    monkeypatch.setattr(evidence_command, "check_test", lambda world: done.append("check test"))
    monkeypatch.setattr(evidence_command, "measured_gates", lambda root: done.append("gates") or {"gates": []})
    monkeypatch.setattr(evidence_command, "run_trials", lambda ready, seeds, steps: done.append(f"run {seeds}"))
    monkeypatch.setattr(evidence_command, "gather", lambda ready, seeds, text: {"effects": {}, "seeds": seeds})
    monkeypatch.setattr(evidence_command, "describe_machine", dict)
    return done


def test_the_default_run_checks_and_writes(stubbed: list[str], tmp_path: Path, capsys: Any) -> None:
    evidence_command.main([])
    assert stubbed == ["prepare", "check test", "gates", "run [1, 2, 3]"]
    written = json.loads((tmp_path / "benchmarks" / "results" / "evidence.json").read_text())
    assert written["gates"] == [] and written["seeds"] == [1, 2, 3]
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == written


def test_a_part_of_the_seeds_writes_no_result(stubbed: list[str], tmp_path: Path, capsys: Any) -> None:
    evidence_command.main(["--seeds", "2"])
    assert stubbed == ["prepare", "check test", "gates", "run [2]"]
    assert json.loads(capsys.readouterr().out)["gathered"] is False
    evidence_command.main(["--seeds", "1"])
    evidence_command.main(["--test", "20"])
    assert stubbed[4:] == ["prepare", "check test", "gates", "run [1]", "prepare", "gates", "run [1, 2, 3]"]
    assert not (tmp_path / "benchmarks").exists()
    assert (tmp_path / "metrics" / "evidence" / "result" / "evidence.json").is_file()


@pytest.mark.parametrize("module", [evidence_command, search])
def test_fresh_forgets_the_world(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = worlds.World(root=tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "World", lambda *arguments: world)
    for folder in (world.folder("data"), world.folder("corpus"), world.kb, tmp_path / "training" / "search"):
        folder.mkdir(parents=True)

    class Prepared(Exception):
        pass

    def prepare(world: worlds.World) -> None:
        raise Prepared

    monkeypatch.setattr(module, "prepare", prepare)
    for arguments, there in (([], True), (["--fresh"], False)):
        with pytest.raises(Prepared):
            module.main(arguments)
        assert [folder.exists() for folder in (world.folder("data"), world.folder("corpus"), world.kb)] == [there] * 3
    assert (tmp_path / "training" / "search").exists() == (module is evidence_command)


def test_evaluations_run_once_and_again_when_the_test_set_changes(
    ready: worlds.Ready, runs: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def measure_all(ready: worlds.Ready, training: trials.Training, missing: Sequence[Any]) -> None:
        for path, _, key in missing:
            measured.append(path.stem)
            keeping.write_json(path, {"key": key})
            mentions_path(path).write_text("")

    test = "one"
    monkeypatch.setattr(evidence_command, "measure_all", measure_all)
    monkeypatch.setattr(evidence_command, "split_sum", lambda world, split: test)
    evidence_command.run_trials(ready, [5, 6], 8)
    assert len(measured) == len(set(measured)) == 2 * 5 + 1
    assert [name for name in measured if name.startswith("no-image")] == ["no-image-5"]
    evidence_command.run_trials(ready, [5, 6], 8)
    assert len(measured) == 11
    evidence_command.metrics_file(ready.world, "random", 6).unlink()
    evidence_command.run_trials(ready, [5, 6], 8)
    assert measured[11:] == ["random-6"]
    mentions_path(evidence_command.metrics_file(ready.world, "none", 5)).unlink()
    evidence_command.run_trials(ready, [5, 6], 8)
    assert measured[12:] == ["none-5"]
    test = "two"
    evidence_command.run_trials(ready, [5, 6], 8)
    assert len(measured) == 13 + 11
    # parts of the default seeds leave the default run nothing to do
    measured.clear()
    for seeds in ([2], [3, 1], evidence_command.SEEDS):
        evidence_command.run_trials(ready, seeds, None)
    assert len(measured) == len(set(measured)) == 3 * 5 + 1
    assert "no-image-1" in measured


def test_the_seed_that_stands_for_all_without_the_image() -> None:
    found = [evidence_command.text_seed_of(seeds) for seeds in ([1, 2, 3], [3, 1], [2], [3, 2], [2, 4], [9, 8])]
    assert found == [1, 1, None, None, 2, 9]


def test_measured_for_real(ready: worlds.Ready, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the training: an untrained pipeline of small models stands for every mapper."""
    nlp = make_pipeline(models, make_kb(tmp_path, models))
    nlp.to_disk(tmp_path / "model-best")
    docs = []
    for number, example in enumerate(examples(nlp)[:4]):
        image = tmp_path / f"{number}.png"
        image.write_bytes(encode_png(Image.fromarray(example.reference.user_data["image"])))
        example.reference.user_data["image"] = str(image)
        docs.append(example.reference)
    for kind in ("data", "corpus"):
        ready.world.folder(kind).mkdir(parents=True)
    DocBin(docs=docs, store_user_data=True).to_disk(ready.world.corpus("test"))
    (ready.world.folder("data") / "test.jsonl").write_text("")
    trained = trials.Trained(tmp_path / "model-best", 5.0)
    monkeypatch.setattr(evidence_command, "train", lambda ready, training, folder: trained)

    evidence_command.run_trials(ready, [1], None)
    result = evidence_command.gather(ready, [1], 1)
    assert list(result["settings"]) == list(evidence_command.SETTINGS)
    assert all(row["n"] == 4 and row["mentions_per_second"] > 0 for row in result["settings"].values())
    assert result["effects"]["dense_near_bm25"]["difference"] == 0
    assert result["test"]["mentions"] == 4
    assert result["test"]["sha256_with_pictures"] == worlds.split_sum(ready.world, "test")
    files = [evidence_command.metrics_file(ready.world, setting, 1) for setting in evidence_command.SETTINGS]
    measured = sum(json.loads(path.read_text())["trial"]["evaluate_seconds"] for path in files)
    assert result["seconds"] == pytest.approx(ready.seconds + 4 * 5 + measured, abs=0.1)
    for setting in evidence_command.SETTINGS:
        path = evidence_command.metrics_file(ready.world, setting, 1)
        settings = json.loads(path.read_text())["settings"]
        assert mentions_path(path).is_file()
        assert (settings["use_image"], settings["constrained"]) == (setting != "no-image", setting != "unconstrained")

    loaded = load_pipeline(str(trained.pipeline))
    pipe: Any = loaded.get_pipe("gemel_linker")
    prompts = pipe.stages.prompts(
        gather_mentions(
            [doc.ents for doc in read_docs(ready.world.corpus("test"), nlp.vocab)], pipe._reader, pipe.settings
        ),
        pipe.settings,
    )
    assert all(prompt.features is not None for prompt in prompts)
    assert search.prompt_lengths(loaded, ready.world.corpus("test")) == [prompt.length for prompt in prompts]


@pytest.mark.parametrize("name", ["evidence", "search"])
def test_project_commands(name: str) -> None:
    project = load_project_config(worlds.ROOT)
    [command] = [command for command in project["commands"] if command["name"] == name]
    assert command["script"] == [f"python -m benchmarks.{name}"]
    assert f"benchmarks/results/{name}.json" in command["outputs"]
    assert all((worlds.ROOT / path).exists() for path in command["deps"])
    needed, found = {f"benchmarks/{name}.py"}, set[str]()
    while needed - found:  # and what they import, in turn
        path = min(needed - found)
        found.add(path)
        text = (worlds.ROOT / path).read_text(encoding="utf8")
        needed |= {f"benchmarks/{module}.py" for module in re.findall(r"^from benchmarks\.(\w+) import", text, re.M)}
    assert {path for path in command["deps"] if path.startswith("benchmarks/")} == found


def test_a_trial_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    trial = tmp_path / "trials" / "full-1.json"
    with keeping.alone(trial), pytest.raises(Timeout), keeping.alone(trial, wait=False):
        pass
    with keeping.alone(trial, wait=False):  # let go again
        pass


def test_who_waits_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial, held, done = tmp_path / "full-1.json", threading.Event(), threading.Event()

    def hold() -> None:
        with keeping.alone(trial):
            held.set()
            done.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(30)
    threading.Timer(0.2, done.set).start()
    with keeping.alone(trial):
        assert done.is_set()
    other.join()
    assert "waiting for another process, which is at full-1.json" in capsys.readouterr().err


def test_from_nothing_deletes_what_it_makes_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = load_project_config(worlds.ROOT)
    commands = {command["name"]: command for command in project["commands"]}
    made = [path for name in project["workflows"]["all"] for path in commands[name]["outputs"]]
    left = ["corpus/evidence/dev.spacy", "corpus/evidence.lock", "training/evidence/full-1/model-best",
            "training/search/trials/x.json", "training/pretrain/state.safetensors", "metrics/evidence/full-1.json",
            "metrics/search/search.json", "data/evidence/test.jsonl"]  # fmt: skip
    for path in (*made, *left):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).mkdir() if "." not in Path(path).name else (tmp_path / path).write_text("x")

    def run(arguments: list[str], **options: Any) -> None:
        assert arguments[1:] == ["-m", "spacy", "project", "run", "all"]
        assert [path for path in made if (tmp_path / path).exists()] == []

    monkeypatch.setattr(mini_world, "ROOT", tmp_path)
    monkeypatch.setattr(mini_world.subprocess, "run", run)
    assert mini_world.run_from_nothing() >= 0
    assert all((tmp_path / path).exists() for path in left)


def test_evidence_leaves_the_trials_of_others_for_last(ready: worlds.Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, int, bool]] = []

    def run_trial(
        ready: Any, training: trials.Training, test: str, progress: Any, *, text_only: bool, wait: bool
    ) -> None:
        if training.name == "none" and training.seed == 1 and not wait:
            raise Timeout("another process has it")
        ran.append((training.name, training.seed, text_only))

    monkeypatch.setattr(evidence_command, "run_trial", run_trial)
    monkeypatch.setattr(evidence_command, "split_sum", lambda world, split: "")
    evidence_command.run_trials(ready, (1, 2), None)
    assert [name for name, _, _ in ran] == ["full", "random", "bm25", "full", "none", "random", "bm25", "none"]
    assert ran[-1] == ("none", 1, True) and {seed for _, seed, text_only in ran if text_only} == {1}
