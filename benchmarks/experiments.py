"""The paper's tables on the mini world: `spacy project run experiments`, and what it gave, kept.

python -m benchmarks.experiments [--fresh]

Goes on where it was interrupted; --fresh forgets what is kept. Nothing is kept here of a run with a failed trial.
`wall_seconds` is how long the command took where it ran all trials in one go, and null where some were kept.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.keeping import write_json
from benchmarks.machine import describe_machine
from spacy_gemel.utils.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
OUT = "metrics/experiments"
COMMAND = "python -m spacy project run experiments"


def main(arguments: Sequence[str]) -> None:
    """Run what is not kept, and keep the tables. Raises CalledProcessError where a trial failed."""
    if "--fresh" in arguments:
        shutil.rmtree(ROOT / OUT, ignore_errors=True)
    resumed = any((ROOT / OUT).glob("trials/*")) or any((ROOT / OUT).glob("trainings/*"))
    start = time.perf_counter()
    subprocess.run([sys.executable, *COMMAND.split()[1:]], cwd=ROOT, check=True, stdout=sys.stderr)
    seconds = round(time.perf_counter() - start, 1)
    keep(ROOT / OUT, ROOT / "benchmarks" / "results", None if resumed else seconds)


def keep(made: Path, folder: Path, wall_seconds: float | None) -> None:
    """Copy the results, with the machine that they were made on and how long that took in one go."""
    result = json.loads((made / "experiments.json").read_text(encoding="utf8"))
    # its `seconds` are those of the trials, whenever they were run
    result = {"command": COMMAND, **result, "wall_seconds": wall_seconds, "machine": describe_machine()}
    with write_whole(folder / "experiments.md") as partial:
        shutil.copyfile(made / "experiments.md", partial)
    write_json(folder / "experiments.json", result)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
