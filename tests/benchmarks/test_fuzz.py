"""The fuzzer's own parts: what counts as a finding, what a change is, and that a process is started for them."""

import itertools
import math
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.fuzz_targets import SilentError, Target
from benchmarks.mutate import mutate

SEEDS = {"in.jsonl": b'{"a": [1, 2]}\n{"b": "x"}\n', "in.bin:zlib": zlib.compress(b'{"a": 1}')}


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> fuzz.Guard:
    return fuzz.Guard(tmp_path_factory.getbasetemp())


def attempt(action: Callable[[Path], object], folder: Path, guard: fuzz.Guard, data: bytes = b"changed") -> str:
    target = Target(SEEDS, lambda kind, data, folder: action(folder) and None, words=("my file",))
    return fuzz.attempt(target, "in.jsonl", data, folder / "try", guard)[0]


def fail(error: Exception) -> Callable[[Path], object]:
    def action(_: Path) -> object:
        raise error

    return action


def test_what_is_a_finding(tmp_path: Path, guard: fuzz.Guard) -> None:
    assert attempt(lambda _: None, tmp_path, guard) == "taken"
    assert attempt(fail(ValueError("in.jsonl is broken")), tmp_path, guard) == "refused"
    assert attempt(fail(OSError("My file is broken")), tmp_path, guard) == "refused"
    for error in (ValueError("broken"), KeyError("in.jsonl"), MemoryError(), SilentError("in.jsonl")):
        assert attempt(fail(error), tmp_path, guard).startswith("finding: "), error
    valid = attempt(fail(ValueError("in.jsonl is broken")), tmp_path, guard, SEEDS["in.jsonl"])
    assert valid == "finding: in.jsonl, valid and not taken"


def test_what_must_not_be_done(tmp_path: Path, guard: fuzz.Guard) -> None:
    elsewhere = Path(__file__).with_name("written")
    assert attempt(lambda folder: (folder / "a").write_text("a"), tmp_path, guard) == "taken"
    try:
        assert attempt(lambda _: elsewhere.write_text("a"), tmp_path, guard) == "finding: it wrote elsewhere"
    finally:
        elsewhere.unlink()
    ran = attempt(lambda _: subprocess.run([sys.executable, "-c", ""]), tmp_path, guard)
    assert ran == "finding: it did subprocess.Popen"


def test_changes_are_the_same_again_and_differ() -> None:
    for seed in SEEDS.values():
        changed = [mutate(seed, [*SEEDS.values()], random.Random(number)) for number in range(200)]
        assert changed == [mutate(seed, [*SEEDS.values()], random.Random(number)) for number in range(200)]
        assert len({*changed}) > 100


def test_a_process_says_what_comes_of_each_input(tmp_path: Path) -> None:
    events = fuzz.events("images", tmp_path, seed=0, start=0, end=math.inf)
    assert [event["result"] for event in itertools.islice(events, 5)] == ["taken"] * 5  # the valid ones
    events.close()
