"""Entities that came after a knowledge base was built: in memory, beside it, until it is built again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.errors import KBError
from spacy_gemel.kb.name_tokens import NameTokenizer, tokenise_names
from spacy_gemel.kb.surfaces import surface_key
from spacy_gemel.kb.trie import NameTrie, TokenArray
from spacy_gemel.kb.trie_builder import build_trie


@dataclass(frozen=True)
class Additions:
    """Some entities, whose rows go on after those of a knowledge base.

    first: the row of the first. trie: of their names; None where there is none. tokens, lengths: of the names,
        one after the other and (entities,), as TokenisedNames has them.
    """

    first: int
    entities: tuple[Entity, ...] = ()
    trie: NameTrie | None = None
    tokens: TokenArray = field(default_factory=lambda: np.zeros(0, np.uint8), compare=False, repr=False)
    lengths: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8), compare=False, repr=False)

    def with_more(
        self, entities: Sequence[Entity], tokenizer: NameTokenizer, *, max_tokens: int, vocab_size: int
    ) -> Additions:
        """These entities and some more, with a trie of all their names; only the new names are tokenised.

        max_tokens: the longest name, in tokens. vocab_size: of the knowledge base's trie.
        Raises KBError for a name that the language model cannot be made to say.
        """
        if not entities:
            return self
        names = tokenise_names([entity.name for entity in entities], tokenizer, max_tokens)
        for index, problem in names.problems:
            raise KBError(f"{entities[index].kb_id!r} cannot be added: {problem.message}")
        both = (*self.entities, *entities)
        tokens = np.concatenate([self.tokens, names.tokens]).astype(names.tokens.dtype, copy=False)
        lengths = np.concatenate([self.lengths, names.lengths])
        rows = np.arange(self.first, self.first + len(both), dtype=np.int32)
        counts = np.array([entity.count for entity in both], dtype=np.int64)
        arrays = build_trie(tokens, lengths, rows, counts, vocab_size)
        return Additions(self.first, both, NameTrie(arrays, vocab_size, self.first + len(both)), tokens, lengths)

    def __len__(self) -> int:
        return len(self.entities)

    def entity(self, row: int) -> Entity:
        """The entity of a row. Raises IndexError for one that is not here."""
        if not 0 <= row - self.first < len(self.entities):
            raise IndexError(f"Row {row} is outside the knowledge base's {self.first + len(self.entities)}")
        return self.entities[row - self.first]

    def row(self, kb_id: str) -> int | None:
        """The row of an id, None if it is not here."""
        return self._rows.get(kb_id)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {entity.kb_id: row for row, entity in enumerate(self.entities, self.first)}

    def rows_by_surface(self, key: str) -> tuple[list[int], list[int]]:
        """Rows of the entities whose name has this ``surface_key``, and of those of which only an alias has it."""
        named: list[int] = []
        aliased: list[int] = []
        for index, entity in enumerate(self.entities, self.first):
            if surface_key(entity.name) == key:
                named.append(index)
            elif key in map(surface_key, entity.aliases):
                aliased.append(index)
        return named, aliased
