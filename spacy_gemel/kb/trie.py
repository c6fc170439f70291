"""The names of all entities as a trie of tokens, in flat arrays that can be memory-mapped.

A level-order compressed sparse row layout (the numbering of Jacobson 1989's trees, with offsets for his bits): in
breadth-first order a child's node id is the index of the edge that leads to it, so ``tokens`` and ``offsets`` are the
whole automaton. This module needs only numpy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.arrays import open_array, save_array
from spacy_gemel.kb.errors import KBError

ROOT = 0
LEAF_BLOCK = 256
"""Edges per item of ``leaf_starts``; part of the format on disk."""

TokenArray: TypeAlias = NDArray[np.unsignedinteger[Any]]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 where every token id and the end marker above them fit, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= np.iinfo(np.uint16).max else np.uint32)


@dataclass(frozen=True, slots=True)
class TrieArrays:
    """The arrays of a trie with E edges (edge 0 is the root) and N (name, entity) pairs.

    tokens        (E,) uint16 or uint32: token of each edge; the END edge of a name has the dtype's maximum,
                  which makes it the last of its siblings. Siblings are sorted by token. tokens[0] is a dummy.
    offsets       (E+1,) int32: the children of node n are the edges offsets[n] .. offsets[n+1]
    height        (E,) uint8: edges from a node down to the deepest END edge below it, 0 for END edges
    leaf_rows     (N,) int32: the entity rows of each END edge, in the order of the edges, the best row of a name
                  first (count descending, then row). Every row of a name but its last is stored as ~row, a
                  negative number, which parts the names without an offset for each
    leaf_starts   (ceil(E / LEAF_BLOCK) + 1,) int32: leaf_starts[b] is the place in leaf_rows where the END
                  edges from b * LEAF_BLOCK on begin; the last item is N

    An END edge finds its rows by counting the END edges before it in its block: 4 bytes per entity and next to
    nothing besides, where a list of END edges and offsets would take 12.
    """

    tokens: TokenArray
    offsets: NDArray[np.int32]
    height: NDArray[np.uint8]
    leaf_rows: NDArray[np.int32]
    leaf_starts: NDArray[np.int32]

    def count_names(self) -> int:
        """Number of distinct names; reads all of leaf_rows."""
        return int(np.count_nonzero(self.leaf_rows >= 0))

    @staticmethod
    def file_names() -> list[str]:
        """The file of each array, in the order of the fields."""
        return [f"trie_{field.name}.npy" for field in fields(TrieArrays)]

    def save(self, folder: Path) -> None:
        """Write each array to its file in an existing folder. Raises OSError."""
        for field, name in zip(fields(self), self.file_names(), strict=True):
            save_array(folder / name, getattr(self, field.name))

    @classmethod
    def open(cls, folder: Path) -> TrieArrays:
        """Memory-map the arrays of a folder; raises KBError if one is missing, cut off or of a wrong kind."""
        names = dict(zip((field.name for field in fields(cls)), cls.file_names(), strict=True))
        return cls(
            tokens=open_array(folder / names["tokens"], np.uint16, np.uint32),
            offsets=open_array(folder / names["offsets"], np.int32),
            height=open_array(folder / names["height"], np.uint8),
            leaf_rows=open_array(folder / names["leaf_rows"], np.int32),
            leaf_starts=open_array(folder / names["leaf_starts"], np.int32),
        )


def plain_rows(leaf_rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """The entity rows (n,) that some leaf_rows (n,) stand for."""
    return np.where(leaf_rows < 0, ~leaf_rows, leaf_rows)


class Children(NamedTuple):
    """The children of n nodes, padded to the widest: three arrays (n, fanout).

    ``tokens`` and ``edges`` are int64, 0 where ``valid`` is False. An END edge has the token
    ``NameTrie.end``, which is no token id: map it before using it as an index.
    """

    tokens: NDArray[np.int64]
    edges: NDArray[np.int64]
    valid: NDArray[np.bool_]


class NameTrie:
    """A read-only trie of token sequences. Nodes and edges share their numbers; ``ROOT`` is 0.

    A name that is the prefix of another ends by its own END edge. Nothing is ever read outside the
    arrays: a node number that does not exist raises IndexError, offsets that make no sense raise KBError.

    vocab_size: where it is given, no token id from it on is ever given out (KBError): a model that is asked for the
    score of one, on a GPU, cannot be used again.
    n_entities: where it is given, no row from it on is (KBError).
    """

    def __init__(self, arrays: TrieArrays, vocab_size: int | None = None, n_entities: int | None = None) -> None:
        _check_shapes(arrays)
        if vocab_size is not None and arrays.tokens.dtype != token_dtype(vocab_size):
            raise KBError(f"The trie's tokens are not those of a vocabulary of {vocab_size}: build the KB again")
        self.arrays = arrays
        self.tokens = arrays.tokens
        self.offsets = arrays.offsets
        self.height = arrays.height
        self.leaf_rows = arrays.leaf_rows
        self.leaf_starts = arrays.leaf_starts
        self.end = int(np.iinfo(arrays.tokens.dtype).max)
        """The token of END edges: a marker, no token id."""
        self._widest = (self.end if vocab_size is None else vocab_size) + 1
        """Children of a node that has as many as there can be: every token, and END."""
        # of the array's dtype, which numpy compares faster
        self._strange, self._end = arrays.tokens.dtype.type(self._widest - 1), arrays.tokens.dtype.type(self.end)
        self._n_entities = n_entities

    @classmethod
    def open(cls, folder: str | Path, vocab_size: int | None = None, n_entities: int | None = None) -> NameTrie:
        """Memory-map the trie of a knowledge base folder (raises KBError)."""
        return cls(TrieArrays.open(Path(folder)), vocab_size, n_entities)

    @property
    def n_edges(self) -> int:
        """Number of edges, which is the number of nodes, the root included."""
        return len(self.tokens)

    @property
    def max_depth(self) -> int:
        """Steps of the longest name, its END included."""
        return int(self.height[ROOT])

    def children(self, node: int) -> tuple[TokenArray, NDArray[np.int64]]:
        """Tokens (k,) and edges (k,) that leave a node, by token; both empty below an END edge.

        Raises IndexError for a node that does not exist, and KBError where the trie is corrupt.
        """
        start, stop = self._span(node)
        self._check_tokens(self.tokens[start:stop])
        return self.tokens[start:stop], np.arange(start, stop, dtype=np.int64)

    def children_of(self, nodes: NDArray[np.integer[Any]]) -> Children:
        """The children of many nodes (n,) at once, padded to the widest of them; raises as ``children`` does."""
        nodes = np.asarray(nodes)
        if nodes.ndim != 1:
            raise ValueError(f"children_of takes an array of shape (n,), not {nodes.shape}")
        if nodes.size == 0:
            empty = np.zeros((0, 0), dtype=np.int64)
            return Children(empty, empty.copy(), empty.astype(np.bool_))
        if nodes.min() < 0 or nodes.max() >= self.n_edges:
            raise IndexError(f"A node of {nodes.tolist()} is outside the trie's {self.n_edges}")
        nodes = nodes.astype(np.int64)
        start = self.offsets[nodes].astype(np.int64)[:, None]  # (n, 1)
        stop = self.offsets[nodes + 1].astype(np.int64)[:, None]  # (n, 1)
        fanout = int((stop - start).max())
        if ((start <= nodes[:, None]) | (stop < start) | (stop > self.n_edges)).any() or fanout > self._widest:
            raise _corrupt("offsets")
        edges = start + np.arange(fanout)  # (n, fanout)
        valid = edges < stop
        edges[~valid] = 0
        tokens = self.tokens[edges]
        tokens[~valid] = 0
        self._check_tokens(tokens)
        return Children(tokens.astype(np.int64), edges, valid)

    def is_end(self, edge: int) -> bool:
        """Whether an edge ends a name."""
        self._check_node(edge)
        return int(self.tokens[edge]) == self.end

    def end_edge(self, node: int) -> int | None:
        """The END edge that leaves a node, None where no name ends."""
        start, stop = self._span(node)
        return stop - 1 if stop > start and int(self.tokens[stop - 1]) == self.end else None

    def walk(self, token_ids: Iterable[int]) -> int | None:
        """The node reached from the root along a prefix of a name, None if no name begins so."""
        node = ROOT
        for token in token_ids:
            if not 0 <= token < self.end:
                return None
            start, stop = self._span(node)
            # the needle has the array's dtype, or numpy would convert the whole slice
            index = start + int(np.searchsorted(self.tokens[start:stop], self.tokens.dtype.type(token)))
            if index == stop or int(self.tokens[index]) != token:
                return None
            node = index
        return node

    def rows_at(self, edge: int) -> NDArray[np.int32]:
        """Rows (n,) of the entities whose name ends with this END edge, the best first; else empty.

        Raises IndexError for an edge that does not exist, and KBError where the trie is corrupt.
        """
        if not self.is_end(edge):
            return self.leaf_rows[:0]
        block = edge // LEAF_BLOCK
        first_edge = block * LEAF_BLOCK
        ends = self.tokens[first_edge : first_edge + LEAF_BLOCK] == self.end
        before = int(np.count_nonzero(ends[: edge - first_edge]))
        start, stop = int(self.leaf_starts[block]), int(self.leaf_starts[block + 1])
        if not 0 <= start <= stop <= len(self.leaf_rows):
            raise _corrupt("leaf_starts")
        rows = self.leaf_rows[start:stop]
        lasts = np.flatnonzero(rows >= 0)  # the last row of each name that ends in the block
        if len(lasts) != np.count_nonzero(ends):
            raise _corrupt("leaf_rows")
        first = int(lasts[before - 1]) + 1 if before else 0
        return self._plain(rows[first : int(lasts[before]) + 1])

    def rows_of(self, token_ids: Iterable[int]) -> NDArray[np.int32]:
        """Rows (n,) of the entities whose name has exactly these tokens, the best first; empty if none."""
        node = self.walk(token_ids)
        edge = None if node is None else self.end_edge(node)
        return self.leaf_rows[:0] if edge is None else self.rows_at(edge)

    def all_rows(self) -> NDArray[np.int32]:
        """Rows (N,) of all entities whose name is in the trie, by name; reads all of leaf_rows. Raises KBError."""
        return self._plain(self.leaf_rows)

    def _plain(self, leaf_rows: NDArray[np.int32]) -> NDArray[np.int32]:
        rows = plain_rows(leaf_rows)
        if self._n_entities is not None and int(rows.max()) >= self._n_entities:
            raise _corrupt("leaf_rows")
        return rows

    def _check_node(self, node: int) -> None:
        if not 0 <= node < self.n_edges:
            raise IndexError(f"Node {node} is outside the trie's {self.n_edges}")

    def _span(self, node: int) -> tuple[int, int]:
        """First and one past the last child of a node. Children come after their node: no cycles."""
        self._check_node(node)
        start, stop = int(self.offsets[node]), int(self.offsets[node + 1])
        if not node < start <= stop <= self.n_edges or stop - start > self._widest:
            raise _corrupt("offsets")
        return start, stop

    def _check_tokens(self, tokens: TokenArray) -> None:
        if ((tokens >= self._strange) & (tokens != self._end)).any():
            raise _corrupt("tokens")


def _corrupt(what: str) -> KBError:
    return KBError(f"The trie's {what} are corrupt (python -m spacy_gemel check-kb KB_DIR): build it again")


def _check_shapes(arrays: TrieArrays) -> None:
    """What can be checked in constant time; raises KBError."""
    n_edges = len(arrays.tokens)
    lengths = (
        ("offsets", len(arrays.offsets), n_edges + 1),
        ("height", len(arrays.height), n_edges),
        ("leaf_starts", len(arrays.leaf_starts), -(-n_edges // LEAF_BLOCK) + 1),
    )
    for name, length, wanted in lengths:
        if length != wanted:
            raise KBError(f"The trie's {name} have {length} items in place of {wanted}: build the KB again")
    if n_edges < 2 or len(arrays.leaf_rows) < 1:
        raise KBError("The trie holds no name: build the KB again")
    if int(arrays.height[ROOT]) < 2:
        raise _corrupt("height")
    if int(arrays.offsets[0]) != 1 or int(arrays.offsets[-1]) != n_edges:
        raise _corrupt("offsets")
    if int(arrays.tokens[-1]) != np.iinfo(arrays.tokens.dtype).max:
        raise _corrupt("tokens")
    if int(arrays.leaf_starts[0]) != 0 or int(arrays.leaf_starts[-1]) != len(arrays.leaf_rows):
        raise _corrupt("leaf_starts")
