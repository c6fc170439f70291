"""Entities that came after a knowledge base was built: in memory, beside it, until it is built again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.errors import KBError
from spacy_gemel.kb.names import NameTokenizer, tokenise_names
from spacy_gemel.kb.surfaces import surface_key
from spacy_gemel.kb.trie import NameTrie
from spacy_gemel.kb.trie_builder import build_trie


@dataclass(frozen=True)
class Additions:
    """Some entities, whose rows go on after those of a knowledge base.

    first: the row of the first. trie: of their names; None where there is none.
    """

    first: int
    entities: tuple[Entity, ...] = ()
    trie: NameTrie | None = None

    @classmethod
    def build(
        cls, first: int, entities: Sequence[Entity], tokenizer: NameTokenizer, *, max_tokens: int, vocab_size: int
    ) -> Additions:
        """Make the trie of some entities' names.

        max_tokens: the longest name, in tokens. vocab_size: of the knowledge base's trie.
        Raises KBError for a name that the language model cannot be made to say.
        """
        if not entities:
            return cls(first)
        names = tokenise_names([entity.name for entity in entities], tokenizer, max_tokens)
        for place, problem in names.problems:
            raise KBError(f"{entities[place].kb_id!r} cannot be added: {problem.message}")
        rows = np.arange(first, first + len(entities), dtype=np.int32)
        counts = np.array([entity.count for entity in entities], dtype=np.int64)
        arrays = build_trie(names.tokens, names.lengths, rows, counts, vocab_size)
        return cls(first, tuple(entities), NameTrie(arrays, vocab_size, first + len(entities)))

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

    def rows_called(self, key: str) -> tuple[list[int], list[int]]:
        """Rows of the entities whose name has this ``surface_key``, and of those of which only an alias has it."""
        named: list[int] = []
        aliased: list[int] = []
        for place, entity in enumerate(self.entities, self.first):
            if surface_key(entity.name) == key:
                named.append(place)
            elif key in map(surface_key, entity.aliases):
                aliased.append(place)
        return named, aliased
