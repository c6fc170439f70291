"""The benchmark of a workflow's steps, on steps of a line each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.memory import memory_mb
from benchmarks.project_steps import family, main
from research.commands import CommandFailed

PROJECT = """
commands:
  - name: large
    script: ["python -c 'import time; a = bytearray(10**9); time.sleep(3)'"]
  - name: small
    script: ["python -c 'import time; time.sleep(1)'"]
  - name: broken
    script: ["python -c 'raise SystemExit(3)'"]
workflows:
  real: [large, small]
  bad: [broken]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_step_has_its_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "project.yml").write_text(PROJECT)
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
