"""Every property a trie's arrays must have, checked one by one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.trie import LEAF_BLOCK, TrieArrays, plain_rows, token_dtype


def check_trie(arrays: TrieArrays, counts: NDArray[np.int64], vocab_size: int) -> list[str]:
    """Read all arrays of a trie over ``len(counts)`` entities and list what is wrong; empty if sound.

    counts: of the entities, (entities,). The arrays must fit together in length, as ``NameTrie`` checks; nothing is
    raised where they do.
    """
    problems: list[str] = []
    if arrays.tokens.dtype != token_dtype(vocab_size):
        problems.append(f"trie_tokens.npy is {arrays.tokens.dtype}, which does not fit {vocab_size} tokens")
    end = np.iinfo(arrays.tokens.dtype).max
    n_edges = len(arrays.tokens)
    is_end = arrays.tokens == end
    is_end[0] = False
    if (arrays.tokens[~is_end] >= vocab_size).any():
        problems.append(f"trie_tokens.npy has token ids outside the vocabulary of {vocab_size}")
    offsets = arrays.offsets.astype(np.int64)
    ends = (int(offsets[0]), int(offsets[-1]))
    if ends != (1, n_edges) or (offsets[:-1] <= np.arange(n_edges)).any() or (np.diff(offsets) < 0).any():
        return [*problems, "trie_offsets.npy does not describe a tree"]
    if ((np.diff(offsets) == 0) != is_end).any():
        return [*problems, "names end in the trie where they must not, or do not end where they must"]
    first = np.zeros(n_edges + 1, dtype=np.bool_)  # the first edge of each node's children
    first[offsets] = True
    later = np.flatnonzero(~first[1:n_edges]) + 1
    if (arrays.tokens[later] <= arrays.tokens[later - 1]).any():
        problems.append("trie_tokens.npy has siblings out of order")
    problems.extend(_check_height(arrays, offsets, is_end))
    problems.extend(_check_leaves(arrays, counts, is_end))
    return problems


def _check_height(arrays: TrieArrays, offsets: NDArray[np.int64], is_end: NDArray[np.bool_]) -> list[str]:
    inner = np.flatnonzero(~is_end)
    wanted = np.zeros(len(is_end), dtype=np.int64)
    wanted[inner] = np.maximum.reduceat(arrays.height, offsets[inner]).astype(np.int64) + 1
    return [] if np.array_equal(wanted, arrays.height) else ["trie_height.npy is wrong for some nodes"]


def _check_leaves(arrays: TrieArrays, counts: NDArray[np.int64], is_end: NDArray[np.bool_]) -> list[str]:
    lasts = np.flatnonzero(arrays.leaf_rows >= 0)  # the last row of each name
    ends = np.flatnonzero(is_end)
    if len(lasts) != len(ends) or int(lasts[-1]) != len(arrays.leaf_rows) - 1:
        return ["trie_leaf_rows.npy does not divide the entities among the names"]
    names = np.searchsorted(ends, np.arange(len(arrays.leaf_starts)) * LEAF_BLOCK)  # that end before each block
    if not np.array_equal(arrays.leaf_starts, np.append(0, lasts + 1)[names]):
        return ["trie_leaf_starts.npy does not say where the entities of the names begin"]
    rows = plain_rows(arrays.leaf_rows)
    if int(rows.max()) >= len(counts):
        return ["trie_leaf_rows.npy points outside the entities"]
    problems = []
    if len(np.unique(rows)) != len(rows):
        problems.append("trie_leaf_rows.npy has an entity twice")
    count = counts[rows]
    same = arrays.leaf_rows[:-1] < 0
    ordered = (count[1:] < count[:-1]) | ((count[1:] == count[:-1]) & (rows[1:] > rows[:-1]))
    if not ordered[same].all():
        problems.append("trie_leaf_rows.npy does not have the best entity of a name first")
    return problems
