"""What a trained pipe learns without training: entities and demonstrations that are added to it."""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from spacy.tokens import Doc

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.rows import RowProblem, parse_row
from spacy_gemel.prompt.demonstrations import NO_IMAGE, Demonstration, DemonstrationStore

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.mention_vectors import Vector
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
    wants_vectors: bool = False,
) -> DemonstrationStore:
    """A store with the demonstrations of another, and after them the docs' linked entities that it lacks.

    wants_vectors: whether an entity is of use only with a vector, read from its doc.
    Warns of ids that are not in the knowledge base, and of docs without vectors. Raises ValueError where no entity of
    the docs can be used, and where their vectors are of another width than the store's.
    """
    from spacy_gemel.training import collect_demonstrations, gold_rows

    if not any(doc.ents for doc in docs):
        raise ValueError(f"{name}: no entity to show: {len(docs)} docs were given, and none of them has entities.")
    golds = gold_rows(docs, kb, settings, nil, name, what="what is to be shown")
    vectors = _vectors(docs, golds, name) if wants_vectors else None
    if vectors is not None:
        golds = {place: row for place, row in golds.items() if place in vectors}
    new = collect_demonstrations(docs, golds, kb, reader, settings, vectors)
    # one that has no vector is never shown: it may come again with one
    useless = np.zeros(len(store), dtype=bool)
    if wants_vectors:
        useless[:] = True if store.vectors is None else ~np.isfinite(store.vectors).all(axis=1)
    known = {(shown.mention, shown.text, shown.kb_id) for shown, lacks in zip(store, useless, strict=True) if not lacks}
    first = len(store.features)
    fresh = [place for place, shown in enumerate(new) if (shown.mention, shown.text, shown.kb_id) not in known]
    if not fresh:
        return store
    moved = [
        Demonstration(
            shown.text,
            shown.mention,
            shown.name,
            shown.kb_id,
            shown.image + first if shown.image != NO_IMAGE else NO_IMAGE,
        )
        for shown in (new[place] for place in fresh)
    ]
    features = np.concatenate([store.features, new.features]) if first else new.features
    rows = None if new.vectors is None else new.vectors[fresh]
    return DemonstrationStore([*store, *moved], features, _joined(store, rows, len(moved), name))


def _vectors(docs: Sequence[Doc], golds: Mapping[tuple[int, int], int], name: str) -> "dict[tuple[int, int], Vector]":
    """The vectors of the usable entities that have one. Warns where some have none, raises ValueError where all do."""
    from spacy_gemel.gather import describe
    from spacy_gemel.mention_vectors import NoVector, read_vectors

    ents = [[ent for ent in doc.ents if (place, ent.start) in golds] for place, doc in enumerate(docs)]
    how = (
        "Give docs that the pipeline's transformer has read: "
        'with nlp.select_pipes(enable="transformer"): docs = [nlp(doc) for doc in docs]'
    )
    vectors, lacking = {}, []
    for place, row in enumerate(ents):
        for ent, found in zip(row, read_vectors(row), strict=True):
            if found is None or isinstance(found, NoVector):
                lacking.append(f"{ent.text!r} in {describe(ent.doc, place)}: {found}")
            else:
                vectors[place, ent.start] = found
    if not vectors:
        raise ValueError(f"{name}: no entity to show, as none has a vector of the transformer ({lacking[0]}). {how}.")
    if lacking:
        warnings.warn(
            f"{name}: {len(lacking)} of {len(golds)} entities are not added, as they have no vector of the transformer "
            f"(the first: {lacking[0]}). {how}.",
            stacklevel=2,
        )
    return vectors


def _joined(store: DemonstrationStore, new: "Vector | None", size: int, name: str) -> "Vector | None":
    """The vectors of a store and of so many new demonstrations, with rows of NaN for what has none."""
    if store.vectors is None and new is None:
        return None
    width = (store.vectors if new is None else new).shape[1]  # type: ignore[union-attr]
    old = store.vectors
    if old is None or not np.isfinite(old).any():
        old = np.full((len(store), width), np.nan, dtype=np.float32)
    if new is None:
        new = np.full((size, width), np.nan, dtype=np.float32)
    if old.shape[1] != width:
        raise ValueError(
            f"{name}: the docs' vectors are of width {width}, those of the demonstrations there are of width "
            f"{old.shape[1]}: they were made by another transformer. Use the one that the linker was trained behind."
        )
    return np.concatenate([old, new])
