"""Build the trie's arrays from tokenised names, with numpy alone and no loop over names.

The names are sorted by keys of 64 bits that each pack a few tokens, and ties by the next few tokens; then one pass per
level marks the names that open a new node. Memory is a few arrays with one item per name.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.trie import LEAF_BLOCK, TokenArray, TrieArrays, token_dtype

Ints: TypeAlias = NDArray[np.integer[Any]]

MAX_TOKENS = 254  # with the END edge, the height of the root still fits uint8
MAX_EDGES = 2**31 - 1  # offsets are int32


def build_trie(
    tokens: Ints,
    lengths: Ints,
    rows: Ints,
    counts: NDArray[np.int64],
    vocab_size: int,
    on_step: Callable[[str], object] = lambda _: None,
) -> TrieArrays:
    """Build the trie of n names.

    Args:
        tokens: (sum of lengths,) the token ids of all names in a row.
        lengths: (n,) tokens of each name, 1 to 254.
        rows: (n,) the entity row of each name; ascending if names should stay in the order of the file.
        counts: (n,) how often each of these entities is linked: orders those that share a name.
        vocab_size: greater than every token id.
        on_step: called with the name of each step, to show progress.

    Raises:
        KBError: for no names, empty or too long names, token ids outside the vocabulary, and more than 2**31 - 1 edges.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if len(lengths) == 0:
        raise KBError("A trie needs at least one name")
    if len(rows) != len(lengths) or len(counts) != len(lengths) or int(lengths.sum()) != len(tokens):
        raise KBError("Tokens, lengths, rows and counts of the names do not fit together")
    if int(lengths.min()) < 1 or int(lengths.max()) > MAX_TOKENS:
        raise KBError(f"A name in the trie must have 1 to {MAX_TOKENS} tokens")
    if int(tokens.min()) < 0 or int(tokens.max()) >= vocab_size:
        raise KBError(f"A name has a token id outside the vocabulary of {vocab_size}")
    if int(rows.min()) < 0 or int(rows.max()) > MAX_EDGES:
        raise KBError(f"Entity rows must be from 0 to {MAX_EDGES}")
    flat: TokenArray = np.ascontiguousarray(tokens, dtype=token_dtype(vocab_size))
    starts = np.cumsum(lengths) - lengths
    on_step("sorting names")
    order = _sort_names(flat, starts, lengths)
    on_step("numbering edges")
    edge_tokens, child_counts, end_edges, levels = _number_edges(flat, starts, lengths, order)
    offsets = np.ones(len(edge_tokens) + 1, dtype=np.int32)
    np.cumsum(child_counts, out=offsets[1:])
    offsets[1:] += 1
    on_step("measuring heights")
    height = np.zeros(len(edge_tokens), dtype=np.uint8)  # from the deepest level up
    for first, stop, below in reversed(list(zip(levels, levels[1:], levels[2:], strict=False))):
        inner = np.flatnonzero(offsets[first + 1 : stop + 1] > offsets[first:stop]) + first
        height[inner] = np.maximum.reduceat(height[stop:below], offsets[inner] - stop) + 1
    on_step("placing entities")
    leaf_rows, leaf_starts = _leaves(end_edges, np.asarray(rows), np.asarray(counts), len(edge_tokens))
    return TrieArrays(edge_tokens, offsets, height, leaf_rows, leaf_starts)


def _tokens_at(tokens: TokenArray, starts: Ints, lengths: Ints, position: int) -> TokenArray:
    """The token of each name (n,) at a position: END at its length, 0 behind it."""
    inside = lengths > position
    out = np.zeros(len(lengths), dtype=tokens.dtype)
    out[inside] = tokens[starts[inside] + position]
    out[lengths == position] = np.iinfo(tokens.dtype).max
    return out


