"""From docs to mentions: the entities to link, the text around each, and the features of the docs' images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc, Span

from spacy_gemel.images.augmentation import AlteredReader
from spacy_gemel.images.features import FeatureReader, check_features
from spacy_gemel.images.image import ImageError, as_image_error, inside
from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.pipeline.user_data import FEATURES_KEY, IMAGE_KEY, doc_id, image_in
from spacy_gemel.utils.messages import UnreadableImageWarning, excerpt, warn


def gather_mentions(
    entities: Sequence[Sequence[Span]],
    reader: FeatureReader | None,
    settings: LinkerSettings,
    fallback_docs: Sequence[Doc] | None = None,
    vectors: Sequence[Sequence[NDArray[np.float32] | None]] | None = None,
) -> list[Mention]:
    """The mentions of the entities of each doc of a batch, in order; images of docs without any are not read.

    `reader` is None if images are not used. `fallback_docs` have the same texts, for the image or the sentences that a
    doc lacks. `vectors` has a vector, (width,), or None for each entity; it is None if the retriever does not use them.
    Raises ValueError if the context is the sentence and a doc has no sentence boundaries.
    """
    docs = [ents[0].doc if ents else None for ents in entities]
    features = [None] * len(docs) if reader is None else read_features(docs, reader, settings.image_root, fallback_docs)
    mentions = []
    for index, ents in enumerate(entities):
        for number, ent in enumerate(ents):
            context = context_of(ent, settings, fallback_docs[index] if fallback_docs else None)
            vector = vectors[index][number] if vectors else None
            mentions.append(Mention(index, ent.start, ent.end, ent.text, context, features[index], ent.kb_id_, vector))
    return mentions


def context_of(ent: Span, settings: LinkerSettings, fallback_doc: Doc | None = None) -> str:
    """The text around an entity that the language model reads, by `settings.context`.

    An entity that crosses a boundary has the sentences of its first and its last token, and n_sents around them. The
    fallback doc has the boundaries that the entity's own doc lacks; raises ValueError without any.
    """
    doc = ent.doc
    if settings.context == "doc":
        return doc.text
    if settings.context == "window":
        return doc[max(ent.start - settings.window, 0) : ent.end + settings.window].text
    if not doc.has_annotation("SENT_START") and fallback_doc is not None:
        doc = fallback_doc
    if not doc.has_annotation("SENT_START"):
        raise ValueError(
            f'gemel_linker: context = "sentence" needs sentence boundaries, and {doc.text[:50]!r} has none: add a '
            'component that sets them before this one, such as nlp.add_pipe("sentencizer", before="gemel_linker"); '
            'to train with it, name it in annotating_components too. context = "window" needs none.'
        )
    span = doc.char_span(ent.start_char, ent.end_char, alignment_mode="expand")
    assert span is not None  # the texts are the same
    first, last = span[0].sent, span[-1].sent
    for _ in range(settings.n_sents):
        first = doc[first.start - 1].sent if first.start else first
        last = doc[last.end].sent if last.end < len(doc) else last
    return doc.text[first.start_char : last.end_char]


def read_features(
    docs: Sequence[Doc | None],
    reader: FeatureReader | AlteredReader,
    image_root: str | None,
    fallback_docs: Sequence[Doc] | None = None,
) -> list[NDArray[np.float32] | None]:
    """The features of each doc's image, (d_v,) in fp32, or None. Warns of each image that cannot be used.

    None or a doc without entities gets None. `fallback_docs` have the images that docs lack. For `image_root` see
    LinkerSettings.
    """
    sources: list[Any] = [None] * len(docs)
    results: list[NDArray[np.float32] | ImageError | None] = [None] * len(docs)
    for index, doc in enumerate(docs):
        if doc is None or not doc.ents:
            continue
        images = image_in(doc, fallback_docs[index] if fallback_docs else None)
        if images.get(FEATURES_KEY) is not None:
            try:
                results[index] = check_features(images[FEATURES_KEY], reader.encoder.width)
            except Exception as error:
                results[index] = as_image_error(error)
        else:
            try:
                sources[index] = inside(images.get(IMAGE_KEY), image_root)
            except ImageError as error:
                results[index] = error
    features: list[NDArray[np.float32] | None] = []
    for index, (doc, checked, read) in enumerate(zip(docs, results, reader.read(sources), strict=True)):
        result = checked if read is None else read
        if doc is not None and isinstance(result, ImageError):
            message = f"gemel_linker: the image of {describe(doc, index)} could not be read: {result}."
            warn(f"{message} Its mentions are linked from the text alone.", UnreadableImageWarning)
        features.append(None if isinstance(result, ImageError) else result)
    return features


def describe(doc: Doc, index: int) -> str:
    """A doc in a message: its id if it has one, else its index in the batch, and the beginning of its text."""
    name = doc_id(doc)
    return f"doc {index} of the batch ({excerpt(doc.text)})" if name is None else f"doc {name!r} ({excerpt(doc.text)})"
