"""What a trained pipe learns without training: entities and demonstrations that are added to it."""

import json
import operator
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc

from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.jsonl import RowProblem, parse_row
from spacy_gemel.linking.demonstrations import NO_IMAGE, Demonstration, DemonstrationStore
from spacy_gemel.models.frozen import model_lock
from spacy_gemel.pipeline.parts import LinkerParts

if TYPE_CHECKING:
    from spacy_gemel.images.features import FeatureReader
    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.linking.settings import LinkerSettings
    from spacy_gemel.pipeline.trf_vectors import Vector

# How far, of their length, the features of one picture may lie apart: company in a batch changes them by rounding.
_SAME_PICTURE = 0.005


class GrowingParts(LinkerParts):
    """The parts of a pipe, and what is added to them when it is trained."""

    def add_entity(
        self, kb_id: str, name: str, *, aliases: Iterable[str] = (), description: str | None = None, count: int = 0
    ) -> None:
        """Let the pipe link to one entity more, from the next doc on, without training.

        It is kept in memory and saved with the pipe; the knowledge base's own files do not change.
        count: its popularity, as in the knowledge base: entities of one name share its probability by their counts, so
            that one with 0 gets nothing beside one that has been counted.
        Raises ValueError for an id that is there already, for a name that the language model cannot be made to say,
        and before the pipe is initialized. For many entities `add_entities` is far faster.
        """
        self.add_entities([make_entity(kb_id, name, aliases, description, count, self.NIL)])

    def add_entities(self, entities: Iterable[Entity]) -> None:
        """Let the pipe link to some entities more, all at once, or to none of them where one cannot be added.

        entities: Entity of spacy_gemel.kb.entity; see add_entity. Raises ValueError, and leaves all as it was.
        """
        new = check_entities(entities, self.NIL)
        with model_lock():
            tokenizer = self.stages.language_model.tokenizer
            self.use_kb(self.kb.with_added(new, tokenizer, max_tokens=self.settings.max_name_tokens))

    def add_demonstrations(self, docs: Iterable[Doc]) -> int:
        """Show the linked entities of some docs in prompts, from the next doc on, without training; says how many.

        docs: with an id of the knowledge base, or a name of it, on their entities, and an image as for linking; for
            TransformerRetriever read by the pipeline's transformer (nlp.select_pipes(enable="transformer")).
        One whose mention, text, entity and picture are there already is not added again, nor one without a picture
        where there is one with any. One with a picture takes the place of one that is the same but for having none, and
        counts.
        Raises ValueError for what is no list of docs, where no entity of the docs can be used, and before the pipe is
        initialized.
        """
        from spacy_gemel.pipeline.mentions import make_images_plain

        self.stages  # noqa: B018
        docs = check_docs(docs, self.name)
        make_images_plain(docs)
        with model_lock():
            stages = self.stages  # only now: another thread may just have loaded the pipe anew
            assert self._reader is not None
            store, number = more_demonstrations(
                docs,
                self.store,
                self.kb,
                self._reader,
                self.settings,
                self.NIL,
                self.name,
                self.retriever.wants_vectors,
            )
            if number:
                stages.use_store(store)
                self.store = store
        return number


def make_entity(kb_id: str, name: str, aliases: Iterable[str], description: str | None, count: int, nil: str) -> Entity:
    """An entity with what `build-kb` asks of one. Raises ValueError that says what is wrong."""
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
        raise ValueError(f"the entity {kb_id!r} cannot be added: its id is what a mention without an entity gets")
    return entity


def check_entities(entities: Iterable[Entity], nil: str) -> list[Entity]:
    """Some entities with what `build-kb` asks of each. Raises ValueError that says what is wrong with the first."""
    checked = []
    for entity in entities:
        if not isinstance(entity, Entity):
            raise ValueError(
                "entities are added as Entity of spacy_gemel.kb.entity, such as Entity(kb_id, name, count=3), not as "
                f"{type(entity).__name__}"
            )
        checked.append(make_entity(entity.kb_id, entity.name, entity.aliases, entity.description, entity.count, nil))
    return checked


def check_docs(docs: Iterable[Doc], name: str) -> list[Doc]:
    """The docs as a list. Raises ValueError for what is none, also for one doc in place of several."""
    one: object = docs
    if isinstance(one, Doc):
        raise ValueError(f"{name}: add_demonstrations takes a list of docs, not one Doc: give [doc].")
    given: list[Any] = list(docs)
    for doc in given:
        if not isinstance(doc, Doc):
            raise ValueError(
                f"{name}: add_demonstrations takes a list of docs, and there is {type(doc).__name__} in it."
            )
    return given


