"""The tokens that may come next in a search: the names of one or two tries, or anything."""

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

    def deepest(self, nodes: IntArray) -> IntArray:
        """Tokens from each node to the end of the longest name below it, the end included."""
        ...

    def rows_at(self, edge: int) -> list[int]:
        """Rows of the entities whose name an edge ends, best first; empty if the names are not known."""
        ...


class TrieConstraint:
    """The names in a knowledge base's trie that have at most max_tokens tokens, without their end.

    A search constrained by such a trie is the paper's (section 3.3), and GENRE's before it (De Cao et al. 2021).
    """

    def __init__(self, trie: NameTrie, end_id: int, max_tokens: int) -> None:
        self.trie = trie
        self.end_id = end_id
        self.max_tokens = min(max_tokens, trie.max_depth - 1)
        self.root = ROOT
        self.dead = trie.n_edges - 1  # the last edge ends a name, so that nothing leaves it

    def expand(self, nodes: IntArray) -> tuple[IntArray, IntArray, BoolArray, BoolArray]:
        """See Constraint."""
        if (nodes == self.root).all():  # the widest fan-out, and the same for all mentions
            nodes = nodes[:1, :1]
        tokens, edges, valid = self.trie.children_of(nodes.reshape(-1))
        return _outgoing(nodes, tokens, edges, valid, self.trie.end, self.end_id)

    def deepest(self, nodes: IntArray) -> IntArray:
        """See Constraint."""
        return self.trie.height[nodes].astype(np.int64)

    def rows_at(self, edge: int) -> list[int]:
        """See Constraint."""
        rows: list[int] = self.trie.rows_at(edge).tolist()
        return rows


class UnionConstraint:
    """The names of two tries of one vocabulary: a knowledge base's, and that of added entities.

    A node is a pair of the tries' nodes, as one number. One of the pair may be a number beyond its trie's, which means
    that the name is not in that trie. Names that are not in the added trie cost no more than in TrieConstraint.
    """

    def __init__(self, trie: NameTrie, added: NameTrie, end_id: int, max_tokens: int) -> None:
        self.trie = trie
        self.added = added
        self.end_id = end_id
        self.max_tokens = min(max_tokens, max(trie.max_depth, added.max_depth) - 1)
        self._stride = added.n_edges + 1
        self.root = self._pair(ROOT, ROOT)
        self.dead = self._pair(trie.n_edges, added.n_edges)

    def expand(self, nodes: IntArray) -> tuple[IntArray, IntArray, BoolArray, BoolArray]:
        """See Constraint."""
        if (nodes == self.root).all():  # the widest fan-out, and the same for all mentions
            nodes = nodes[:1, :1]
        first, second = np.divmod(nodes.reshape(-1), self._stride)
        tokens, edges, valid = self.trie.children_of(_or_leaf(first, self.trie))
        if (second == self.added.n_edges).all():
            pairs = self._pair(edges, self.added.n_edges)
        else:
            more_tokens, more_edges, more_valid = self.added.children_of(_or_leaf(second, self.added))
            added_edges = np.full_like(edges, self.added.n_edges)  # of tokens that both tries have
            for row in np.flatnonzero(more_valid.any(axis=1)):
                both = tokens[row, valid[row]], more_tokens[row, more_valid[row]]
                _, first_indices, second_indices = np.intersect1d(*both, assume_unique=True, return_indices=True)
                added_edges[row, np.flatnonzero(valid[row])[first_indices]] = more_edges[row, second_indices]
                more_valid[row, second_indices] = False
            pairs = np.concatenate([self._pair(edges, added_edges), self._pair(self.trie.n_edges, more_edges)], axis=1)
            tokens = np.concatenate([tokens, more_tokens], axis=1)
            valid = np.concatenate([valid, more_valid], axis=1)
        return _outgoing(nodes, tokens, pairs, valid, self.trie.end, self.end_id)

    def deepest(self, nodes: IntArray) -> IntArray:
        """See Constraint."""
        first, second = np.divmod(nodes, self._stride)
        heights = self.trie.height[_or_leaf(first, self.trie)], self.added.height[_or_leaf(second, self.added)]
        return np.maximum(*heights).astype(np.int64)

    def rows_at(self, edge: int) -> list[int]:
        """See Constraint. Those of the first trie come first."""
        rows: list[int] = []
        for trie, trie_edge in zip((self.trie, self.added), divmod(edge, self._stride), strict=True):
            rows += trie.rows_at(trie_edge).tolist() if trie_edge < trie.n_edges else []
        return rows

    def _pair(self, first: Any, second: Any) -> Any:
        return first * self._stride + second


def _outgoing(
    nodes: IntArray, tokens: IntArray, edges: IntArray, valid: BoolArray, end: int, end_id: int
) -> tuple[IntArray, IntArray, BoolArray, BoolArray]:
    """The result of Constraint.expand from a trie's children, (nodes, fan-out). end: the trie's token for end_id."""
    ends = valid & (tokens == end)
    tokens = np.where(ends, end_id, np.where(valid, tokens, 0))
    shape = (*nodes.shape, tokens.shape[-1])
    return tokens.reshape(shape), edges.reshape(shape), ends.reshape(shape), valid.reshape(shape)


def _or_leaf(nodes: IntArray, trie: NameTrie) -> IntArray:
    """The nodes, with a leaf in place of numbers beyond the trie's: the last edge ends a name."""
    leaves: IntArray = np.minimum(nodes, trie.n_edges - 1)
    return leaves


class Unconstrained:
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

    def deepest(self, nodes: IntArray) -> IntArray:
        """See Constraint."""
        return np.full(nodes.shape, self.max_tokens + 1, dtype=np.int64)

    def rows_at(self, edge: int) -> list[int]:
        """See Constraint."""
        return []
