"""What a trained pipe learns without training: entities and demonstrations that are added to it."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from spacy.tokens import Doc

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.rows import RowProblem, parse_row
from spacy_gemel.prompt.demonstrations import NO_IMAGE, Demonstration, DemonstrationStore

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.settings import Settings
    from spacy_gemel.vision.features import FeatureReader


def make_entity(kb_id: str, name: str, aliases: Iterable[str], description: str | None, count: int, nil: str) -> Entity:
    """An entity with what `build-kb` asks of one. Raises ValueError that says what is wrong."""
    if isinstance(aliases, str):
        raise ValueError(f"aliases of {kb_id!r} must be a list of texts, not one text")
    row = {"id": kb_id, "name": name, "aliases": list(aliases), "description": description, "count": count}
    try:
        content = json.dumps(row)
    except TypeError as error:
        raise ValueError(f"the entity {kb_id!r} cannot be added: {error}") from error
    entity = parse_row(content.encode())
    if isinstance(entity, RowProblem):
        raise ValueError(f"the entity {kb_id!r} cannot be added: {entity.message}")
    if kb_id == nil:
        raise ValueError(f"the entity {kb_id!r} cannot be added: its id is what a mention without an entity gets")
    return entity


def more_demonstrations(
    docs: Sequence[Doc],
    store: DemonstrationStore,
    kb: "KnowledgeBase",
    reader: "FeatureReader",
    settings: "Settings",
    nil: str,
    name: str,
) -> DemonstrationStore:
    """A store with the demonstrations of another, and after them the docs' linked entities that it lacks.

    Warns of ids that are not in the knowledge base. Raises ValueError where no entity of the docs can be used.
    """
    from spacy_gemel.training import collect_demonstrations, gold_rows

    if not any(doc.ents for doc in docs):
        raise ValueError(f"{name}: no entity to show: {len(docs)} docs were given, and none of them has entities.")
    golds = gold_rows(docs, kb, settings, nil, name, what="what is to be shown")
    new = collect_demonstrations(docs, golds, kb, reader, settings)
    known = {(shown.mention, shown.text, shown.kb_id) for shown in store}
    first = len(store.features)
    moved = [
        Demonstration(
            shown.text,
            shown.mention,
            shown.name,
            shown.kb_id,
            shown.image + first if shown.image != NO_IMAGE else NO_IMAGE,
        )
        for shown in new
        if (shown.mention, shown.text, shown.kb_id) not in known
    ]
    if not moved:
        return store
    features = np.concatenate([store.features, new.features]) if first else new.features
    return DemonstrationStore([*store, *moved], features)