def more_demonstrations(
    docs: Sequence[Doc],
    store: DemonstrationStore,
    kb: "KnowledgeBase",
    reader: "FeatureReader",
    settings: "LinkerSettings",
    nil: str,
    name: str,
    wants_vectors: bool = False,
) -> tuple[DemonstrationStore, int]:
    """A store with the demonstrations of another and the docs' linked entities that it lacks, and how many these are.

    One is known where mention, text, entity and picture are. One without a picture is known where there is one with
    any; where only one without is there, one that has a picture takes its place. New ones stand after the others.
    wants_vectors: whether an entity is of use only with a vector, read from its doc.
    Warns of ids that are not in the knowledge base, and of docs without vectors. Raises ValueError for what is no doc,
    where no entity of the docs can be used, and where their vectors are of another width than the store's.
    """
    from spacy_gemel.pipeline.examples import collect_demonstrations, gold_rows

    if not any(doc.ents for doc in docs):
        raise ValueError(f"{name}: no entity to show: {len(docs)} docs were given, and none of them has entities.")
    golds, _ = gold_rows(docs, kb, settings, nil, name, what="what is to be shown")
    vectors = _vectors(docs, golds, name) if wants_vectors else None
    if vectors is not None:
        golds = {index: row for index, row in golds.items() if index in vectors}
    new = collect_demonstrations(docs, golds, kb, reader, settings, vectors)
    # one that has no vector is never shown: it may come again with one
    useless = np.zeros(len(store), dtype=bool)
    if wants_vectors:
        useless[:] = True if store.vectors is None else ~np.isfinite(store.vectors).all(axis=1)
    taken = _what_is_new(new, store, useless)
    return _with_new(store, new, taken, name) if taken else store, len(taken)


def _what_is_new(new: DemonstrationStore, store: DemonstrationStore, useless: NDArray[np.bool_]) -> dict[int, int]:
    """Where in a store, or behind it, demonstrations of another are to stand: {place: their place in the other}.

    useless: those of the store that do not count, (demonstrations,).
    """
    pictures: dict[tuple[str, str, str], dict[int, Vector | None]] = {}  # what is known: {its place: its picture}
    for index, shown in enumerate(store):
        if not useless[index]:
            pictures.setdefault(_key(shown), {})[index] = store.features_of(shown)
    taken: dict[int, int] = {}
    end = len(store)
    for number, shown in enumerate(new):
        known, picture = pictures.setdefault(_key(shown), {}), new.features_of(shown)
        if (known and picture is None) or any(_is_same_picture(picture, other) for other in known.values()):
            continue
        bare = [index for index, other in known.items() if other is None]
        index = bare[0] if bare else end
        end += index == end
        known[index], taken[index] = picture, number
    return taken


def _with_new(
    store: DemonstrationStore, new: DemonstrationStore, taken: Mapping[int, int], name: str
) -> DemonstrationStore:
    """A store with some demonstrations of another in their places, and their pictures. Raises ValueError."""
    rows = [*store]
    behind = [number for index, number in sorted(taken.items()) if index >= len(store)]
    vectors = _joined(store, None if new.vectors is None else new.vectors[behind], len(behind), name)
    images: dict[int, int] = {NO_IMAGE: NO_IMAGE}
    for index, number in sorted(taken.items()):
        shown = new[number]
        image = images.setdefault(shown.image, len(store.features) + len(images) - 1)
        rows[index : index + 1] = [replace(shown, image=image)]
        if vectors is not None and new.vectors is not None:
            vectors[index] = new.vectors[number]
    features = new.features[[image for image in images if image != NO_IMAGE]]
    return DemonstrationStore(
        rows, np.concatenate([store.features, features]) if len(store.features) else features, vectors
    )


def _key(shown: Demonstration) -> tuple[str, str, str]:
    return shown.mention, shown.text, shown.kb_id


def _is_same_picture(one: "Vector | None", other: "Vector | None") -> bool:
    if one is None or other is None:
        return False
    return bool(np.linalg.norm(one - other) <= _SAME_PICTURE * np.linalg.norm(other))


def _vectors(docs: Sequence[Doc], golds: Mapping[tuple[int, int], int], name: str) -> "dict[tuple[int, int], Vector]":
    """The vectors of the usable entities that have one. Warns where some have none, raises ValueError where all do."""
    from spacy_gemel.pipeline.mentions import describe
    from spacy_gemel.pipeline.trf_vectors import NoVector, read_vectors

    ents = [[ent for ent in doc.ents if (index, ent.start) in golds] for index, doc in enumerate(docs)]
    how = (
        "Give docs that the pipeline's transformer has read: "
        'with nlp.select_pipes(enable="transformer"): docs = [nlp(doc) for doc in docs]'
    )
    vectors, missing = {}, []
    for index, row in enumerate(ents):
        for ent, found in zip(row, read_vectors(row), strict=True):
            if found is None or isinstance(found, NoVector):
                missing.append(f"{ent.text!r} in {describe(ent.doc, index)}: {found}")
            else:
                vectors[index, ent.start] = found
    if not vectors:
        raise ValueError(f"{name}: no entity to show, as none has a vector of the transformer ({missing[0]}). {how}.")
    if missing:
        warnings.warn(
            f"{name}: {len(missing)} of {len(golds)} entities are not added, as they have no vector of the transformer "
            f"(the first: {missing[0]}). {how}.",
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
