"""The stage after the search: names that the prior knows and the search did not find, and the weighing of all."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from spacy_gemel.decoding.score_names import score_names
from spacy_gemel.linking.candidates import FoundName, found_name
from spacy_gemel.linking.combine import weigh
from spacy_gemel.linking.prior import MentionPrior

if TYPE_CHECKING:
    from spacy_gemel.decoding.decoder import DecoderState
    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.kb.name_tokens import TokenizerLike
    from spacy_gemel.linking.demonstrations import Demonstration

KNOWN = 10
"""Entities of the prior, the best, that are scored for each mention besides those that the search found: a bound on
what it costs, not tuned on data."""


class PriorStage:
    """Adds to a mention's found names, and weighs them by its prior.

    demonstrations: the training examples. tokenizer: the one that the knowledge base was built for.
    """

    def __init__(
        self, demonstrations: Iterable["Demonstration"], kb: "KnowledgeBase", tokenizer: "TokenizerLike"
    ) -> None:
        self.prior = MentionPrior(((shown.mention, shown.kb_id) for shown in demonstrations), kb)
        self.kb = kb
        self.tokenizer = tokenizer

    def complete(
        self,
        state: "DecoderState",
        mentions: Sequence[str],
        found: Sequence[Sequence[FoundName]],
        end_id: int,
        *,
        beams: int,
        max_tokens: int,
    ) -> list[list[FoundName]]:
        """What the search found for each mention, and then, scored alike, what else the prior knows (KNOWN at most).

        state: the mentions' prompts as the search left them, with room for so many beams of names of max_tokens.
        Entities whose name cannot be said, or not within max_tokens, are left out.
        """
        known = [
            self._sayable(mention, {name.name for name in names}, max_tokens)
            for mention, names in zip(mentions, found, strict=True)
        ]
        scores = score_names(state, known, end_id, beams=beams) if any(known) else [[] for _ in known]
        return [
            [
                *names,
                *(
                    found_name(self.kb, self.kb.rows_of(tokens), score, searched=False)
                    for tokens, score in zip(more, values, strict=True)
                    if math.isfinite(score)
                ),
            ]
            for names, more, values in zip(found, known, scores, strict=True)
        ]

    def weigh(
        self, mentions: Sequence[str], found: Sequence[Sequence[FoundName]], weight: float, limit: int
    ) -> list[list[FoundName]]:
        """The found names of each mention by search and prior together, best first; see `combine.weigh`."""
        return [
            weigh(names, self.prior.of(mention), weight, limit) for mention, names in zip(mentions, found, strict=True)
        ]

    def _sayable(self, mention: str, found: set[str], max_tokens: int) -> list[tuple[int, ...]]:
        """The names, as tokens, of the entities that a mention is known to mean and that are not among the found."""
        rows = [self.kb.row(kb_id) for kb_id in [*self.prior.of(mention)][:KNOWN]]
        names = dict.fromkeys(self.kb.entity(row).name for row in rows if row is not None)
        missing = [name for name in names if name not in found]
        encoded = dict.fromkeys(tuple(tokens) for tokens in self.tokenizer.encode(missing))
        return [tokens for tokens in encoded if 0 < len(tokens) <= max_tokens and self.kb.rows_of(tokens)]
