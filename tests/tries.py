"""Tries of a few names."""

from collections.abc import Sequence

import numpy as np

from spacy_gemel.kb.trie import NameTrie
from spacy_gemel.kb.trie_builder import build_trie


def trie_from_names(
    names: Sequence[Sequence[int]],
    vocab_size: int,
    rows: Sequence[int] | None = None,
    counts: Sequence[int] | None = None,
) -> NameTrie:
    """The trie of names as token ids; name i belongs to entity row rows[i], or i."""
    flat = np.array([token for name in names for token in name], dtype=np.int64)
    lengths = np.array([len(name) for name in names], dtype=np.int64)
    row_array = np.arange(len(names)) if rows is None else np.array(rows, dtype=np.int64)
    count_array = np.zeros(len(names), np.int64) if counts is None else np.array(counts, dtype=np.int64)
    return NameTrie(build_trie(flat, lengths, row_array, count_array, vocab_size), vocab_size)
