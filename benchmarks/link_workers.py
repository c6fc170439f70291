"""Rows per second of `link` with one process, with two, and with Ray's actors, in one run.

python -m benchmarks.link_workers [--pipeline training/model-best] [--source test.jsonl] [--rows 600] [--repeats 3]

Needs `spacy project run all` to have been run. The rows are repeated until there are enough. `rows_per_second` counts
from the first block to the last, without loading the pipeline; `over_plain` is beside the plain command in the same
turn. All outputs are the same, row for row, or the run fails. Without the extra [ray] its part is left out.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

from spacy.vocab import Vocab

from benchmarks.timing import spread
from research.commands import report
from research.machine import describe_machine
from research.mini_world import ROOT
from spacy_gemel.bulk.sources import SourceRow, read_rows
from spacy_gemel.bulk.workers import Engine, Processes, RayActors, ThisProcess
from spacy_gemel.pipeline.loaded_pipeline import load_pipeline as load
from spacy_gemel.utils.files import write_json

BLOCK = 32


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default sizes keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.link_workers", description=__doc__.split("\n")[0])
    parser.add_argument("--pipeline", type=Path, default=ROOT / "training" / "model-best")
    parser.add_argument("--source", type=Path, default=ROOT / "data" / "mini" / "test.jsonl")
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    if not options.pipeline.is_dir() or not options.source.is_file():
        raise SystemExit(f"{options.pipeline} or {options.source} is missing: run `python -m spacy project run all`")
    loaded = partial(load, str(options.pipeline))
    engines: dict[str, Callable[[], Engine]] = {
        "plain": lambda: ThisProcess(loaded()),
        "processes_2": lambda: Processes(loaded, 2),
    }
    if find_spec("ray") is not None:
        engines |= {f"ray_{n}": partial(RayActors, loaded, n) for n in (1, 2)}
    with tempfile.TemporaryDirectory() as folder:
        source = [*read_rows(options.source, Vocab())]
        rows = [*islice(chain.from_iterable(repeat(source)), options.rows)]
        rates: dict[str, list[float]] = {name: [] for name in engines}
        for turn in range(options.repeats):
            first: list[dict[str, Any]] | None = None
            for name, make in engines.items():
                report(f"{turn + 1} of {options.repeats}: {name}")
                rate, lines = measure(make(), rows, Path(folder))
                if first is not None and lines != first:
                    raise SystemExit(f"{name} has linked the rows otherwise than the plain command")
                first = lines
                rates[name].append(rate)
    result = {
        "command": "python -m benchmarks.link_workers",
        "rows": len(rows),
        "rows_per_second": {name: spread(values, 2) for name, values in rates.items()},
        "over_plain": {
            name: spread([a / b for a, b in zip(values, rates["plain"], strict=True)], 2)
            for name, values in rates.items()
        },
        "machine": describe_machine(),
    }
    if arguments is None or not arguments:
        write_json(ROOT / "benchmarks" / "results" / "link-workers.json", result)
    print(json.dumps(result))


def measure(engine: Engine, rows: Sequence[SourceRow], folder: Path) -> tuple[float, list[dict[str, Any]]]:
    """Rows per second once all processes link, and the answers.

    Blocks are waiting for each process from the start: the clock begins when the first of them all are done, and what
    was under way then is as much as is under way at any time.
    """
    answers: list[dict[str, Any]] = []
    warm, done, begin = 4, 0, 0.0
    for number, (block, result) in enumerate(engine.link(_blocks([*rows[: warm * BLOCK], *rows]), folder), 1):
        if number > warm:
            done += len(block)
            answers += [{"line": line["line"], "ids": [m["kb_id"] for m in line["mentions"]]} for line in result.lines]
        if number == warm:
            begin = time.perf_counter()
    return done / (time.perf_counter() - begin), answers


def _blocks(rows: Sequence[SourceRow]) -> Iterator[Sequence[SourceRow]]:
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


if __name__ == "__main__":
    main()
