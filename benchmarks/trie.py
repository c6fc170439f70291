"""The trie of a knowledge base of six million names: size, build, opening, against nested dicts and a sorted list.

python -m benchmarks.trie [--names N] [--repeats N]

The names are made (benchmarks/made_names.py) and go through build-kb as JSON lines. What is timed or weighed runs in a
process of its own (benchmarks/trie_steps.py). Only a run with the default number of names writes to benchmarks/results.
It takes about ten minutes and 2 GB of the temporary folder's disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from bisect import bisect_left, bisect_right
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.made_names import MadeNames, make_names, write_entities
from benchmarks.timing import spread
from benchmarks.trie_steps import save
from research.machine import describe_machine
from spacy_gemel.kb.trie import NameTrie, TrieArrays
from spacy_gemel.utils.files import write_json

ROOT = Path(__file__).resolve().parent.parent
NAMES = 6_000_000
DICT_NAMES = 1_000_000
PREFIXES = 10_000
# what the figures must be: at least, at most
LIMITS: dict[str, tuple[float, float]] = {
    "edges": (24e6, 2**31),
    "prefix_name_share": (0.1, 1),
    "build_seconds": (0, 60),
    "build_peak_mb": (0, 2500),
    "bytes": (0, 250e6),
    "open_milliseconds": (0, 50),
    "resident_mb_after_open": (0, 50),
    "dict_memory_ratio": (20, float("inf")),
    "dict_build_ratio": (3, float("inf")),
    "prefixes_checked": (PREFIXES, PREFIXES),
    "prefixes_wrong": (0, 0),
}


def main(arguments: list[str]) -> None:
    """Measure everything, print it, and keep it if the size is the default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trie", description=__doc__.splitlines()[0])
    parser.add_argument("--names", type=int, default=NAMES, help=f"entities to make (default {NAMES})")
    parser.add_argument("--repeats", type=int, default=3, help="of opening, and of the comparison with dicts")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = make_names(options.names)
        figures = measure_kb(names, folder, options.repeats)
        figures |= compare_with_dicts(names.first(min(DICT_NAMES, len(names))), folder, options.repeats)
        figures |= check_prefixes(names, NameTrie.open(folder / "kb"))
    machine = describe_machine()
    machine["versions"]["pyarrow"] = version("pyarrow")
    holds = {key: low <= figures[key] <= high for key, (low, high) in LIMITS.items()}
    result = {"command": "python -m benchmarks.trie", **figures, "holds": holds, "machine": machine}
    if options.names == NAMES:
        write_json(ROOT / "benchmarks" / "results" / "trie.json", result)
    for ratio in ("dict_memory_ratio", "dict_build_ratio"):
        repeats = figures[f"{ratio}_spread"]
        print(f"{ratio}: {figures[ratio]} (from {repeats['least']} to {repeats['most']})")
    print(f"fp32 2048^3 matrix product: {machine['fp32_matmul_2048_gflops']} GFLOP/s")
    print(json.dumps(result))


def step(name: str, *arguments: Path) -> dict[str, Any]:
    """Run one step of benchmarks.trie_steps in a new process."""
    command = [sys.executable, "-m", "benchmarks.trie_steps", name, *map(str, arguments)]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return figures


def measure_kb(names: MadeNames, folder: Path, repeats: int) -> dict[str, Any]:
    """Build folder/kb and open it."""
    write_entities(names, folder / "entities.jsonl")
    kb = folder / "kb"
    figures = step("build", folder / "entities.jsonl", kb)
    (folder / "entities.jsonl").unlink()
    opened = [step("open", kb) for _ in range(repeats)]
    milliseconds = spread([run["milliseconds"] for run in opened], 2)
    return {
        **figures,
        "build_seconds": round(figures["build_seconds"], 2),
        "build_kb_seconds": round(figures["build_kb_seconds"], 1),
        "prefix_name_share": round(prefix_names(TrieArrays.open(kb)) / figures["distinct_names"], 3),
        "tokens_per_name": round(len(names.tokens) / len(names), 2),
        "bytes": sum((kb / file).stat().st_size for file in TrieArrays.file_names()),
        "bytes_by_file": {path.name: path.stat().st_size for path in sorted(kb.iterdir())},
        "entity_bytes": (kb / "entities.arrow").stat().st_size,
        "open_milliseconds": milliseconds["median"],
        "open_milliseconds_spread": milliseconds,
        "resident_mb_after_open": round(max(run["mb"] for run in opened), 1),
        "resident_mb_after_50_lookups": round(max(run["mb_after_50_lookups"] for run in opened), 1),
    }


