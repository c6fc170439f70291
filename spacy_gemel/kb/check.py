"""Read a whole knowledge base and list what is wrong with it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.index import hash_text, surface_hashes
from spacy_gemel.kb.knowledge_base import KnowledgeBase, kb_problems
from spacy_gemel.kb.meta import read_meta
from spacy_gemel.kb.trie import LEAF_BLOCK, TrieArrays, decode_rows, token_dtype


def check_kb(path: str | Path) -> list[str]:
    """The problems of a folder, none if it is sound: sizes, checksums, and whether trie, indexes and entities agree."""
    folder = Path(path)
    try:
        meta = read_meta(folder)
        if problems := kb_problems(folder, meta, verify=True):
            return problems  # the content of a damaged file would only repeat it
        kb = KnowledgeBase.open(folder)
        problems = check_trie(kb.trie.arrays, kb.counts, meta.vocab_size)
        if not problems and kb.trie.arrays.count_names() != meta.distinct_names:
            problems = [f"the trie does not have the {meta.distinct_names} names that meta.json gives"]
        return problems + _check_entities(kb)
    except KBError as error:
        return [str(error)]


def _check_entities(kb: KnowledgeBase) -> list[str]:
    """Compare counts and indexes with the entities. Raises KBError if the table is damaged."""
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
    surfaces, surface_rows = surfaces[by_row], surface_rows[by_row]
    first = 0
    for index in range(kb.table.n_batches):
        batch = kb.table.batch(index)
        stop = first + batch.num_rows
        in_rows = f"differs from the entities in rows {first} to {stop - 1}"
        if not np.array_equal(batch.column("count").to_numpy(), kb.counts[first:stop]):
            problems.append(f"counts.npy {in_rows}")
        ids = np.array([hash_text(kb_id) for kb_id in batch.column("id").to_pylist()], dtype=np.uint64)
        if not np.array_equal(ids, hash_by_row[first:stop]):
            problems.append(f"the index of ids {in_rows}")
        expected = [sorted(surface_hashes(kb.entity(row))) for row in range(first, stop)]
        in_batch = slice(*np.searchsorted(surface_rows, (first, stop)))
        rows = np.repeat(np.arange(first, stop), [len(values) for values in expected])
        flat = np.array([value for values in expected for value in values], dtype=np.uint64)
        if not (np.array_equal(surface_rows[in_batch], rows) and np.array_equal(surfaces[in_batch], flat)):
            problems.append(f"the index of names and aliases {in_rows}")
        first = stop
    return problems


def check_trie(arrays: TrieArrays, counts: NDArray[np.int64], vocab_size: int) -> list[str]:
    """List what is wrong with a trie; `counts` (entities,) are the entities'. ``NameTrie`` has checked the lengths."""
    problems: list[str] = []
    if arrays.tokens.dtype != token_dtype(vocab_size):
        problems.append(f"trie_tokens.npy is {arrays.tokens.dtype}, which does not fit {vocab_size} tokens")
    n_edges = len(arrays.tokens)
    is_end = arrays.tokens == np.iinfo(arrays.tokens.dtype).max
    is_end[0] = False
    if (arrays.tokens[~is_end] >= vocab_size).any():
        problems.append(f"trie_tokens.npy has token ids outside the vocabulary of {vocab_size}")
    offsets = arrays.offsets.astype(np.int64)
    is_tree = offsets[0] == 1 and offsets[-1] == n_edges and (offsets[:-1] > np.arange(n_edges)).all()
    if not is_tree or (np.diff(offsets) < 0).any():
        return [*problems, "trie_offsets.npy does not describe a tree"]
    if ((np.diff(offsets) == 0) != is_end).any():
        return [*problems, "names end in the trie where they must not, or do not end where they must"]
    is_first = np.zeros(n_edges + 1, dtype=np.bool_)  # the first edge of each node's children
    is_first[offsets] = True
    later = np.flatnonzero(~is_first[1:n_edges]) + 1
    if (arrays.tokens[later] <= arrays.tokens[later - 1]).any():
        problems.append("trie_tokens.npy has siblings out of order")
    inner = np.flatnonzero(~is_end)
    height = np.zeros(n_edges, dtype=np.int64)
    height[inner] = np.maximum.reduceat(arrays.height, offsets[inner]).astype(np.int64) + 1
    if not np.array_equal(height, arrays.height):
        problems.append("trie_height.npy is wrong for some nodes")
    return problems + _check_leaves(arrays, counts, np.flatnonzero(is_end))


def _check_leaves(arrays: TrieArrays, counts: NDArray[np.int64], ends: NDArray[np.int64]) -> list[str]:
    """Check the entities of the names that end with the edges `ends`."""
    lasts = np.flatnonzero(arrays.leaf_rows >= 0)  # the last row of each name
    if len(lasts) != len(ends) or int(lasts[-1]) != len(arrays.leaf_rows) - 1:
        return ["trie_leaf_rows.npy does not divide the entities among the names"]
    names = np.searchsorted(ends, np.arange(len(arrays.leaf_starts)) * LEAF_BLOCK)  # that end before each block
    if not np.array_equal(arrays.leaf_starts, np.append(0, lasts + 1)[names]):
        return ["trie_leaf_starts.npy does not say where the entities of the names begin"]
    rows = decode_rows(arrays.leaf_rows)
    if int(rows.max()) >= len(counts):
        return ["trie_leaf_rows.npy has rows outside the entities"]
    problems = []
    if len(np.unique(rows)) != len(rows):
        problems.append("trie_leaf_rows.npy has an entity twice")
    count = counts[rows]
    is_same_name = arrays.leaf_rows[:-1] < 0
    is_ordered = (count[1:] < count[:-1]) | ((count[1:] == count[:-1]) & (rows[1:] > rows[:-1]))
    if not is_ordered[is_same_name].all():
        problems.append("trie_leaf_rows.npy does not have the most frequent entity of a name first")
    return problems
