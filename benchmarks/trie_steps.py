"""What the trie's benchmark measures in a process of its own, where nothing else takes memory or warms a cache.

python -m benchmarks.trie_steps STEP FOLDER ...: prints a JSON object.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.made_names import CHUNK, VOCABULARY, DigitTokenizer, MadeNames
from benchmarks.memory import peak_mb, resident_mb


def build(entities: str, kb_dir: str) -> dict[str, Any]:
    """build-kb of a JSON lines file."""
    from spacy_gemel.kb.builder import build_kb

    report = build_kb(entities, kb_dir, DigitTokenizer())
    return {
        "build_seconds": report.trie_seconds,
        "build_kb_seconds": report.seconds,
        "build_peak_mb": round(peak_mb()),
        "edges": report.meta.edges,
        "names": report.meta.names,
        "distinct_names": report.meta.distinct_names,
    }


def open_kb(kb_dir: str) -> dict[str, Any]:
    """The first opening of a knowledge base in a process, and then some entities of it."""
    from spacy_gemel.kb.knowledge_base import KnowledgeBase

    start_mb = resident_mb()
    begin = time.perf_counter()
    kb = KnowledgeBase.open(kb_dir)
    seconds = time.perf_counter() - begin
    opened = resident_mb()
    for row in np.random.default_rng(0).integers(0, len(kb), 50).tolist():
        if kb.row(kb.entity(row).kb_id) != row:
            raise AssertionError(f"row {row} is not found by its id")
    return {"milliseconds": 1000 * seconds, "mb": opened - start_mb, "mb_after_50_lookups": resident_mb() - start_mb}


def load(folder: str) -> MadeNames:
    """The names of a folder that ``save`` wrote."""
    return MadeNames(*(np.load(Path(folder) / f"{field.name}.npy") for field in fields(MadeNames)))


def save(names: MadeNames, folder: Path) -> None:
    """Write names for the steps below."""
    folder.mkdir()
    for field in fields(names):
        np.save(folder / f"{field.name}.npy", getattr(names, field.name))


def dicts(folder: str) -> dict[str, Any]:
    """Nested dicts as GENRE has them, with the row where a name ends; equal tokens share one int object.

    Seconds are of the processor, here and in ``arrays``: both are one thread, and other work does not change them.
    Edges are counted with one for the root, as the trie's arrays have it.
    """
    names = load(folder)
    ids = list(range(VOCABULARY))
    root: dict[int, Any] = {}
    start_mb, seconds = resident_mb(), 0.0
    for first in range(0, len(names), CHUNK // 10):
        lists = [[ids[token] for token in name] for name in names.lists(first, min(first + CHUNK // 10, len(names)))]
        begin = time.process_time()
        for row, name in enumerate(lists, first):
            node = root
            for token in name:
                child = node.get(token)
                if child is None:
                    child = node[token] = {}
                node = child
            node[-1] = row
        seconds += time.process_time() - begin
    mb = resident_mb() - start_mb
    return {"seconds": seconds, "mb": mb, "edges": 1 + edges_below(root)}


def edges_below(root: dict[int, Any]) -> int:
    """Edges of nested dicts, those where a name ends included."""
    edges, nodes = 0, [root]
    while nodes:
        node = nodes.pop()
        edges += len(node)
        nodes.extend(child for token, child in node.items() if token >= 0)
    return edges


def arrays(folder: str) -> dict[str, Any]:
    """The trie's arrays from the same names, built and saved."""
    from spacy_gemel.kb.trie_builder import build_trie

    names = load(folder)
    begin = time.process_time()
    trie = build_trie(names.tokens, np.diff(names.starts), np.arange(len(names)), names.counts, VOCABULARY)
    trie.save(Path(folder))
    return {"seconds": time.process_time() - begin, "edges": len(trie.tokens)}


def mapped(folder: str) -> dict[str, Any]:
    """Memory of the saved arrays once all of them was read."""
    from spacy_gemel.kb.trie import TrieArrays

    start_mb = resident_mb()
    opened = TrieArrays.open(Path(folder))
    for field in fields(opened):
        getattr(opened, field.name).max()
    return {"mb": resident_mb() - start_mb}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "build": build,
    "open": open_kb,
    "dicts": dicts,
    "arrays": arrays,
    "mapped": mapped,
}

if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](*sys.argv[2:])))
