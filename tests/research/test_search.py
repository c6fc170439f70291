"""The search: its choices, and its trials through the runner. Nothing is trained."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from research import search
from research.mini_world import World
from tests.research.conftest import FakeCommands, write_corpus

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
    assert len(trial.calls) == len(set(trial.calls)) == 2 * search.count_settings(START, VALUES) == 10
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
    assert search.count_settings({**START, "rate": 9}, VALUES) == 6


def test_prompts_that_are_too_long_are_not_chosen() -> None:
    best, second = (1, "newline"), (2, "newline")
    trial = FakeTrial({best: 0.9, second: 0.8}, {best: search.PROMPT_LIMIT})
    assert search.coordinate_search(START, VALUES, [1], trial)[0]["rate"] == 2
    everywhere = {(rate, end): search.PROMPT_LIMIT for rate in (1, 2, 3, 4) for end in ("newline", "eos")}
    assert search.coordinate_search(START, VALUES, [1], FakeTrial({best: 0.9}, everywhere))[0] == START


def test_trials_are_run_once_on_dev_data(folder: Path, commands: FakeCommands, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(root=folder)
    for split in ("train", "dev"):
        world.corpus(split).parent.mkdir(parents=True, exist_ok=True)
        write_corpus(world.corpus(split), 50)
    world.kb.mkdir(parents=True)
    (world.kb / "meta.json").write_text("{}")
    monkeypatch.setattr(search, "World", lambda: world)
    monkeypatch.setattr(search, "ROOT", folder)
    monkeypatch.setattr(search, "prepare", lambda world: 5.0)
    monkeypatch.setattr(search, "describe_machine", dict)
    start = search.Searcher(world).start
    assert list(start) == list(search.COORDINATES)
    result = search.run_search((1, 2))
    count = 2 * search.count_settings(start, search.COORDINATES)
    assert count == len(result["trials"]) == 24
    assert len(commands.calls) == 2 * count
    assert result["chosen"] == start, "all have the same accuracy"
    jobs = [json.loads(path.read_text()) for path in folder.glob("training/search/trainings/*/job.json")]
    assert {job["data"] for job in jobs} == {"corpus/evidence/dev.spacy"}
    assert {(row["mean_prompt"], row["longest_prompt"]) for row in result["trials"]} == {(200.0, 300)}
    written = json.loads((folder / "research" / "results" / "search.json").read_text())
    assert written == json.loads(json.dumps(result))
    commands.calls.clear()
    assert search.run_search((1, 2))["trials"] == result["trials"]
    assert commands.calls == []
    search.run_search((1,), 8)
    assert (folder / "metrics" / "search" / "search.json").is_file(), "a try"
