"""Read a whole knowledge base and say what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spacy_gemel.kb.errors import KBError
from spacy_gemel.kb.index import hash_id
from spacy_gemel.kb.knowledge_base import KnowledgeBase, checksum_problems, size_problems
from spacy_gemel.kb.meta import read_meta
from spacy_gemel.kb.surfaces import surface_hashes
from spacy_gemel.kb.trie_check import check_trie


def check_kb(path: str | Path) -> list[str]:
    """Every problem of a knowledge base folder, in words; an empty list if it is sound.

    Reads everything: sizes, checksums, and that the trie, the ids, the counts and the entities agree.
    """
    folder = Path(path)
    try:
        meta = read_meta(folder)
    except KBError as error:
        return [str(error)]
    problems = size_problems(folder, meta) or checksum_problems(folder, meta)
    if problems:
        # what is inside a damaged file would only repeat it
        return problems
    try:
        kb = KnowledgeBase.open(folder)
        problems = check_trie(kb.trie.arrays, kb.counts, meta.vocab_size)
        if not problems and kb.trie.arrays.count_names() != meta.distinct_names:
            problems = [f"the trie does not have the {meta.distinct_names} names that meta.json gives"]
        return problems + _check_entities(kb)
    except KBError as error:
        return [str(error)]


def _check_entities(kb: KnowledgeBase) -> list[str]:
    """The counts, ids and surfaces against the entities (raises KBError for a damaged table)."""
    problems = []
    hashes, rows = np.asarray(kb.ids.hashes), np.asarray(kb.ids.rows)
    if (hashes[1:] < hashes[:-1]).any() or not np.array_equal(np.sort(rows), np.arange(len(kb))):
        return ["the index of ids (ids_hash.npy, ids_row.npy) is not in order"]
    hash_by_row = np.empty(len(kb), dtype=np.uint64)
    hash_by_row[rows] = hashes
    surfaces, surface_rows = np.asarray(kb.surfaces.hashes), np.asarray(kb.surfaces.rows)
    if (surfaces[1:] < surfaces[:-1]).any() or (surface_rows < 0).any() or (surface_rows >= len(kb)).any():
        return ["the index of names and aliases (surfaces_hash.npy, surfaces_row.npy) is not in order"]
    by_row = np.lexsort((surfaces, surface_rows))
    indices = np.searchsorted(surface_rows[by_row], np.arange(len(kb) + 1))
    first = 0
    for index in range(kb.table.n_batches):
        batch = kb.table.batch(index)
        stop = first + batch.num_rows
        if not np.array_equal(batch.column("count").to_numpy(), kb.counts[first:stop]):
            problems.append(f"counts.npy differs from the entities in rows {first} to {stop - 1}")
        hashed = np.array([hash_id(kb_id) for kb_id in batch.column("id").to_pylist()], dtype=np.uint64)
        if not np.array_equal(hashed, hash_by_row[first:stop]):
            problems.append(f"the index of ids differs from the entities in rows {first} to {stop - 1}")
        entities = [kb.entity(row) for row in range(first, stop)]
        wanted = [hashed for _, some in surface_hashes(entities) for hashed in sorted(some)]
        found = surfaces[by_row[indices[first] : indices[stop]]]
        counted = np.diff(indices[first : stop + 1]).tolist() == [len(some) for _, some in surface_hashes(entities)]
        if not counted or not np.array_equal(found, np.array(wanted, dtype=np.uint64)):
            problems.append(f"the index of names and aliases differs from the entities in rows {first} to {stop - 1}")
        first = stop
    return problems
