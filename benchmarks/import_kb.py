"""The import of a made-up Wikipedia dump: seconds, and whether memory stays the same whatever its size.

python -m benchmarks.import_kb [--pages 1000000]

Makes the dumps of a wiki with so many articles, and half as many redirects, and of one with a quarter of that
(benchmarks/made_wiki.py), and imports each in a process of its own. Only a run of the default size writes to
benchmarks/results. It takes a few minutes and 1 GB of the temporary folder's disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.made_wiki import make_wiki
from benchmarks.memory import peak_mb
from research.commands import report
from research.machine import describe_machine
from spacy_gemel.utils.files import write_json

ROOT = Path(__file__).resolve().parent.parent
PAGES = 1_000_000
LIMIT_SECONDS = 90
LIMIT_GROWTH_MB = 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both sizes, print, and at the default size keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_kb", description=__doc__.split("\n")[0])
    parser.add_argument("--pages", type=int, default=PAGES, help=f"articles, a multiple of 40 (default {PAGES})")
    parser.add_argument("--import", dest="folder", type=Path, help=argparse.SUPPRESS)  # what the new process does
    options = parser.parse_args(arguments)
    if options.folder:
        print(json.dumps(one_import(options.folder)))
        return
    sizes = [measure(options.pages // 4), measure(options.pages)]
    small, large = sizes
    growth_mb = round(large["peak_mb"] - small["peak_mb"], 1)
    result = {
        "command": "python -m benchmarks.import_kb",
        "pages": options.pages,
        "seconds": large["seconds"],
        "processor_seconds": large["processor_seconds"],
        "peak_mb": large["peak_mb"],
        "growth_mb": growth_mb,
        "sizes": sizes,
        "holds": {
            "processor_seconds": large["processor_seconds"] <= LIMIT_SECONDS,
            "growth_mb": growth_mb <= LIMIT_GROWTH_MB,
            "all_is_there": all(size["all_is_there"] for size in sizes),
        },
        "machine": describe_machine(),
    }
    if options.pages == PAGES:
        write_json(ROOT / "benchmarks" / "results" / "import-kb.json", result)
    print(json.dumps(result))


def measure(pages: int) -> dict[str, Any]:
    """Make the dumps of a wiki and import them in a new process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report(f"making the dumps of {pages} articles")
        wiki = make_wiki(pages, folder)
        report(f"importing {pages} articles")
        command = [sys.executable, "-m", "benchmarks.import_kb", "--import", name]
        run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        figures: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
        expected = {
            "entities": wiki.articles,
            "aliases": wiki.redirects - wiki.circles,
            "sum_of_counts": wiki.links_to_articles,
        }
        counts = {key: figures.pop(key) for key in expected} | {"sum_of_counts": sum_of_counts(folder)}
        return {**asdict(wiki), **figures, **counts, "all_is_there": counts == expected}


def sum_of_counts(folder: Path) -> int:
    """Of the entities that were written."""
    with (folder / "out" / "entities.jsonl").open(encoding="utf-8") as file:
        return sum(json.loads(line).get("count", 0) for line in file)


def one_import(folder: Path) -> dict[str, Any]:
    """Import the dumps of a folder in this process."""
    from spacy_gemel.data.knowledge_bases.importer import import_kb

    begin, processor = time.perf_counter(), time.process_time()
    report = import_kb("wikipedia", sorted(folder.glob("*.sql.gz")), folder / "out" / "entities.jsonl")
    return {
        "seconds": round(time.perf_counter() - begin, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "peak_mb": round(peak_mb(), 1),
        "temporary_disk_mb": round(report.disk_mb, 1),
        "entities": report.written["entities"],
        "aliases": report.written["aliases"],
        "sum_of_counts": 0,
    }


if __name__ == "__main__":
    main()
