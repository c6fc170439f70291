"""The tokens that may come next in a search: the names of one or two tries, or anything."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.trie import ROOT, NameTrie

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class Constraint(Protocol):
    """A set of names as a graph of nodes, in which an edge has the number of the node that it leads to.

    root: the node of the empty name.
    dead: a node without edges.
    max_tokens: tokens of the longest name, without its end.
    """

    root: int
    dead: int
    max_tokens: int

    def expand(self, nodes: IntArray) -> tuple[IntArray, IntArray, BoolArray, BoolArray]:
        """The edges that leave each node, (mentions, beams).

        Returns:
            Token ids, next nodes, whether the edge ends a name, and whether it is an edge and not padding, each
            (mentions, beams, widest fan-out), or of a shape that numpy broadcasts to it.
        """
        ...

    def children(self, node: int, most: int) -> Sequence[tuple[int, int, bool]]:
        """The edges that leave one node, or none if there are more than `most`: token, next node, whether it ends."""
        ...

    def deepest(self, nodes: IntArray) -> IntArray:
        """Tokens from each node to the end of the longest name below it, the end included."""
        ...

    def rows_at(self, edge: int) -> list[int]:
        """Rows of the entities whose name an edge ends, best first; empty if the names are not known."""
        return []


class TrieConstraint(Constraint):
    """The names of a knowledge base's trie, and of added entities, with at most max_tokens tokens without their end.

    A search constrained by such a trie is the paper's (section 3.3), and GENRE's before it (De Cao et al. 2021).

    A node is a pair of the two tries' nodes, as one number. One beyond its trie's nodes means: not in that trie.

    Args:
        trie: the knowledge base's names.
        end_id: the token that ends a name.
        max_tokens: the limit; it may be beyond the longest name.
        added: the names of added entities, of the same vocabulary; None if there are none.
    """

    def __init__(self, trie: NameTrie, end_id: int, max_tokens: int, added: NameTrie | None = None) -> None:
        self.trie = trie
        self.end_id = end_id
        self.added = added
        self.max_tokens = min(max_tokens, max(trie.max_depth, added.max_depth if added else 0) - 1)
        self._n_added = added.n_edges if added else 0  # as a node: not in the added trie
        self.root = self._pair(ROOT, ROOT)
        self.dead = self._pair(trie.n_edges, self._n_added)

    def expand(self, nodes: IntArray) -> tuple[IntArray, IntArray, BoolArray, BoolArray]:
        """See Constraint."""
        if (nodes == self.root).all():  # the widest fan-out, and the same for all mentions
            nodes = nodes[:1, :1]
        first, second = np.divmod(nodes.reshape(-1), self._n_added + 1)
        tokens, edges, valid = self.trie.children_of(_or_leaf(first, self.trie))
        pairs = self._pair(edges, self._n_added)
        if self.added and (second != self._n_added).any():
            more_tokens, more_edges, more_valid = self.added.children_of(_or_leaf(second, self.added))
            for row in np.flatnonzero(more_valid.any(axis=1)):  # tokens that both tries have become one edge
                both = tokens[row, valid[row]], more_tokens[row, more_valid[row]]
                _, indices, more_indices = np.intersect1d(*both, assume_unique=True, return_indices=True)
                columns = np.flatnonzero(valid[row])[indices]
                pairs[row, columns] = self._pair(edges[row, columns], more_edges[row, more_indices])
                more_valid[row, more_indices] = False
            pairs = np.concatenate([pairs, self._pair(self.trie.n_edges, more_edges)], axis=1)
            tokens = np.concatenate([tokens, more_tokens], axis=1)
            valid = np.concatenate([valid, more_valid], axis=1)
        ends = valid & (tokens == self.trie.end)
        tokens = np.where(ends, self.end_id, np.where(valid, tokens, 0))
        shape = (*nodes.shape, tokens.shape[-1])
        return tokens.reshape(shape), pairs.reshape(shape), ends.reshape(shape), valid.reshape(shape)

    def children(self, node: int, most: int) -> Sequence[tuple[int, int, bool]]:
        """See Constraint."""
        edges: dict[int, list[int]] = {}  # token -> where it leads to in both tries
        nowhere = [self.trie.n_edges, self._n_added]
        pairs = zip((self.trie, self.added), divmod(node, self._n_added + 1), strict=True)
        for index, (trie, each) in enumerate(pairs):
            if trie and each < trie.n_edges:
                children = trie.children(each, most)
                if children is None:
                    return ()
                for token, edge in children:
                    edges.setdefault(token, [*nowhere])[index] = edge
        end = self.trie.end
        return [
            (self.end_id if token == end else token, self._pair(*edge), token == end) for token, edge in edges.items()
        ]

    def deepest(self, nodes: IntArray) -> IntArray:
        """See Constraint."""
        first, second = np.divmod(nodes, self._n_added + 1)
        heights = self.trie.height[_or_leaf(first, self.trie)]
        if self.added:
            heights = np.maximum(heights, self.added.height[_or_leaf(second, self.added)])
        return heights.astype(np.int64)

    def rows_at(self, edge: int) -> list[int]:
        """See Constraint. Those of the first trie come first."""
        pairs = zip((self.trie, self.added), divmod(edge, self._n_added + 1), strict=True)
        return [row for trie, node in pairs if trie and node < trie.n_edges for row in trie.rows_at(node).tolist()]

    def _pair(self, first: Any, second: Any) -> Any:
        return first * (self._n_added + 1) + second


def _or_leaf(nodes: IntArray, trie: NameTrie) -> IntArray:
    """The nodes, with a leaf in place of numbers beyond the trie's: the last edge ends a name."""
    return np.minimum(nodes, trie.n_edges - 1)


class Unconstrained(Constraint):
    """Every sequence of tokens that ends: the unconstrained search of the paper's ablation."""

    root = 0
    dead = -1

    def __init__(self, vocab_size: int, end_id: int, max_tokens: int) -> None:
        self.vocab_size = vocab_size
        self.end_id = end_id
        self.max_tokens = max_tokens

    def expand(self, nodes: IntArray) -> tuple[IntArray, IntArray, BoolArray, BoolArray]:
        """See Constraint."""
        tokens = np.arange(self.vocab_size)[None, None]
        return tokens, np.zeros_like(tokens), tokens == self.end_id, (nodes != self.dead)[..., None]

    def children(self, node: int, most: int) -> Sequence[tuple[int, int, bool]]:
        """See Constraint. There are always more."""
        return ()

    def deepest(self, nodes: IntArray) -> IntArray:
        """See Constraint."""
        return np.full(nodes.shape, self.max_tokens + 1, dtype=np.int64)
