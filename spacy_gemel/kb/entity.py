"""One entity of the knowledge base."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity: its id, the name the language model writes, and what is known about it.

    ``count`` is its popularity (how often it is linked somewhere); among entities that share a name
    the most popular one comes first.
    """

    kb_id: str
    name: str
    count: int = 0
    aliases: tuple[str, ...] = ()
    description: str | None = None
