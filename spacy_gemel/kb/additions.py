"""Entities that were added after a knowledge base was built: in memory, until it is built again."""

import json
import operator
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.entity import Entity, KBError
from spacy_gemel.kb.index import surface_key
from spacy_gemel.kb.jsonl import RowProblem, parse_row
from spacy_gemel.kb.name_tokens import TokenizerLike, tokenise_names
from spacy_gemel.kb.trie import NameTrie, TokenArray
from spacy_gemel.kb.trie_builder import build_trie


@dataclass(frozen=True)
class Additions:
    """Entities whose rows follow those of a knowledge base.

    Attributes:
        first: the row of the first.
        entities: the entities.
        trie: of their names; None if there are none.
        tokens: of their names in a row, see ``TokenisedNames``.
        lengths: tokens of each name, (entities,).
    """

    first: int
    entities: tuple[Entity, ...] = ()
    trie: NameTrie | None = None
    tokens: TokenArray = field(default_factory=lambda: np.zeros(0, np.uint8), compare=False, repr=False)
    lengths: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8), compare=False, repr=False)

    def extended(
        self, entities: Sequence[Entity], tokenizer: TokenizerLike, *, max_tokens: int, vocab_size: int
    ) -> "Additions":
        """These entities and further ones, with a trie of all their names; only the new names are tokenised.

        Args:
            entities: the new entities.
            tokenizer: of the knowledge base.
            max_tokens: the longest name, in tokens.
            vocab_size: of the knowledge base's trie.

        Raises:
            KBError: for a name that cannot enter the trie.
        """
        if not entities:
            return self
        names = tokenise_names([entity.name for entity in entities], tokenizer, max_tokens)
        for index, problem in names.problems:
            raise KBError(f"{entities[index].kb_id!r} cannot be added: {problem.message}")
        entities = (*self.entities, *entities)
        tokens = np.concatenate([self.tokens, names.tokens]).astype(names.tokens.dtype, copy=False)
        lengths = np.concatenate([self.lengths, names.lengths])
        rows = np.arange(self.first, self.first + len(entities), dtype=np.int32)
        counts = np.array([entity.count for entity in entities], dtype=np.int64)
        trie = NameTrie(build_trie(tokens, lengths, rows, counts, vocab_size), vocab_size, int(rows[-1]) + 1)
        return Additions(self.first, entities, trie, tokens, lengths)

    def __len__(self) -> int:
        return len(self.entities)

    def entity(self, row: int) -> Entity:
        """The entity of a row. Raises IndexError if the row does not exist."""
        if not 0 <= row - self.first < len(self.entities):
            raise IndexError(f"Row {row} is outside the knowledge base's {self.first + len(self.entities)}")
        return self.entities[row - self.first]

    def row(self, kb_id: str) -> int | None:
        """The row of an id, or None."""
        return self._rows.get(kb_id)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {entity.kb_id: row for row, entity in enumerate(self.entities, self.first)}

    def rows_by_surface(self, key: str) -> tuple[list[int], list[int]]:
        """Rows of the entities whose name has this ``surface_key``, and of those with only an alias that has it."""
        named: list[int] = []
        aliased: list[int] = []
        for row, entity in enumerate(self.entities, self.first):
            if surface_key(entity.name) == key:
                named.append(row)
            elif key in map(surface_key, entity.aliases):
                aliased.append(row)
        return named, aliased


def make_entity(
    kb_id: str, name: str, aliases: Iterable[str] = (), description: str | None = None, count: int = 0, *, nil: str
) -> Entity:
    """An entity that meets the demands of `build-kb`.

    Raises:
        ValueError: if it does not.
    """
    if isinstance(aliases, str):
        raise ValueError(f"aliases of {kb_id!r} must be a list of texts, not one text")
    with suppress(TypeError):  # a whole number of any kind, such as NumPy's
        count = operator.index(count)
    row = {"id": kb_id, "name": name, "aliases": list(aliases), "description": description, "count": count}
    try:
        content = json.dumps(row)
    except TypeError as error:
        raise ValueError(f"the entity {kb_id!r} cannot be added: {error}") from error
    entity = parse_row(content.encode())
    if isinstance(entity, RowProblem):
        raise ValueError(f"the entity {kb_id!r} cannot be added: {entity.message}")
    if kb_id == nil:
        raise ValueError(f"the entity {kb_id!r} cannot be added: this id is the answer for a mention without an entity")
    return entity


def check_entities(entities: Iterable[Entity], *, nil: str) -> list[Entity]:
    """Entities that meet the demands of `build-kb`.

    Raises:
        ValueError: if one does not, or is no Entity.
    """
    checked = []
    for entity in entities:
        if not isinstance(entity, Entity):
            raise ValueError(
                "entities are added as Entity of spacy_gemel.kb.entity, such as Entity(kb_id, name, count=3), not as "
                f"{type(entity).__name__}"
            )
        row = (entity.kb_id, entity.name, entity.aliases, entity.description, entity.count)
        checked.append(make_entity(*row, nil=nil))
    return checked