def prefix_names(arrays: TrieArrays) -> int:
    """How many names are the prefix of another: nodes at which one ends and another continues."""
    inner = np.flatnonzero(np.diff(arrays.offsets) > 1)
    last = arrays.offsets[inner + 1] - 1
    return int(np.count_nonzero(arrays.tokens[last] == np.iinfo(arrays.tokens.dtype).max))


def compare_with_dicts(names: MadeNames, folder: Path, repeats: int) -> dict[str, Any]:
    """The arrays against nested dicts of the same names: how many times less memory and CPU time, by repeat.

    Raises RuntimeError if the dicts do not hold what the arrays do.
    """
    save(names, folder / "names")
    memory, build = [], []
    for _ in range(repeats):
        dicts, arrays, mapped = (step(name, folder / "names") for name in ("dicts", "arrays", "mapped"))
        if dicts["edges"] != arrays["edges"]:
            raise RuntimeError(f"the dicts have {dicts['edges']} edges, the trie {arrays['edges']}")
        memory.append(dicts["mb"] / max(mapped["mb"], 0.1))  # a small trie may seem to take nothing
        build.append(dicts["seconds"] / arrays["seconds"])
    memory_spread, build_spread = spread(memory, 1), spread(build, 1)
    return {
        "dict_names": len(names),
        "dict_edges": dicts["edges"],
        "dict_mb": round(dicts["mb"], 1),
        "dict_seconds": round(dicts["seconds"], 2),
        "dict_memory_ratio": memory_spread["median"],
        "dict_memory_ratio_spread": memory_spread,
        "dict_build_ratio": build_spread["median"],
        "dict_build_ratio_spread": build_spread,
    }


def check_prefixes(names: MadeNames, trie: NameTrie, n: int = PREFIXES, seed: int = 1) -> dict[str, Any]:
    """Ask trie and sorted list for random prefixes: names cut anywhere, one in ten with another last token."""
    flat, starts = names.tokens.astype(">u2").tobytes(), (2 * names.starts).tolist()
    listed = [flat[start:stop] for start, stop in pairwise(starts)]
    ordered = sorted(listed)
    random = np.random.default_rng(seed)
    wrong = known = 0
    for row in random.integers(0, len(listed), n).tolist():
        prefix = listed[row]
        prefix = prefix[: 2 * int(random.integers(0, len(prefix) // 2 + 1))]
        if prefix and random.random() < 0.1:
            prefix = prefix[:-2] + listed[int(random.integers(0, len(listed)))][-2:]
        tokens = np.frombuffer(prefix, dtype=">u2").tolist()
        following, n_rows = of_list(ordered, prefix)
        node = trie.walk(tokens)
        next_tokens = [] if node is None else trie.tokens[trie.offsets[node] : trie.offsets[node + 1]].tolist()
        rows = trie.rows_of(tokens).tolist()
        best_first = sorted(rows, key=lambda row: (-names.counts[row], row))
        same = next_tokens == following + [trie.end] * bool(n_rows) and len(set(rows)) == len(rows) == n_rows
        same &= rows == best_first and all(listed[row] == prefix for row in rows)
        same &= (node is None) == (not following and not n_rows)
        wrong += not same
        known += node is not None
    return {"prefixes_checked": n, "prefixes_wrong": wrong, "prefixes_of_names": known}


def of_list(ordered: list[bytes], prefix: bytes) -> tuple[list[int], int]:
    """The tokens that follow a prefix in a sorted list of names (two bytes a token), and how many names end there."""
    index, stop = bisect_right(ordered, prefix), bisect_left(ordered, prefix + b"\xff\xff")
    n_rows = index - bisect_left(ordered, prefix)
    following = []
    while index < stop:
        token = int.from_bytes(ordered[index][len(prefix) : len(prefix) + 2])
        following.append(token)
        index = bisect_left(ordered, prefix + (token + 1).to_bytes(2))
    return following, n_rows


if __name__ == "__main__":
    main(sys.argv[1:])
