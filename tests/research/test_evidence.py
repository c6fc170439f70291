"""The evidence: effects from outcomes, its grid, its fixed test set and its gates. Nothing is trained."""

import json
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from research import evidence as module
from research.evidence import Evidence, effects, figures, line_up, make_experiments, markdown
from research.mini_world import World
from research.statistics import Outcomes, outcomes
from spacy_gemel.evaluation.results import MentionResult
from spacy_gemel.utils.files import sha256_of
from tests.research.conftest import ROOT, FakeCommands, write_corpus
from tests.research.test_mini_world import pretrained_for

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
    unpaired = {name: scattered(correct, number) for number, (name, correct) in enumerate(settings.items())}
    row = effects(evidence(**{"full": right(0.9), **unpaired}))[effect]
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
    rows = effects(Evidence(bare.correct, {**bare.groups, "tail": nothing, "common": ~nothing}))
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


def result(doc: str) -> MentionResult:
    return MentionResult(doc, 0, 1, "a", "A", "A", None, seen=True, tail=False, image=True, in_kb=True)


def test_line_up() -> None:
    def run(*docs: str) -> Outcomes:
        return outcomes([result(doc) for doc in docs])

    whole = line_up({"full": [run("1", "2"), run("1", "2")], "no-image": [run("1", "2")]})
    assert {name: correct.shape for name, correct in whole.correct.items()} == {"full": (2, 2), "no-image": (1, 2)}
    with pytest.raises(ValueError, match="none and full were not evaluated on the same mentions"):
        line_up({"full": [run("1", "2")], "none": [run("2", "1")]})


@pytest.fixture
def world(folder: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world that is there already, with the evidence's grid."""
    world = World("evidence", 4, folder)
    (folder / "configs" / "evidence.yml").write_text((ROOT / module.GRID).read_text())

    def prepare(world: World) -> float:
        for split in ("train", "dev", "test"):
            world.corpus(split).parent.mkdir(parents=True, exist_ok=True)
            if not world.corpus(split).exists():
                write_corpus(world.corpus(split), 50)
        for file in (world.kb / "meta.json", world.folder("data") / "test.jsonl"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
        return 5.0

    prepare(world)
    monkeypatch.setattr(module, "ROOT", folder)
    monkeypatch.setattr(module, "World", lambda name, test: World("evidence", test, folder))
    monkeypatch.setattr(module, "prepare", prepare)
    monkeypatch.setattr(module, "check_test", lambda world: None)
    monkeypatch.setattr(module, "measure_gates", lambda root: {"gates": [], "dev": {}})
    monkeypatch.setattr(module, "describe_machine", dict)
    return world


def test_the_trials_of_the_evidence(world: World) -> None:
    """Four mappers per seed; without the image the seed has no effect, unless it chooses the demonstrations."""
    plan = make_experiments(world, (1, 2)).plan
    ids = [list(plan.rows["effects", index]) for index in range(6)]
    assert [len(row) for row in ids] == [2, 1, 2, 2, 2, 2]
    trainings = {trial.training.id: trial.training for trial in plan.trials.values() if trial.training}
    assert len(trainings) == 8
    random = trainings["retriever-random-2"].changes["components.gemel_linker.retriever"]
    assert random == {"@misc": "spacy_gemel.RandomRetriever.v1", "seed": "${system.seed}"}
    assert trainings["n-0-1"].changes == {"components.gemel_linker.n_demonstrations": 0}
    short = make_experiments(world, (1,), 8).plan.trials["full-1"].training
    assert short is not None
    for setting in ("training.max_steps", "training.optimizer.learn_rate.total_steps"):
        assert short.changes[setting] == 8


def test_it_runs_once_and_writes_its_result(world: World, commands: FakeCommands) -> None:
    result = module.run_evidence((1, 2, 3))
    assert len([call for call in commands.calls if call.startswith("train")]) == 12
    assert len([call for call in commands.calls if call.startswith("measure")]) == 16
    written = json.loads((world.root / "research" / "results" / "evidence.json").read_text())
    assert written == json.loads(json.dumps(result))
    assert set(written) == set(json.loads((ROOT / "research" / "results" / "evidence.json").read_text()))
    assert written["seconds"] >= 5 + 16 * 2
    assert (written["seeds"], written["test"]["mentions"]) == ([1, 2, 3], 40)
    assert written["settings"]["full"]["mentions_per_second"] == 20
    commands.calls.clear()
    module.run_evidence((1, 2, 3))
    assert commands.calls == [], "what is cached is not run again"
    module.run_evidence((1,))
    assert commands.calls == [] and (world.folder("metrics") / "result" / "evidence.json").is_file(), "a try"
    commands.broken = {"!full-1": RuntimeError}
    with pytest.raises(RuntimeError, match="full-1: it would not"):
        module.run_evidence((1, 2, 3), fresh=True)


def test_gates_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, scripts = tmp_path / "assets" / "mini" / "language_model", tmp_path / "scripts" / "mini_world"
    for path in (model / "model.safetensors", scripts / "gates.py"):
        path.parent.mkdir(parents=True)
        path.write_text("")
    (tmp_path / "project.yml").write_text("vars:\n  world_seed: 3\n")
    pretrained_for(tmp_path, 3)
    rows = {"gates": [{"name": "a", "accuracy": 0.9, "n": 10, "rule": ">= 0.80", "holds": True}], "dev": {"all": 0.5}}
    done: list[tuple[str, ...]] = []

    def run_command(root: Path, *arguments: str, log: IO[str] | None = None) -> None:
        done.append(arguments)
        (root / arguments[2]).write_text(json.dumps(rows))

    monkeypatch.setattr(module, "run_command", run_command)
    for _ in range(2):
        assert module.measure_gates(tmp_path) == rows
    [(script, measured, _, *seed)] = done
    assert (script, measured) == ("scripts/mini_world/gates.py", "assets/mini/language_model")
    assert seed == ["--seed", "3"]
    for changed in (model / "model.safetensors", scripts / "gates.py"):
        changed.write_text("x")
        module.measure_gates(tmp_path)
    assert len(done) == 3


def test_the_test_set_is_the_fixed_one(tmp_path: Path) -> None:
    world = World(root=tmp_path)
    rows, fixed = world.folder("data") / "test.jsonl", tmp_path / module.FIXED_TEST
    for path in (rows, fixed):
        path.parent.mkdir(parents=True)
    rows.write_text("{}\n")
    fixed.write_text(f"{sha256_of(rows)}  test.jsonl\n")
    module.check_test(world)
    rows.write_text("[]\n")
    with pytest.raises(RuntimeError, match=r"test.jsonl is not the test set that was fixed"):
        module.check_test(world)
