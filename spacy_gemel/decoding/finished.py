"""The names that a mention's search has found so far."""

import bisect
from dataclasses import dataclass

NEG_INF = float("-inf")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A name the search found.

    tokens: the name's token ids, its end left out.
    score: log-probability of name and end / (tokens with end) ** length_penalty.
    edge: the trie's edge that ends the name; 0 where the search was free.
    """

    tokens: tuple[int, ...]
    score: float
    edge: int


class BeamHypotheses:
    """The best names of one mention, best first, the first of equals first; at most `size` of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.hypotheses: list[Hypothesis] = []

    def add(self, hypothesis: Hypothesis) -> None:
        """Take a name in, if it is among the best."""
        bisect.insort(self.hypotheses, hypothesis, key=lambda known: -known.score)
        del self.hypotheses[self.size :]

    def score_of(self, index: int) -> float:
        """The score of the place-th best, from 1; -inf where there are fewer."""
        return self.hypotheses[index - 1].score if len(self.hypotheses) >= index else NEG_INF
