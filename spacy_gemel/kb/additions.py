"""Checks of entities that are to be added to an open knowledge base."""

import json
import operator
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.jsonl import RowProblem, parse_row
from spacy_gemel.kb.resolve import NIL


def make_entity(
    kb_id: str, name: str, aliases: Iterable[str] = (), description: str | None = None, count: int = 0
) -> Entity:
    """An entity that meets the demands of `build-kb`. Raises ValueError if it does not."""
    if isinstance(aliases, str):
        raise ValueError(f"aliases of {kb_id!r} must be a list of texts, not one text")
    return _check(Entity(kb_id, name, count, tuple(aliases), description))


def _check(entity: Entity) -> Entity:
    kb_id = entity.kb_id
    row = {"id": kb_id, **{field.name: getattr(entity, field.name) for field in fields(entity)[1:]}}
    with suppress(TypeError):  # a whole number of any kind, such as NumPy's
        row["count"] = operator.index(entity.count)
    try:
        parsed = parse_row(json.dumps(row).encode())
    except TypeError as error:
        raise ValueError(f"the entity {kb_id!r} cannot be added: {error}") from error
    if isinstance(parsed, RowProblem):
        raise ValueError(f"the entity {kb_id!r} cannot be added: {parsed.message}")
    if kb_id == NIL:
        raise ValueError(f"the entity {kb_id!r} cannot be added: this id is the answer for a mention without an entity")
    return parsed


def check_entities(entities: Iterable[Entity]) -> list[Entity]:
    """Entities that meet the demands of `build-kb`. Raises ValueError if one does not, or is no Entity."""
    checked = []
    for entity in entities:
        if not isinstance(entity, Entity):
            raise ValueError(
                "entities are added as Entity of spacy_gemel.kb.entity, such as Entity(kb_id, name, count=3), not as "
                f"{type(entity).__name__}"
            )
        checked.append(_check(entity))
    return checked
