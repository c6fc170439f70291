"""The vector of a mention, read from what the pipeline's own transformer left on its doc (`doc._.trf_data`)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc, Span

from spacy_gemel.pipeline.mentions import describe

ATTRIBUTE = "trf_data"
Vector = NDArray[np.float32]

HOW = (
    "TransformerRetriever compares mentions by the vectors that the pipeline's transformer leaves on a doc: put the "
    "transformer before the linker, have it run (not switched off by nlp.select_pipes or `disable`, its data not "
    "removed by a doc_cleaner), and while training name it in both annotating_components and frozen_components."
)


class NoVector(ValueError):
    """Says why a doc or a span has no vector."""


@dataclass(frozen=True, slots=True)
class TokenRows:
    """The last layer of the transformer for one doc, and which of its rows stand for which token.

    rows: (wordpieces of all the transformer's spans, width), in fp32.
    places: rows of all tokens, token after token; a wordpiece that is in two overlapping spans has a row in each.
    bounds: token i has places[bounds[i] : bounds[i + 1]], (tokens + 1,).
    """

    rows: Vector
    indices: NDArray[np.int64]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, doc: Doc) -> "TokenRows":
        """Read a doc's trf_data, of spacy-transformers or of spacy-curated-transformers.

        Neither package is imported: what tells the two apart is what they have. Raises NoVector.
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
            # (spans, wordpieces, width), padded; `align` has the places in it, laid out flat
            states, lengths, indices = output["last_hidden_state"], data.align.lengths, data.align.dataXd
        else:
            raise NoVector(f"its doc._.trf_data, of type {type(data).__name__}, is that of no transformer known here")
        if len(lengths) != len(doc):
            raise NoVector(
                f"its doc._.trf_data stands for {len(lengths)} tokens and the doc has {len(doc)}: either the "
                "transformer's spans leave tokens out, or a component behind it changes the tokens (merge_entities), "
                "which belongs behind the linker"
            )
        rows = _host(states)
        rows = rows.reshape(-1, rows.shape[-1]).astype(np.float32)
        bounds = np.concatenate([[0], np.cumsum(_host(lengths).astype(np.int64))])
        return cls(rows, np.arange(len(rows)) if indices is None else _host(indices).astype(np.int64).ravel(), bounds)

    def mean(self, start: int, end: int) -> Vector:
        """The mean over all rows of some tokens, (width,). Raises NoVector where they have none, or no finite one."""
        rows = self.rows[self.indices[self.bounds[start] : self.bounds[end]]]
        if not len(rows):
            raise NoVector("the transformer reads no wordpiece there")
        mean: Vector = rows.mean(axis=0, dtype=np.float32)
        if not np.isfinite(mean).all():
            raise NoVector("the transformer's numbers there are not finite")
        return mean


def read_vectors(ents: Sequence[Span | None]) -> list[Vector | NoVector | None]:
    """The vectors of some entities of one doc, (width,) each, or why there is none; None for an entity that is None."""
    found: list[Vector | NoVector | None] = []
    rows: TokenRows | NoVector | None = None
    for ent in ents:
        if ent is None:
            found.append(None)
            continue
        try:
            rows = TokenRows.of(ent.doc) if rows is None else rows
        except NoVector as problem:
            rows = problem  # the same for all of the doc
        try:
            found.append(rows if isinstance(rows, NoVector) else rows.mean(ent.start, ent.end))
        except NoVector as problem:
            found.append(problem)
    return found


class VectorReader:
    """Reads the vectors of the entities to be linked; says once where there is none."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._said = False

    def read(self, entities: Sequence[Sequence[Span | None]]) -> list[list[Vector | None]]:
        """The vectors of the entities of each doc of a batch, (width,) each, None for one that has none."""
        vectors: list[list[Vector | None]] = []
        for index, ents in enumerate(entities):
            read = read_vectors(ents)
            for ent, found in zip(ents, read, strict=True):
                if ent is not None and isinstance(found, NoVector):
                    self._say(ent, index, found)
            vectors.append([None if isinstance(found, NoVector) else found for found in read])
        return vectors

    def _say(self, ent: Span, index: int, problem: NoVector) -> None:
        if self._said:
            return
        self._said = True
        warnings.warn(
            f"{self.name}: {ent.text!r} in {describe(ent.doc, index)} is shown no demonstrations: {problem}. {HOW} "
            "(Said once.)",
            stacklevel=2,
        )


def _host(array: Any) -> NDArray[Any]:
    """An array of NumPy, from one that may lie on a GPU: CuPy's have `get`, and refuse to be converted unasked."""
    get = getattr(array, "get", None)
    return np.asarray(array if get is None else get())