def _sort_names(tokens: TokenArray, starts: Ints, lengths: Ints) -> NDArray[np.int64]:
    """The order (n,) of the names by their tokens, END last; equal names keep their order."""
    per_key = 8 // tokens.dtype.itemsize
    bits = np.uint64(8 * tokens.dtype.itemsize)

    def keys(names: NDArray[np.int64] | slice, first: int) -> NDArray[np.uint64]:
        start, length = starts[names], lengths[names]
        key = np.zeros(len(length), dtype=np.uint64)
        for position in range(first, first + per_key):
            key = (key << bits) | _tokens_at(tokens, start, length, position)
        return key

    key = keys(slice(None), 0)
    order = np.argsort(key, kind="stable")
    key = key[order]
    indices = np.arange(len(order))  # of `order`, whose names are still tied
    group = np.zeros(len(order), dtype=np.int64)  # tied names have the same group; groups are numbered in order
    first = 0
    while True:
        first += per_key
        opens = np.ones(len(indices), dtype=np.bool_)
        opens[1:] = (key[1:] != key[:-1]) | (group[1:] != group[:-1])
        group = np.cumsum(opens) - 1
        # a name that is the only one in its group, or ends within the key, is in its final position
        is_tied = (np.bincount(group)[group] > 1) & (lengths[order[indices]] >= first)
        indices, group = indices[is_tied], group[is_tied]
        if len(indices) == 0:
            return order
        names = order[indices]
        key = keys(names, first)
        within = np.lexsort((key, group))
        order[indices] = names[within]
        key = key[within]


def _number_edges(
    tokens: TokenArray, starts: Ints, lengths: Ints, order: NDArray[np.int64]
) -> tuple[TokenArray, NDArray[np.int32], NDArray[np.int32], list[int]]:
    """Number the edges level by level.

    Returns:
        The tokens (E,) and child counts (E,) of all edges, the END edge (n,) of each name, each level's first edge, E.
    """
    end_edges = np.zeros(len(order), dtype=np.int32)
    active = order  # names that are at least this long, sorted
    parents = np.zeros(len(order), dtype=np.int64)  # the node that each of them has reached
    opens = np.zeros(len(order), dtype=np.bool_)  # differs from the name before it
    opens[0] = True
    level_tokens: list[TokenArray] = [np.zeros(1, dtype=tokens.dtype)]
    level_counts: list[NDArray[np.int32]] = []
    levels = [0, 1]
    depth = 0
    while len(active):
        length = lengths[active]
        token = _tokens_at(tokens, starts[active], length, depth)
        opens = opens.copy()
        opens[1:] |= token[1:] != token[:-1]
        edges = levels[-1] + np.cumsum(opens) - 1
        stop = int(edges[-1]) + 1
        if stop > MAX_EDGES:
            raise KBError(f"The names need more than {MAX_EDGES} edges: split the knowledge base")
        level_tokens.append(token[opens])
        counts = np.bincount(parents[opens] - levels[-2], minlength=levels[-1] - levels[-2])
        level_counts.append(counts.astype(np.int32))
        levels.append(stop)
        ended = length == depth
        end_edges[active[ended]] = edges[ended]
        # names after one that ended differ from it and from all before it: `opens` stays correct
        active, parents, opens = active[~ended], edges[~ended], opens[~ended]
        depth += 1
    level_counts.append(np.zeros(levels[-1] - levels[-2], dtype=np.int32))
    return np.concatenate(level_tokens), np.concatenate(level_counts), end_edges, levels


def _leaves(
    end_edges: NDArray[np.int32], rows: Ints, counts: Ints, n_edges: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The entity rows (n,) by END edge, best first per edge, and the index at which each block of edges begins."""
    order = np.argsort(end_edges, kind="stable")
    edges = end_edges[order]
    repeats = np.zeros(len(edges), dtype=np.bool_)  # has the same name as the previous row
    repeats[1:] = edges[1:] == edges[:-1]
    is_repeated = np.append(repeats[1:], False)
    shared = np.flatnonzero(repeats | is_repeated)
    names = order[shared]
    order[shared] = names[np.lexsort((rows[names], -counts[names], edges[shared]))]
    leaf_rows = rows[order].astype(np.int32)
    leaf_rows[is_repeated] = ~leaf_rows[is_repeated]
    first_edges = np.arange(-(-n_edges // LEAF_BLOCK) + 1) * LEAF_BLOCK
    # the needles have the array's dtype, or numpy would convert the array
    needles = np.minimum(first_edges, n_edges).astype(np.int32)
    return leaf_rows, np.searchsorted(edges, needles).astype(np.int32)
