"""What the components before the linker make of the training docs: sentence boundaries, and vectors of mentions."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from tqdm import tqdm

from spacy_gemel.pipeline.mentions import describe
from spacy_gemel.pipeline.trf_vectors import ATTRIBUTE, HOW, NoVector, Vector, read_vectors

_DOCS_AT_ONCE = 64
_VECTORS = f"doc._.{ATTRIBUTE}"


def training_vectors(
    examples: Sequence[Example], golds: Mapping[tuple[int, int], int], nlp: Language | None, name: str
) -> dict[tuple[int, int], Vector]:
    """The vectors of gold mentions, (width,) each, as the components before a pipe make them of the predicted docs.

    golds: what `gold_rows` found in the reference docs; a mention may be missing in the result. name: of the pipe.
    Where no component makes vectors, those that the docs have are taken. No doc is changed.
    Warns of mentions that have none. Raises ValueError where there is not one vector.
    """
    working = _working(nlp, name, _VECTORS)
    vectors: dict[tuple[int, int], Vector] = {}
    missing: list[str] = []
    chunks = range(0, len(examples), _DOCS_AT_ONCE)
    for start in tqdm(chunks, desc="Reading the training mentions", unit="batch", leave=False):
        chunk = examples[start : start + _DOCS_AT_ONCE]
        ents = [
            [ent for ent in example.reference.ents if (index, ent.start) in golds]
            for index, example in enumerate(chunk, start)
        ]
        docs = [example.predicted for example in chunk]
        if nlp is not None and working:
            docs = [doc.copy() for doc in docs]
            for pipe in working:
                component: Any = nlp.get_pipe(pipe)
                docs = list(component.pipe(docs) if hasattr(component, "pipe") else map(component, docs))
        for index, (example, row, doc) in enumerate(zip(chunk, ents, docs, strict=True), start):
            spans = [aligned_span(example, ent, doc) for ent in row]
            for ent, found in zip(row, read_vectors(spans), strict=True):
                if found is None or isinstance(found, NoVector):
                    why = "no token of the pipeline's tokenizer is there" if found is None else found
                    missing.append(f"{ent.text!r} in {describe(ent.doc, index)}: {why}")
                else:
                    vectors[index, ent.start] = found
    if not vectors:
        ran = f"though {working[-1]!r} ran on it" if working else "as no component before the linker makes any"
        raise ValueError(
            f"{name}: no mention of the training data has a vector, {ran} (the first: {missing[0]}). {HOW} "
            "Or choose another retriever."
        )
    if missing:
        warnings.warn(
            f"{name}: {len(missing)} of {len(golds)} mentions of the training data have no vector of the transformer, "
            f"and are never shown as demonstrations (the first: {missing[0]}).",
            stacklevel=2,
        )
    return vectors


def aligned_span(example: Example, ent: Span, doc: Doc) -> Span | None:
    """The tokens of the example's predicted doc, or of a copy of it, that a gold entity covers; None where none do."""
    tokens = example.alignment.y2x[ent.start : ent.end]
    return doc[int(tokens.min()) : int(tokens.max()) + 1] if len(tokens) else None


def add_sentences(docs: Sequence[Doc], nlp: Language | None, name: str) -> Sequence[Doc]:
    """The docs; those without sentence boundaries as copies that have those of the components before a pipe.

    name: of the pipe. Nothing is changed where no such component sets them.
    """
    missing = [not doc.has_annotation("SENT_START") for doc in docs]
    if nlp is None or not any(missing):
        return docs
    working = _working(nlp, name, "token.is_sent_start")
    if not working:
        return docs

    def with_sentences(doc: Doc) -> Doc:
        worked = doc.copy()
        for pipe in working:
            worked = nlp.get_pipe(pipe)(worked)
        doc = doc.copy()  # with its own entities, whatever a component made of them
        for token, other in zip(doc, worked, strict=True):
            token.is_sent_start = other.is_sent_start
        return doc

    return [with_sentences(doc) if lacks else doc for doc, lacks in zip(docs, missing, strict=True)]


def _working(nlp: Language | None, name: str, attribute: str) -> list[str]:
    """The components before a pipe, up to the last that assigns an attribute: it may need what others make of a doc.

    Those that are frozen count: `spacy train` switches them off while it initializes the others. Empty where no
    component assigns it.
    """
    if nlp is None or name not in nlp.component_names:
        return []
    frozen = nlp.config.get("training", {}).get("frozen_components") or []
    before = nlp.component_names[: nlp.component_names.index(name)]
    # a transformer that training goes on with is switched off as well, and is in no list
    before = [pipe for pipe in before if pipe in (*nlp.pipe_names, *frozen) or _assigns(nlp, pipe, _VECTORS)]
    setters = [pipe for pipe in before if _assigns(nlp, pipe, attribute)]
    return before[: before.index(setters[-1]) + 1] if setters else []


def _assigns(nlp: Language, pipe: str, attribute: str) -> bool:
    return attribute in nlp.get_pipe_meta(pipe).assigns
