"""What runs beside us: a command holds its caller's lock, and a worker says which trial it is at."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from research.grid import worker
from research.grid.keeping import read_object
from spacy_gemel.utils.files import lock_file
from tests.research.grid.conftest import grid_of

CALLER = """
import sys
from pathlib import Path
from research.grid import run
from research.grid import trials
from research.grid.grid import read_grid

real = trials.run

def slow(root, *arguments, log=None, keep_open=()):
    told = "import os, pathlib, time; pathlib.Path('child').write_text(str(os.getpid())); time.sleep(120)"
    real(root, "-c", told, log=log, keep_open=keep_open)

trials.run = slow
grid = read_grid(Path("configs/grid.yml"))
run.run_grid(run.make_lab(grid, Path("out")), grid.tables)
"""


def wait_for(is_so: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def is_free(lock: Path) -> bool:
    try:
        with lock_file(lock, "taken"):
            return True
    except ValueError:
        return False


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_training_that_outlives_a_killed_run_keeps_the_folder(index: Path) -> None:
    """Or the next run would train into the same folder beside it."""
    grid_of(index, {"t": {"rows": [{"name": "full"}]}})
    caller = subprocess.Popen([sys.executable, "-c", CALLER], stderr=subprocess.DEVNULL)
    child = index / "child"
    try:
        wait_for(lambda: child.is_file() and child.read_text() != "")
        caller.send_signal(signal.SIGKILL)
        assert caller.wait(30) == -signal.SIGKILL
        assert not is_free(index / "out" / ".lock")
        command = [sys.executable, "-m", "spacy_gemel", "experiments", "configs/grid.yml", "--output", "out"]
        refused = subprocess.run(command, capture_output=True, text=True)
        assert refused.returncode == 1
        assert "a command that outlived the one it was started by; wait for it" in " ".join(refused.stderr.split())
        assert (index / "out" / "trainings" / "full-42.partial").is_dir()
    finally:
        caller.kill()
        if child.is_file():
            os.kill(int(child.read_text()), signal.SIGKILL)
    wait_for(lambda: is_free(index / "out" / ".lock"))


def test_a_worker_says_which_trial_it_is_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a file that is not there before the pipeline is loaded: what is killed is blamed by it."""
    monkeypatch.chdir(tmp_path)
    trials = [{"output": f"{name}.json", "key": "x", "options": {}, "trial": {"id": name}} for name in ("a", "b", "c")]
    (tmp_path / "job.json").write_text(json.dumps({"pipeline": "p", "data": "d", "gpu_id": -1, "trials": trials}))
    at = tmp_path / "at.json"
    seen: list[str] = []

    def load(*arguments: Any, **others: Any) -> None:
        assert not at.exists()

    def evaluate(*arguments: Any, **others: Any) -> tuple[dict[str, Any], list[Any]]:
        seen.append(read_object(at)["output"])
        if seen[-1] == "b.json":
            raise SystemExit(9)
        return {"n": 0}, []

    monkeypatch.setattr(worker, "load_pipeline", load)
    monkeypatch.setattr(worker, "evaluate", evaluate)
    with pytest.raises(SystemExit):
        worker.main(["job.json"])
    assert seen == ["a.json", "b.json"]
    assert not (tmp_path / "errors.json").exists()
    assert (tmp_path / "a.json").is_file() and not (tmp_path / "b.json").exists()
