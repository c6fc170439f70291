"""The benchmark of a workflow's steps, on steps of a line each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import project_steps
from benchmarks.memory import memory_mb
from benchmarks.project_steps import family, main
from research.commands import CommandFailed

STEP = """
import sys, time
from pathlib import Path
name, size = sys.argv[1:]
held = bytearray(int(size))
Path(name + ".ready").touch()
while not Path(name + ".seen").exists():
    time.sleep(0.01)
"""
PROJECT = """
commands:
  - name: large
    script: ["python step.py large 1000000000"]
  - name: small
    script: ["python step.py small 0"]
  - name: broken
    script: ["python -c 'raise SystemExit(3)'"]
workflows:
  real: [large, small]
  bad: [broken]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_step_has_its_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step stays until its memory has been looked at since it had it."""
    (tmp_path / "project.yml").write_text(PROJECT)
    (tmp_path / "step.py").write_text(STEP)
    ready: list[Path] = []

    def watched(pid: int) -> list[int]:
        for path in ready:
            path.with_suffix(".seen").touch()
        ready[:] = tmp_path.glob("*.ready")
        return family(pid)

    monkeypatch.setattr(project_steps, "family", watched)
    main([], tmp_path)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    large, small = result["steps"]["large"], result["steps"]["small"]
    assert 950 < large["peak_mb"] - small["peak_mb"] < 1050
    assert result["peak_mb"] == large["peak_mb"]
    assert json.loads((tmp_path / "benchmarks" / "results" / "steps-real.json").read_text()) == result
    with pytest.raises(CommandFailed, match="broken"):
        main(["bad"], tmp_path)
    with pytest.raises(SystemExit, match="give one of real, bad"):
        main(["none"], tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_is_gone_has_no_memory() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert memory_mb("VmRSS", process.pid) > 0
    process.communicate(b"\n")
    assert (memory_mb("VmRSS", process.pid), family(process.pid)) == (0.0, [process.pid])
