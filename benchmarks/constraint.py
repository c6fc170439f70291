"""What it costs to hold a search in a trie of millions of names."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.made_names import LENGTHS, VOCABULARY, make_names
from benchmarks.timing import spread
from research.machine import synchronizer
from spacy_gemel.kb.trie import NameTrie
from spacy_gemel.kb.trie_builder import build_trie

if TYPE_CHECKING:
    from torch import Tensor

    from spacy_gemel.models.causal_lm import CausalLM


def trie_on_disk(names: int, folder: Path) -> NameTrie:
    """The trie of benchmarks.trie's names, written to a folder and opened as a linker opens it."""
    generated = make_names(names)
    rows: NDArray[np.int64] = np.arange(names)
    build_trie(generated.tokens, np.diff(generated.starts), rows, generated.counts, VOCABULARY).save(folder)
    return NameTrie.open(folder, VOCABULARY, names)


class ForwardClock:
    """The language model's own forward passes, and the seconds inside them."""

    def __init__(self) -> None:
        self.passes = 0
        self.seconds = 0.0
        self._since = 0.0

    @contextmanager
    def on(self, model: "CausalLM") -> Iterator[None]:
        """Count the passes meanwhile."""
        synchronize = synchronizer(model.device.type)
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
        self.passes += 1


def measure_constraint(
    model: "CausalLM", prompts: Sequence["Tensor"], trie: NameTrie, end_id: int, repeats: int
) -> dict[str, Any]:
    """constraint_overhead: the share of the search's time that is spent outside the language model's passes."""
    from spacy_gemel.decoding.beam_search import beam_search, room_for_beams
    from spacy_gemel.decoding.constraints import TrieConstraint
    from spacy_gemel.decoding.self_check import make_decoder

    decoder = make_decoder(model)
    shares, wholes = [], []
    for _ in range(repeats):
        clock = ForwardClock()
        start = time.perf_counter()
        with clock.on(model):
            constraint = TrieConstraint(trie, end_id, len(LENGTHS))
            state = decoder.prefill(
                prompts, tokens=constraint.max_tokens, room=room_for_beams(5, constraint.max_tokens)
            )
            results = beam_search(state, constraint, beam_size=5, n_names=5)
        whole = time.perf_counter() - start
        assert all(len(names) == 5 for names in results), "a search in millions of names must find five"
        shares.append(1 - clock.seconds / whole)
        wholes.append(whole / len(prompts))
    return {
        "constraint_overhead": spread(shares),
        "search_seconds_per_mention": spread(wholes),
        "names": trie.arrays.count_names(),
        "edges": trie.n_edges,
        "first_tokens": int(trie.offsets[1] - trie.offsets[0]),
    }
