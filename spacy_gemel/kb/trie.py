"""The names of all entities as a trie of tokens, in flat arrays that can be memory-mapped.

A level-order compressed sparse row layout (Jacobson 1989's numbering, with offsets for his bits): in breadth-first
order a child's node id is the index of the edge that leads to it. This module needs only numpy.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.index import open_array, save_array

ROOT = 0
LEAF_BLOCK = 256
"""Edges per item of ``leaf_starts``; part of the format on disk."""

TokenArray: TypeAlias = NDArray[np.unsignedinteger[Any]]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 if it can hold every token id and the end marker above them, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= np.iinfo(np.uint16).max else np.uint32)


@dataclass(frozen=True, slots=True)
class TrieArrays:
    """The arrays of a trie with E edges (edge 0 is the root) and N (name, entity) pairs.

    Attributes:
        tokens: (E,) uint16 or uint32, the token of each edge, ascending among siblings; tokens[0] is a dummy. The END
            edge of a name has the dtype's maximum.
        offsets: (E+1,) int32. The children of node n are the edges offsets[n] .. offsets[n+1].
        height: (E,) uint8, edges from a node down to the deepest END edge below it, 0 for END edges.
        leaf_rows: (N,) int32, the entity rows of each END edge, in the order of the edges, the best row of a name
            first (count descending, then row). Every row of a name but its last is stored as ~row, which is negative.
        leaf_starts: (ceil(E / LEAF_BLOCK) + 1,) int32, the index in leaf_rows of the first END edge from
            b * LEAF_BLOCK on; the last item is N.
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
        return [f"trie_{name}.npy" for name in TrieArrays.__slots__]

    def save(self, folder: Path) -> None:
        """Write each array to its file in an existing folder. Raises OSError."""
        for field, name in zip(self.__slots__, self.file_names(), strict=True):
            save_array(folder / name, getattr(self, field))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Memory-map the arrays of a folder. Raises KBError if one is missing, truncated or of a wrong dtype."""
        dtypes: list[list[DTypeLike]] = [[np.uint16, np.uint32], [np.int32], [np.uint8], [np.int32], [np.int32]]
        return cls(*(open_array(folder / file, *kinds) for file, kinds in zip(cls.file_names(), dtypes, strict=True)))


def decode_rows(leaf_rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """The entity rows (n,) that leaf_rows (n,) stand for."""
    return np.where(leaf_rows < 0, ~leaf_rows, leaf_rows)


class Children(NamedTuple):
    """The children of n nodes, padded to the widest: three arrays (n, fanout), 0 where ``valid`` is False.

    An END edge has the token ``NameTrie.end``, which is no token id: map it before using it as an index.
    """

    tokens: NDArray[np.int64]
    edges: NDArray[np.int64]
    valid: NDArray[np.bool_]


class NameTrie:
    """A read-only trie of token sequences. Nodes and edges share their numbers; ``ROOT`` is 0.

    A name that is the prefix of another one ends with an END edge of its own. Nothing is ever read outside the arrays:
    a node that does not exist raises IndexError, impossible offsets raise KBError; so do token ids from `vocab_size` on
    (a GPU that looks one up cannot be used again), rows from `n_entities` on, and arrays that do not fit together.
    """

    def __init__(self, arrays: TrieArrays, vocab_size: int | None = None, n_entities: int | None = None) -> None:
        _check_shapes(arrays)
        if vocab_size is not None and arrays.tokens.dtype != token_dtype(vocab_size):
            raise KBError(f"The trie's tokens are not those of a vocabulary of {vocab_size}: build the KB again")
        self.arrays = arrays
        self.tokens, self.offsets, self.height = arrays.tokens, arrays.offsets, arrays.height
        self.leaf_rows, self.leaf_starts = arrays.leaf_rows, arrays.leaf_starts
        self.end = int(np.iinfo(arrays.tokens.dtype).max)
        """The token of END edges: a marker, no token id."""
        self._max_fanout = (self.end if vocab_size is None else vocab_size) + 1  # every token, and END
        # in the array's dtype, which numpy compares faster
        self._first_invalid, self._end = (arrays.tokens.dtype.type(value) for value in (self._max_fanout - 1, self.end))
        self._n_entities = n_entities

    @classmethod
    def open(cls, folder: str | Path, vocab_size: int | None = None, n_entities: int | None = None) -> Self:
        """Memory-map the trie of a knowledge base folder. Raises KBError."""
        return cls(TrieArrays.open(Path(folder)), vocab_size, n_entities)

    @property
    def n_edges(self) -> int:
        """Number of edges, which is the number of nodes, the root included."""
        return len(self.tokens)

    @property
    def max_depth(self) -> int:
        """Steps of the longest name, its END included."""
        return int(self.height[ROOT])

    def children_of(self, nodes: NDArray[np.integer[Any]]) -> Children:
        """The children of many nodes (n,) at once, sorted by token; none below an END edge.

        Raises IndexError if a node does not exist, KBError if the trie is corrupt there.
        """
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
        if ((start <= nodes[:, None]) | (stop < start) | (stop > self.n_edges)).any() or fanout > self._max_fanout:
            raise _corrupt("offsets")
        edges = start + np.arange(fanout)  # (n, fanout)
        valid = edges < stop
        edges[~valid] = 0
        tokens = self.tokens[edges]
        tokens[~valid] = 0
        if ((tokens >= self._first_invalid) & (tokens != self._end)).any():
            raise _corrupt("tokens")
        return Children(tokens.astype(np.int64), edges, valid)

    def children(self, node: int, most: int) -> list[tuple[int, int]] | None:
        """Token and edge of each child of one node, sorted by token; None if there are more than `most`.

        Raises as `children_of`.
        """
        start, stop = self._span(node)
        if stop - start > most:
            return None
        tokens = self.tokens[start:stop].tolist()
        if any(self._max_fanout - 1 <= token < self.end for token in tokens):
            raise _corrupt("tokens")
        return [*zip(tokens, range(start, stop), strict=True)]

    def is_end(self, edge: int) -> bool:
        """Whether an edge ends a name."""
        self._check_node(edge)
        return int(self.tokens[edge]) == self.end

    def end_edge(self, node: int) -> int | None:
        """The END edge that leaves a node, or None if no name ends there. Raises as `children_of`."""
        start, stop = self._span(node)
        return stop - 1 if stop > start and int(self.tokens[stop - 1]) == self.end else None

    def walk(self, token_ids: Iterable[int]) -> int | None:
        """The node at the end of a prefix of a name, or None if no name begins like this."""
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
        """Rows (n,) of the name that ends here, best first; empty if it is no END edge. Raises as `children_of`."""
        if not self.is_end(edge):
            return self.leaf_rows[:0]
        block, offset = divmod(edge, LEAF_BLOCK)
        ends = self.tokens[edge - offset : edge - offset + LEAF_BLOCK] == self.end
        index = int(np.count_nonzero(ends[:offset]))  # of the name in its block
        start, stop = int(self.leaf_starts[block]), int(self.leaf_starts[block + 1])
        if not 0 <= start <= stop <= len(self.leaf_rows):
            raise _corrupt("leaf_starts")
        rows = self.leaf_rows[start:stop]
        lasts = np.flatnonzero(rows >= 0)  # the last row of each name that ends in the block
        if len(lasts) != np.count_nonzero(ends):
            raise _corrupt("leaf_rows")
        first = int(lasts[index - 1]) + 1 if index else 0
        return self._decode(rows[first : int(lasts[index]) + 1])

    def rows_of(self, token_ids: Iterable[int]) -> NDArray[np.int32]:
        """Rows (n,) of the entities whose name has exactly these tokens, best first. Raises KBError."""
        node = self.walk(token_ids)
        edge = None if node is None else self.end_edge(node)
        return self.leaf_rows[:0] if edge is None else self.rows_at(edge)

    def all_rows(self) -> NDArray[np.int32]:
        """Rows (N,) of all entities whose name is in the trie, by name; reads all of leaf_rows. Raises KBError."""
        return self._decode(self.leaf_rows)

    def _decode(self, leaf_rows: NDArray[np.int32]) -> NDArray[np.int32]:
        rows = decode_rows(leaf_rows)
        if self._n_entities is not None and int(rows.max()) >= self._n_entities:
            raise _corrupt("leaf_rows")
        return rows

    def _check_node(self, node: int) -> None:
        if not 0 <= node < self.n_edges:
            raise IndexError(f"Node {node} is outside the trie's {self.n_edges}")

    def _span(self, node: int) -> tuple[int, int]:
        """The first and one past the last child of a node. Children come after their node, so there are no cycles."""
        self._check_node(node)
        start, stop = int(self.offsets[node]), int(self.offsets[node + 1])
        if not node < start <= stop <= self.n_edges or stop - start > self._max_fanout:
            raise _corrupt("offsets")
        return start, stop


def _corrupt(array: str) -> KBError:
    return KBError(f"The trie's {array} are corrupt (python -m spacy_gemel check-kb KB_DIR): build it again")


def _check_shapes(arrays: TrieArrays) -> None:
    """Check what takes constant time. Raises KBError."""
    n_edges = len(arrays.tokens)
    lengths = {"offsets": n_edges + 1, "height": n_edges, "leaf_starts": -(-n_edges // LEAF_BLOCK) + 1}
    for name, expected in lengths.items():
        if (length := len(getattr(arrays, name))) != expected:
            raise KBError(f"The trie's {name} have {length} items instead of {expected}: build the KB again")
    if n_edges < 2 or len(arrays.leaf_rows) < 1:
        raise KBError("The trie has no name: build the KB again")
    if int(arrays.height[ROOT]) < 2:
        raise _corrupt("height")
    if int(arrays.offsets[0]) != 1 or int(arrays.offsets[-1]) != n_edges:
        raise _corrupt("offsets")
    if int(arrays.tokens[-1]) != np.iinfo(arrays.tokens.dtype).max:
        raise _corrupt("tokens")
    if int(arrays.leaf_starts[0]) != 0 or int(arrays.leaf_starts[-1]) != len(arrays.leaf_rows):
        raise _corrupt("leaf_starts")
