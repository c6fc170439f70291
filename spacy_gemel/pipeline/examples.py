"""Training examples as the pipe sees them: gold mentions, demonstrations, and what earlier components contribute."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from tqdm import tqdm

from spacy_gemel.images.augmentation import AlteredReader
from spacy_gemel.images.features import FeatureReader
from spacy_gemel.kb.resolve import NIL, linkable_row
from spacy_gemel.linking.demonstrations import NO_IMAGE, Demonstration, DemonstrationStore
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.pipeline.mentions import context_of, describe, read_features
from spacy_gemel.pipeline.trf_vectors import ATTRIBUTE, REMEDY, NoVector, Vector, read_vectors
from spacy_gemel.utils.messages import ModelWarning, UnknownEntityWarning, warn

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase

logger = logging.getLogger(__name__)

MentionKey = tuple[int, int]  # a gold mention: index of the doc, first token

_BATCH_SIZE = 64
_TRF_DATA = f"doc._.{ATTRIBUTE}"


def gold_rows(
    docs: Sequence[Doc], kb: "KnowledgeBase", settings: LinkerSettings, name: str, *, what: str = "the training data"
) -> tuple[dict[MentionKey, int], Counter[str]]:
    """The knowledge base's rows of gold mentions, and how often other ids are gold, with a warning.

    Labels of labels_discard are left out. `name` is the pipe's; messages call the docs `what`. Raises ValueError if no
    mention is left.
    """
    rows: dict[MentionKey, int] = {}
    unknown: Counter[str] = Counter()
    total = 0
    for index, doc in enumerate(docs):
        ents = [ent for ent in doc.ents if ent.label_ not in settings.labels_discard]
        total += len(ents)
        for ent in ents:
            row = linkable_row(kb, ent.kb_id_)
            if row is not None:
                rows[index, ent.start] = row
            elif ent.kb_id_ not in ("", NIL):
                unknown[ent.kb_id_] += 1
    if not total and any(doc.ents for doc in docs):
        raise ValueError(
            f"{name}: no usable mention in {what}: all entities in {len(docs)} docs have a label that "
            f"labels_discard names ({', '.join(settings.labels_discard)})."
        )
    if not total:
        raise ValueError(
            f"{name}: no training data: no doc has an entity to learn from. `spacy assemble` and nlp.initialize() "
            "without examples have none: train the linker with `python -m spacy train`, and put the trained one into "
            'another pipeline with source = "training/model-best" in place of factory.'
        )
    if not rows:
        missing = f" (not there: {listed(unknown)})" if unknown else ""
        raise ValueError(
            f"{name}: no usable mention in {what}: of {total} entities in {len(docs)} docs none has a kb_id that is "
            f"in the knowledge base{missing}. Check that the data were converted with their ids, and that the "
            "knowledge base has the same ids."
        )
    if unknown:
        warn(
            f"{name}: {unknown.total()} of {total} mentions of {what} are skipped: the knowledge base has no "
            f"such id, or no usable name for it ({listed(unknown)}).",
            UnknownEntityWarning,
        )
    return rows, unknown


def listed(ids: Iterable[str]) -> str:
    """The first three different ids, for a message."""
    different = [*dict.fromkeys(ids)]
    return f"{', '.join(different[:3])}{' ...' if len(different) > 3 else ''}"


def usable_entities(
    examples: Sequence[Example], kb: "KnowledgeBase", settings: LinkerSettings
) -> tuple[list[list[Span]], list[int], list[str]]:
    """The gold entities to learn from, by doc; their rows in the knowledge base; and the gold ids that it lacks.

    Labels of labels_discard are left out, and without use_gold_ents entities that the predicted doc does not have.
    """
    entities: list[list[Span]] = [[] for _ in examples]
    rows: list[int] = []
    unknown: list[str] = []
    for example, usable in zip(examples, entities, strict=True):
        predicted = {(ent.start_char, ent.end_char) for ent in example.predicted.ents}
        for ent in example.reference.ents:
            is_missing = not settings.use_gold_ents and (ent.start_char, ent.end_char) not in predicted
            if is_missing or ent.kb_id_ in ("", NIL) or ent.label_ in settings.labels_discard:
                continue
            row = linkable_row(kb, ent.kb_id_)
            if row is None:
                unknown.append(ent.kb_id_)
            else:
                usable.append(ent)
                rows.append(row)
    return entities, rows, unknown


def collect_demonstrations(
    docs: Sequence[Doc],
    rows: Mapping[MentionKey, int],
    kb: "KnowledgeBase",
    reader: FeatureReader | AlteredReader,
    settings: LinkerSettings,
    vectors: Mapping[MentionKey, Vector] | None = None,
    fallback_docs: Sequence[Doc] | None = None,
) -> DemonstrationStore:
    """Every gold mention in `rows` as a demonstration, with the text around it and the features of its image.

    `vectors` are of the mentions that have one, or None if the retriever does not use them; `fallback_docs` have the
    images that docs lack. Raises ValueError if the context is the sentence and a doc has no sentence boundaries.
    """
    demonstrations: list[Demonstration] = []
    keys: list[MentionKey] = []
    features: list[np.ndarray] = []
    for start in tqdm(range(0, len(docs), _BATCH_SIZE), desc="Encoding the training images", unit="batch", leave=False):
        batch = slice(start, start + _BATCH_SIZE)
        fallback = fallback_docs[batch] if fallback_docs else None
        batch_features = read_features(docs[batch], reader, settings.image_root, fallback)
        for index, (doc, doc_features) in enumerate(zip(docs[batch], batch_features, strict=True), start):
            ents = [ent for ent in doc.ents if (index, ent.start) in rows]
            image = NO_IMAGE if doc_features is None else len(features)
            if ents and doc_features is not None:
                features.append(doc_features)
            for ent in ents:
                entity = kb.entity(rows[index, ent.start])
                context = context_of(ent, settings)
                demonstrations.append(Demonstration(context, ent.text, entity.name, entity.kb_id, image))
                keys.append((index, ent.start))
    logger.info("Kept %d demonstrations with %d images", len(demonstrations), len(features))
    matrix = np.stack(features) if features else np.zeros((0, reader.encoder.width), dtype=np.float32)
    if vectors is None:
        return DemonstrationStore(demonstrations, matrix)
    # a mention without a vector has a row of NaN
    missing = np.full(len(next(iter(vectors.values()), ())), np.nan, dtype=np.float32)
    stacked = np.array([vectors.get(key, missing) for key in keys], dtype=np.float32).reshape(len(keys), len(missing))
    return DemonstrationStore(demonstrations, matrix, stacked)


def new_demonstrations(
    docs: Sequence[Doc],
    kb: "KnowledgeBase",
    reader: FeatureReader,
    settings: LinkerSettings,
    name: str,
    *,
    wants_vectors: bool,
) -> DemonstrationStore:
    """The linked entities of some docs as demonstrations; raises ValueError if none can be used.

    Warns of ids that the knowledge base lacks, and of entities without a vector if the retriever wants vectors.
    """
    if not any(doc.ents for doc in docs):
        raise ValueError(f"{name}: no entity to show: {len(docs)} docs were given, and none of them has entities.")
    rows, _ = gold_rows(docs, kb, settings, name, what="the given docs")
    vectors: dict[MentionKey, Vector] | None = None
    if wants_vectors:
        vectors, missing = _vectors_of((zip(doc.ents, doc.ents, strict=True) for doc in docs), rows)
        remedy = (
            "Give docs that the pipeline's transformer has read: "
            'with nlp.select_pipes(enable="transformer"): docs = [nlp(doc) for doc in docs]'
        )
        if not vectors:
            message = f"no entity to show, as none has a vector of the transformer ({missing[0]})"
            raise ValueError(f"{name}: {message}. {remedy}.")
        if missing:
            warn(
                f"{name}: {len(missing)} of {len(rows)} entities are not added, as they have no vector of the "
                f"transformer (the first: {missing[0]}). {remedy}.",
                ModelWarning,
            )
        rows = {key: rows[key] for key in rows if key in vectors}
    return collect_demonstrations(docs, rows, kb, reader, settings, vectors)


def _vectors_of(
    docs: Iterable[Iterable[tuple[Span, Span | None]]], rows: Mapping[MentionKey, int]
) -> tuple[dict[MentionKey, Vector], list[str]]:
    """The vectors of the mentions in `rows`, by the span that each doc has with an entity; messages about the rest."""
    vectors: dict[MentionKey, Vector] = {}
    missing: list[str] = []
    for index, pairs in enumerate(docs):
        spans = {ent: span for ent, span in pairs if (index, ent.start) in rows}
        for ent, vector in zip(spans, read_vectors([*spans.values()]), strict=True):
            if isinstance(vector, NoVector):
                missing.append(f"{ent.text!r} in {describe(ent.doc, index)}: {vector}")
            else:
                vectors[index, ent.start] = vector
    return vectors, missing


def training_vectors(
    examples: Sequence[Example], rows: Mapping[MentionKey, int], nlp: Language | None, name: str
) -> dict[MentionKey, Vector]:
    """The vectors of gold mentions, (width,) each, from copies of the predicted docs that the upstream components read.

    If no component makes vectors, the docs' own are read. Warns of mentions without one; raises ValueError if none has.
    """
    pipes = _upstream_pipes(nlp, name, _TRF_DATA)
    docs: Iterable[Doc] = (example.predicted for example in examples)
    if nlp is not None and pipes:
        docs = (doc.copy() for doc in docs)
        for pipe in pipes:
            component: Any = nlp.get_pipe(pipe)
            docs = component.pipe(docs) if hasattr(component, "pipe") else map(component, docs)
    pairs = tqdm(zip(examples, docs, strict=True), "Reading the training mentions", len(examples), leave=False)
    spans = ([(ent, aligned_span(eg, ent, doc)) for ent in eg.reference.ents] for eg, doc in pairs)
    vectors, missing = _vectors_of(spans, rows)
    if not vectors:
        reason = f"though {pipes[-1]!r} ran on it" if pipes else "as no component before the linker makes any"
        raise ValueError(
            f"{name}: no mention of the training data has a vector, {reason} (the first: {missing[0]}). {REMEDY} "
            "Or choose another retriever."
        )
    if missing:
        warn(
            f"{name}: {len(missing)} of {len(rows)} mentions of the training data have no vector of the transformer, "
            f"and are never shown as demonstrations (the first: {missing[0]}).",
            ModelWarning,
        )
    return vectors


def aligned_span(example: Example, ent: Span, doc: Doc) -> Span | None:
    """The tokens of the predicted doc, or of a copy of it, that a gold entity covers; None if it covers none."""
    tokens = example.alignment.y2x[ent.start : ent.end]
    return doc[int(tokens.min()) : int(tokens.max()) + 1] if len(tokens) else None


def add_sentences(docs: Sequence[Doc], nlp: Language | None, name: str) -> Sequence[Doc]:
    """The docs; those without sentence boundaries as copies with the boundaries of the upstream components, if any."""
    pipes = _upstream_pipes(nlp, name, "token.is_sent_start")
    if nlp is None or not pipes:
        return docs

    def with_sentences(doc: Doc) -> Doc:
        result = doc.copy()
        for pipe in pipes:
            result = nlp.get_pipe(pipe)(result)
        doc = doc.copy()  # with its own entities, whatever a component made of them
        for token, source in zip(doc, result, strict=True):
            token.is_sent_start = source.is_sent_start
        return doc

    return [doc if doc.has_annotation("SENT_START") else with_sentences(doc) for doc in docs]


def _upstream_pipes(nlp: Language | None, name: str, attribute: str) -> list[str]:
    """The components before a pipe, up to the last that assigns an attribute: it may need what others make of a doc.

    Frozen components count: `spacy train` disables them while it initializes the others. Empty if none assigns it.
    """
    if nlp is None or name not in nlp.component_names:
        return []

    frozen = nlp.config.get("training", {}).get("frozen_components") or []
    upstream = nlp.component_names[: nlp.component_names.index(name)]
    assigns = {pipe: nlp.get_pipe_meta(pipe).assigns for pipe in upstream}
    # a transformer that training resumes is disabled as well, and is in no list
    upstream = [pipe for pipe in upstream if pipe in (*nlp.pipe_names, *frozen) or _TRF_DATA in assigns[pipe]]
    setters = [pipe for pipe in upstream if attribute in assigns[pipe]]
    return upstream[: upstream.index(setters[-1]) + 1] if setters else []
