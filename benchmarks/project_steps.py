"""Seconds and peak memory of each step of a workflow of project.yml.

python -m benchmarks.project_steps [WORKFLOW] [--vars.NAME VALUE ...]

By default `real`. Each step is run anew (`spacy project run STEP --force`), so the figures are those of a fresh clone,
and with other variables where they are given. The memory is that of a step's processes together, as twice a second it
is, with pages of files that they read; so a peak of less than half a second may be missed. Needs Linux's /proc. Only
`real` as it is writes to benchmarks/results.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import srsly

from benchmarks.memory import memory_mb
from research.commands import CommandFailed, report
from research.machine import describe_machine
from research.mini_world import ROOT
from spacy_gemel.utils.files import write_json

INTERVAL = 0.5  # seconds


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> None:
    """Run, print, and for `real` keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.project_steps", description=__doc__.split("\n")[0])
    parser.add_argument("workflow", nargs="?", default="real")
    options, variables = parser.parse_known_args(arguments)
    steps = {}
    for step in steps_of(options.workflow, root):
        report(step)
        steps[step] = measure(["-m", "spacy", "project", "run", step, ".", "--force", *variables], root)
    given = [options.workflow, *(Path(word).name for word in variables)]  # without the folders of this machine
    result = {
        "command": " ".join(["python -m benchmarks.project_steps", *given]),
        "steps": steps,
        "seconds": round(sum(step["seconds"] for step in steps.values()), 1),
        "peak_mb": max(step["peak_mb"] for step in steps.values()),
        "machine": describe_machine(),
    }
    if options.workflow == "real":
        write_json(root / "benchmarks" / "results" / "steps-real.json", result)
    print(json.dumps(result))


def steps_of(workflow: str, root: Path) -> list[str]:
    """The commands of a workflow. Raises SystemExit if there is none of this name."""
    workflows = srsly.read_yaml(root / "project.yml")["workflows"]
    if workflow not in workflows:
        raise SystemExit(f"project.yml has no workflow {workflow!r}: give one of {', '.join(workflows)}")
    return list(workflows[workflow])


def measure(arguments: Sequence[str], root: Path) -> dict[str, float]:
    """Run Python in `root`, its output on stderr. Raises CommandFailed if it fails."""
    begin, peak = time.perf_counter(), 0.0
    process = subprocess.Popen([sys.executable, *arguments], cwd=root, stdout=2)  # stderr, whatever sys.stderr is
    while process.poll() is None:
        peak = max(peak, sum(memory_mb("VmRSS", pid) for pid in family(process.pid)))
        time.sleep(INTERVAL)
    if process.returncode:
        raise CommandFailed(arguments, process.returncode, None)
    return {"seconds": round(time.perf_counter() - begin, 1), "peak_mb": round(peak)}


def family(pid: int) -> list[int]:
    """A process and all that come from it; of one that is gone no more than itself."""
    try:
        files = [*Path(f"/proc/{pid}/task").glob("*/children")]
        children = [int(child) for file in files for child in file.read_text(encoding="ascii").split()]
    except OSError:
        children = []
    return [pid, *(each for child in children for each in family(child))]


if __name__ == "__main__":
    main(sys.argv[1:])
