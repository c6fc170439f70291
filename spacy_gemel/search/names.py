"""What the search may say next: the names of a trie, or anything at all."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.trie import ROOT, NameTrie

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class AllowedNames(Protocol):
    """The set of names a search is held in, as a graph of nodes; edges are named by the node they lead to."""

    root: int
    dead: int
    max_tokens: int
    """Tokens of the longest name, its end left out."""

    def expand(self, nodes: IntArray) -> tuple[IntArray, IntArray, BoolArray, BoolArray]:
        """The edges that leave each node.

        nodes: (mentions, beams).
        Returns token ids, next nodes, whether the edge ends a name, and whether it is an edge at all
        (padding is not), each (mentions, beams, widest fan-out), or of a shape that numpy broadcasts to it.
        """
        ...

    def deepest(self, nodes: IntArray) -> IntArray:
        """Tokens from each node to the end of the longest name below it, the end included."""
        ...


class TrieNames:
    """The names in a knowledge base's trie that have at most so many tokens, their end left out."""

    def __init__(self, trie: NameTrie, end_id: int, max_tokens: int) -> None:
        self.trie = trie
        self.end_id = end_id
        self.max_tokens = min(max_tokens, trie.max_depth - 1)
        self.root = ROOT
        self.dead = trie.n_edges - 1  # the deepest level is nothing but ends of names: nothing leaves it

    def expand(self, nodes: IntArray) -> tuple[IntArray, IntArray, BoolArray, BoolArray]:
        """See AllowedNames."""
        if (nodes == self.root).all():  # the widest of all, the same for all mentions
            nodes = nodes[:1, :1]
        tokens, edges, valid = self.trie.children_of(nodes.reshape(-1))
        ends = valid & (tokens == self.trie.end)
        tokens = np.where(ends, self.end_id, np.where(valid, tokens, 0))
        shape = (*nodes.shape, tokens.shape[-1])
        return tokens.reshape(shape), edges.reshape(shape), ends.reshape(shape), valid.reshape(shape)

    def deepest(self, nodes: IntArray) -> IntArray:
        """See AllowedNames."""
        return self.trie.height[nodes].astype(np.int64)


class AnyName:
    """Every sequence of tokens that ends: the unconstrained search of the ablation."""

    root = 0
    dead = -1

    def __init__(self, vocab_size: int, end_id: int, max_tokens: int) -> None:
        self.vocab_size = vocab_size
        self.end_id = end_id
        self.max_tokens = max_tokens

    def expand(self, nodes: IntArray) -> tuple[IntArray, IntArray, BoolArray, BoolArray]:
        """See AllowedNames."""
        tokens = np.arange(self.vocab_size)[None, None]
        return tokens, np.zeros_like(tokens), tokens == self.end_id, (nodes != self.dead)[..., None]

    def deepest(self, nodes: IntArray) -> IntArray:
        """See AllowedNames."""
        return np.full(nodes.shape, self.max_tokens + 1, dtype=np.int64)
