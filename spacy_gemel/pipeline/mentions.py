"""The first stage: mentions and image features out of Docs, before anything else sees them."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc, Span

from spacy_gemel.images.features import FeatureReader, check_features
from spacy_gemel.images.image import ImageError, to_serializable
from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.pipeline.context import context_of
from spacy_gemel.pipeline.user_data import FEATURES_KEY, IMAGE_KEY, UNREADABLE_KEY, has_image, image_in


def gather_mentions(
    entities: Sequence[Sequence[Span]],
    reader: FeatureReader | None,
    settings: LinkerSettings,
    others: Sequence[Doc] | None = None,
    vectors: Sequence[Sequence[NDArray[np.float32] | None]] | None = None,
) -> list[Mention]:
    """The mentions of the entities of each doc of a batch, in order.

    reader: None where no image is wanted. Only images of docs with such entities are read.
    others: for each doc one whose sentence boundaries, and whose image, serve where it has none itself.
    vectors: of each entity, (width,) each, where they are wanted.
    Raises ValueError where the context is to be sentences and there are none.
    """
    docs = [ents[0].doc if ents else None for ents in entities]
    features: list[NDArray[np.float32] | None] = [None] * len(docs)
    if reader is not None:
        features = read_features(docs, reader, others)
    return [
        Mention(
            index,
            ent.start,
            ent.end,
            ent.text,
            context_of(ent, settings, others[index] if others else None),
            features[index],
            ent.kb_id_,
            vectors[index][number] if vectors else None,
        )
        for index, ents in enumerate(entities)
        for number, ent in enumerate(ents)
    ]


def read_features(
    docs: Sequence[Doc | None], reader: FeatureReader, others: Sequence[Doc] | None = None
) -> list[NDArray[np.float32] | None]:
    """The features of each doc's image, or None; a warning for each image that cannot be used.

    docs: None, or one without entities, is passed over. others: for each doc one whose image serves where it has none
    itself. Features are (d_v,) each, in fp32.
    """
    sources: list[Any] = [None] * len(docs)
    results: list[NDArray[np.float32] | ImageError | None] = [None] * len(docs)
    for index, doc in enumerate(docs):
        if doc is None or not doc.ents:
            continue
        images = image_in(doc, others[index] if others else None)
        if images.get(FEATURES_KEY) is not None:
            try:
                results[index] = check_features(images[FEATURES_KEY], reader.encoder.width)
            except (ImageError, ValueError, TypeError) as error:
                results[index] = ImageError(str(error))
        else:
            sources[index] = images.get(IMAGE_KEY)
    for index, read in enumerate(reader.read(sources)):
        if read is not None:
            results[index] = read
    for index, (doc, result) in enumerate(zip(docs, results, strict=True)):
        if doc is not None and isinstance(result, ImageError):
            warnings.warn(
                f"gemel_linker: no image for {describe(doc, index)}: {result}. "
                "Its mentions are linked from the text alone.",
                stacklevel=2,
            )
    return [None if isinstance(result, ImageError) else result for result in results]


def mark_unreadable(docs: Sequence[Doc], mentions: Iterable[Mention]) -> None:
    """Note in the user_data of the mentions' docs which of them have an image that could not be used.

    docs: the batch that the mentions are of. Scores tell such docs apart: theirs are those of the text alone. A mark
    that is there already stays: it is of answers that a doc has kept (see `GemelLinker._forget_unreadable`).
    """
    for index, read in {mention.doc: mention.features is not None for mention in mentions}.items():
        if has_image(docs[index]) and not read:
            docs[index].user_data[UNREADABLE_KEY] = True


def describe(doc: Doc, index: int) -> str:
    """A doc in a message: its id if it has one, else its place in the batch, and how its text begins."""
    name = doc.user_data.get("id")
    text = doc.text if len(doc.text) <= 50 else doc.text[:50] + "..."
    return f"doc {name!r} ({text!r})" if name is not None else f"doc {index} of the batch ({text!r})"


def make_images_plain(docs: Iterable[Doc]) -> None:
    """Replace each PIL image in user_data by its encoded bytes, and each path object by a str.

    So a doc can be serialised from then on, also in a process without `register_msgpack_encoder`.
    """
    for doc in docs:
        source = doc.user_data.get(IMAGE_KEY)
        if source is not None and not isinstance(source, (str, bytes, np.ndarray)):
            doc.user_data[IMAGE_KEY] = to_serializable(source)
