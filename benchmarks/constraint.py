"""What it costs to hold a search in a trie of millions of names."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.timing import spread
from spacy_gemel.kb.trie import NameTrie
from spacy_gemel.kb.trie_builder import build_trie

if TYPE_CHECKING:
    from torch import Tensor

    from spacy_gemel.language.causal_lm import CausalLM

_LONGEST = 9


def made_up_trie(names: int, vocabulary: int, seed: int = 0) -> NameTrie:
    """A trie of so many names of 2 to 9 made-up token ids, some tokens far more frequent than others.

    So prefixes are shared, and a few nodes have thousands of children, as among titles.
    """
    generator = np.random.default_rng(seed)
    lengths = generator.integers(2, _LONGEST + 1, size=names)
    ids = np.empty(int(lengths.sum()), dtype=np.int64)
    for start in range(0, len(ids), 10_000_000):  # one array of floats for all would be the largest thing here
        part = ids[start : start + 10_000_000]
        part[:] = (vocabulary - 10) * generator.random(len(part)) ** 4
    ids += 10
    rows: NDArray[np.int64] = np.arange(names)
    return NameTrie(build_trie(ids, lengths, rows, np.zeros(names, dtype=np.int64), vocabulary))


class ForwardClock:
    """Seconds inside the language model's own forward passes."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    @contextmanager
    def on(self, model: "CausalLM") -> Iterator[None]:
        """Count the passes meanwhile."""
        synchronize = torch.cuda.synchronize if model.device.type == "cuda" else lambda: None
        hooks = (
            model.model.register_forward_pre_hook(lambda *_: self._start(synchronize)),
            model.model.register_forward_hook(lambda *_: self._stop(synchronize)),
        )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _start(self, synchronize: Callable[[], None]) -> None:
        synchronize()
        self._since = time.perf_counter()

    def _stop(self, synchronize: Callable[[], None]) -> None:
        synchronize()
        self.seconds += time.perf_counter() - self._since


def measure_constraint(
    model: "CausalLM", prompts: Sequence["Tensor"], trie: NameTrie, end_id: int, repeats: int
) -> dict[str, Any]:
    """constraint_overhead: the share of the search's time that is spent outside the language model's passes."""
    from spacy_gemel.search.beam import beam_search
    from spacy_gemel.search.names import TrieNames

    shares, wholes = [], []
    for _ in range(repeats):
        clock = ForwardClock()
        start = time.perf_counter()
        with clock.on(model):
            found = beam_search(model, prompts, TrieNames(trie, end_id, _LONGEST), beam_size=5, n_names=5)
        whole = time.perf_counter() - start
        assert all(len(names) == 5 for names in found), "a search in millions of names must find five"
        shares.append(1 - clock.seconds / whole)
        wholes.append(whole / len(prompts))
    return {
        "constraint_overhead": round(median(shares), 4),
        "constraint_overhead_spread": spread(shares),
        "search_seconds_per_mention": spread(wholes),
        "names": trie.arrays.count_names(),
        "edges": trie.n_edges,
        "first_tokens": len(trie.children(0)[0]),
    }
