"""Names made for the trie's benchmark, as token ids over a vocabulary of 32,000, and as entities for build-kb."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

VOCABULARY = 32_000
LENGTHS = (0.01, 0.07, 0.17, 0.22, 0.20, 0.13, 0.09, 0.05, 0.03, 0.015, 0.01, 0.005)
"""Shares of the names with 1, 2, ... tokens: 4.9 on average, as titles have."""
SKEW = 4
"""Exponent of the tokens' popularity: the first token of 7 % of the names is the same, which is what "The" is."""
CHUNK = 100_000


@dataclass(frozen=True, slots=True)
class MadeNames:
    """Names of n entities, some of them shared: tokens (sum of lengths,), starts (n + 1,), counts (n,)."""

    tokens: NDArray[np.uint16]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.counts)

    def lists(self, first: int, stop: int) -> list[list[int]]:
        """The names of some rows as lists of token ids."""
        base = int(self.starts[first])
        flat = self.tokens[base : self.starts[stop]].tolist()
        ends = (self.starts[first : stop + 1] - base).tolist()
        return [flat[start:end] for start, end in pairwise(ends)]

    def first(self, n: int) -> "MadeNames":
        """The first n of them."""
        return MadeNames(self.tokens[: self.starts[n]], self.starts[: n + 1], self.counts[:n])


def make_names(n: int, seed: int = 0) -> MadeNames:
    """Make n names: nine tenths drawn, one tenth cut off from one of the drawn, so that it is its prefix."""
    random = np.random.default_rng(seed)
    n_cut = n // 10
    drawn = random.choice(np.arange(1, len(LENGTHS) + 1), size=n - n_cut, p=LENGTHS)
    tokens = (VOCABULARY * random.random(int(drawn.sum())) ** SKEW).astype(np.uint16)
    starts = np.cumsum(drawn) - drawn
    whole = random.choice(np.flatnonzero(drawn > 1), size=n_cut, replace=True)
    cut = drawn[whole] - random.integers(1, np.minimum(drawn[whole], 3))  # one or two tokens less
    lengths, sources = np.concatenate([drawn, cut]), np.concatenate([starts, starts[whole]])
    order = random.permutation(n)
    lengths, sources = lengths[order], sources[order]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.repeat(sources - ends[:-1], lengths) + np.arange(ends[-1])
    counts = (1 / (1 - random.random(n))).astype(np.int64)
    return MadeNames(tokens[indices], ends, counts)


def write_entities(names: MadeNames, path: Path) -> None:
    """Write JSON lines for build-kb; a name is its token ids in digits."""
    with path.open("w", encoding="ascii") as file, tqdm(total=len(names), desc="Writing entities") as bar:
        for first in range(0, len(names), CHUNK):
            stop = min(first + CHUNK, len(names))
            for row, (name, count) in enumerate(
                zip(names.lists(first, stop), names.counts[first:stop].tolist(), strict=True), first
            ):
                entity = {"id": f"Q{row}", "name": " ".join(map(str, name)), "count": count}
                file.write(json.dumps(entity) + "\n")
            bar.update(stop - first)


class DigitTokenizer:
    """Reads names that are token ids in digits: what a tokenizer is to build-kb, at no cost of its own."""

    fingerprint = "digits"
    vocab_size = VOCABULARY
    special_ids: frozenset[int] = frozenset()
    leading_space = False

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The numbers in each text."""
        return [[int(part) for part in text.split()] for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The numbers as text."""
        return " ".join(map(str, ids))
