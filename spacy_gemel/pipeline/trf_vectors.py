"""The vectors of mentions, read from the output of the pipeline's own transformer (`doc._.trf_data`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc, Span

from spacy_gemel.pipeline.mentions import describe
from spacy_gemel.utils.messages import ModelWarning, warn_once

ATTRIBUTE = "trf_data"
Vector = NDArray[np.float32]

REMEDY = (
    "TransformerRetriever compares mentions by the vectors that the pipeline's transformer leaves on a doc: put the "
    "transformer before the linker, have it run (not switched off by nlp.select_pipes or `disable`, its data not "
    "removed by a doc_cleaner), and while training name it in both annotating_components and frozen_components."
)


class NoVector(ValueError):
    """Says why a doc or a span has no vector."""


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The last layer of the transformer for one doc, and which of its rows belong to which token."""

    rows: Vector  # (wordpieces of all the transformer's spans, width) in fp32
    indices: NDArray[np.int64]  # rows, token after token; a wordpiece in two overlapping spans has a row in each
    bounds: NDArray[np.int64]  # token i has indices[bounds[i] : bounds[i + 1]], (tokens + 1,)

    @classmethod
    def of(cls, doc: Doc) -> "TokenRows":
        """Read a doc's trf_data, of spacy-transformers or spacy-curated-transformers, without importing either.

        Raises NoVector if the data are missing, of an unknown kind or of other tokens.
        """
        data: Any = doc._.get(ATTRIBUTE) if Doc.has_extension(ATTRIBUTE) else None
        if data is None:
            raise NoVector("it has no doc._.trf_data")
        if hasattr(data, "last_hidden_layer_state"):  # spacy-curated-transformers: a Ragged of the tokens' wordpieces
            ragged = data.last_hidden_layer_state
            states, lengths, indices = ragged.dataXd, ragged.lengths, None
        elif hasattr(data, "model_output") and hasattr(data, "align"):  # spacy-transformers
            output = data.model_output
            if "last_hidden_state" not in output:
                raise NoVector("its doc._.trf_data has no last_hidden_state")
            # (spans, wordpieces, width), padded; `align` has the indices into it, laid out flat
            states, lengths, indices = output["last_hidden_state"], data.align.lengths, data.align.dataXd
        else:
            raise NoVector(f"its doc._.trf_data, of type {type(data).__name__}, is that of no transformer known here")
        if len(lengths) != len(doc):
            raise NoVector(
                f"its doc._.trf_data stands for {len(lengths)} tokens and the doc has {len(doc)}: either the "
                "transformer's spans leave tokens out, or a component behind it changes the tokens (merge_entities), "
                "which belongs behind the linker"
            )
        rows = _to_numpy(states)
        rows = rows.reshape(-1, rows.shape[-1]).astype(np.float32)
        bounds = np.concatenate([[0], np.cumsum(_to_numpy(lengths).astype(np.int64))])
        flat = np.arange(len(rows)) if indices is None else _to_numpy(indices).astype(np.int64).ravel()
        return cls(rows, flat, bounds)

    def mean(self, start: int, end: int) -> Vector:
        """The mean over the rows of some tokens, (width,). Raises NoVector if they have none, or no finite one."""
        rows = self.rows[self.indices[self.bounds[start] : self.bounds[end]]]
        if not len(rows):
            raise NoVector("the transformer reads no wordpiece there")
        mean: Vector = rows.mean(axis=0, dtype=np.float32)
        if not np.isfinite(mean).all():
            raise NoVector("the transformer's numbers there are not finite")
        return mean


def read_vectors(ents: Sequence[Span | None]) -> list[Vector | NoVector]:
    """The vector of each entity of one doc, (width,), or why it has none. None: an entity without tokens of the doc."""
    vectors: list[Vector | NoVector] = []
    rows: TokenRows | None = None
    for ent in ents:
        try:
            if ent is None:
                raise NoVector("no token of the pipeline's tokenizer is there")
            rows = TokenRows.of(ent.doc) if rows is None else rows
            vectors.append(rows.mean(ent.start, ent.end))
        except NoVector as problem:
            vectors.append(problem)
    return vectors


def read_batch(entities: Sequence[Sequence[Span | None]], owner: object, name: str) -> list[list[Vector | None]]:
    """The vectors of the entities of each doc, (width,) each, or None; warns once in the life of the owner, a pipe."""
    batch: list[list[Vector | None]] = []
    for index, ents in enumerate(entities):
        vectors = read_vectors(ents)
        for ent, problem in zip(ents, vectors, strict=True):
            if ent is not None and isinstance(problem, NoVector):
                message = f"{ent.text!r} in {describe(ent.doc, index)} gets no demonstrations: {problem}. {REMEDY}"
                warn_once(owner, f"{name}: {message} This warning is given once.", ModelWarning, "no vector")
        batch.append([None if isinstance(vector, NoVector) else vector for vector in vectors])
    return batch


def _to_numpy(array: Any) -> NDArray[Any]:
    """A NumPy array from one that may lie on a GPU: CuPy's have `get`, and refuse an implicit conversion."""
    get = getattr(array, "get", None)
    return np.asarray(array if get is None else get())
