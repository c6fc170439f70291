"""Training examples as the pipe sees them: gold mentions, and the demonstrations kept from them."""

import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from spacy.tokens import Doc, Span
from spacy.training import Example
from tqdm import tqdm

from spacy_gemel.kb.resolve import linkable_row
from spacy_gemel.linking.demonstrations import NO_IMAGE, Demonstration, DemonstrationStore
from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.pipeline.before import aligned_span
from spacy_gemel.pipeline.context import context_of
from spacy_gemel.pipeline.mentions import gather_mentions, read_features
from spacy_gemel.pipeline.trf_vectors import Vector, VectorReader

if TYPE_CHECKING:
    from spacy_gemel.images.features import FeatureReader
    from spacy_gemel.kb.knowledge_base import KnowledgeBase

logger = logging.getLogger("spacy_gemel")

_DOCS_AT_ONCE = 64


def gold_rows(
    docs: Sequence[Doc],
    kb: "KnowledgeBase",
    settings: LinkerSettings,
    nil: str,
    name: str,
    *,
    what: str = "the training data",
) -> tuple[dict[tuple[int, int], int], Counter[str]]:
    """The usable gold mentions as {(doc, first token): row in the knowledge base}, and how often others are gold.

    what: what messages call the docs.
    Warns of golds that are not in the knowledge base. Raises ValueError if there is none, or none is left.
    """
    rows: dict[tuple[int, int], int] = {}
    missing: Counter[str] = Counter()
    seen = 0
    for index, doc in enumerate(docs):
        for ent in doc.ents:
            if ent.label_ in settings.labels_discard:
                continue
            seen += 1
            row = linkable_row(kb, ent.kb_id_) if ent.kb_id_ not in ("", nil) else None
            if row is not None:
                rows[index, ent.start] = row
            elif ent.kb_id_ not in ("", nil):
                missing[ent.kb_id_] += 1
    if not seen and any(doc.ents for doc in docs):
        raise ValueError(
            f"{name}: {what} has no usable mention: all entities in {len(docs)} docs have a label that "
            f"labels_discard names ({', '.join(settings.labels_discard)})."
        )
    if not seen:
        raise ValueError(
            f"{name}: no training data: no doc has an entity to learn from. `spacy assemble` and nlp.initialize() "
            "without examples have none: train the linker with `python -m spacy train`, and put the trained one into "
            'another pipeline with source = "training/model-best" in place of factory.'
        )
    if not rows:
        raise ValueError(
            f"{name}: {what} has no usable mention: of {seen} entities in {len(docs)} docs none "
            f"has a kb_id that is in the knowledge base"
            + (f" (not there: {', '.join(list(missing)[:3])} ...)" if missing else "")
            + ". Check that the data were converted with their ids, and that the knowledge base has the same ids."
        )
    if missing:
        warnings.warn(
            f"{name}: {sum(missing.values())} of {seen} mentions of {what} are skipped: the knowledge base has no "
            f"such id, or no usable name for it ({', '.join(list(missing)[:3])}{' ...' if len(missing) > 3 else ''}).",
            stacklevel=2,
        )
    return rows, missing


def collect_demonstrations(
    docs: Sequence[Doc],
    golds: dict[tuple[int, int], int],
    kb: "KnowledgeBase",
    reader: "FeatureReader",
    settings: LinkerSettings,
    vectors: Mapping[tuple[int, int], Vector] | None = None,
    predicted: Sequence[Doc] | None = None,
) -> DemonstrationStore:
    """Every usable gold mention as a demonstration, with the text around it and the features of its image.

    golds: what `gold_rows` found. vectors: of those of the golds that have one; None where they are not wanted.
    predicted: for each doc one whose image serves where it has none itself.
    Raises ValueError where the context is to be sentences and there are none.
    """
    demonstrations: list[Demonstration] = []
    found: list[Vector | None] = []
    features: list[np.ndarray] = []
    chunks = range(0, len(docs), _DOCS_AT_ONCE)
    for start in tqdm(chunks, desc="Encoding the training images", unit="batch", leave=False):
        chunk = docs[start : start + _DOCS_AT_ONCE]
        others = predicted[start : start + _DOCS_AT_ONCE] if predicted else None
        encoded = read_features(chunk, reader, others)
        for index, (doc, row_features) in enumerate(zip(chunk, encoded, strict=True), start):
            image = NO_IMAGE
            for ent in doc.ents:
                row = golds.get((index, ent.start))
                if row is None:
                    continue
                if image == NO_IMAGE and row_features is not None:
                    image = len(features)
                    features.append(row_features)
                entity = kb.entity(row)
                demonstrations.append(
                    Demonstration(context_of(ent, settings), ent.text, entity.name, entity.kb_id, image)
                )
                found.append(vectors.get((index, ent.start)) if vectors else None)
    logger.info("Kept %d demonstrations with %d images", len(demonstrations), len(features))
    matrix = np.stack(features) if features else np.zeros((0, reader.encoder.width), dtype=np.float32)
    return DemonstrationStore(demonstrations, matrix, _rows(found) if vectors is not None else None)


def _rows(vectors: Sequence[Vector | None]) -> Vector:
    """Vectors as a matrix, with a row of NaN for each that is not there."""
    width = next((len(vector) for vector in vectors if vector is not None), 0)
    nothing = np.full(width, np.nan, dtype=np.float32)
    rows = [nothing if vector is None else vector for vector in vectors]
    return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)


def usable_mentions(
    examples: Sequence[Example],
    kb: "KnowledgeBase",
    nil: str,
    reader: "FeatureReader | None",
    settings: LinkerSettings,
    vectors: VectorReader | None = None,
) -> tuple[list[Mention], list[int], list[str]]:
    """The gold mentions of some examples whose entity is in the knowledge base, its row there, and the other golds.

    Those of labels_discard are left out, and without use_gold_ents those that the predicted doc does not have. Where a
    gold doc has no image or no sentences, those of the predicted doc serve.
    vectors: reads them from the predicted docs; None where they are not wanted.
    Raises ValueError where the context is to be sentences and there are none.
    """
    entities: list[list[Span]] = []
    rows: list[int] = []
    missing: list[str] = []
    for example in examples:
        known = {(ent.start_char, ent.end_char) for ent in example.predicted.ents}
        usable = []
        for ent in example.reference.ents:
            if ent.kb_id_ in ("", nil) or ent.label_ in settings.labels_discard:
                continue
            if not settings.use_gold_ents and (ent.start_char, ent.end_char) not in known:
                continue
            row = linkable_row(kb, ent.kb_id_)
            if row is None:
                missing.append(ent.kb_id_)
            else:
                usable.append(ent)
                rows.append(row)
        entities.append(usable)
    predicted = [example.predicted for example in examples]
    found = None
    if vectors is not None:
        found = vectors.read(
            [
                [aligned_span(example, ent, example.predicted) for ent in ents]
                for example, ents in zip(examples, entities, strict=True)
            ]
        )
    return gather_mentions(entities, reader, settings, predicted, found), rows, missing


def warn_missing_golds(golds: Sequence[str], others: int, name: str) -> None:
    """Warn of gold entities that nothing can be learned from. others: how many there are beside them."""
    some = [*dict.fromkeys(golds)]
    warnings.warn(
        f"{name}: {len(golds)} of {len(golds) + others} gold entities of these examples are not learned: the knowledge "
        f"base has no such id, or no usable name for it ({', '.join(some[:3])}{' ...' if len(some) > 3 else ''}). Said "
        "once.",
        stacklevel=3,
    )
