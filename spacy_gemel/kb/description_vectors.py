"""Vectors of the entities' descriptions: encoded batch by batch, and written as they come.

The file holds (entities, width) float16: row i is the unit vector of ``description_text`` of the entity in row i.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from spacy_gemel.kb.batch_store import BatchStore
from spacy_gemel.kb.entity import KBError, description_text
from spacy_gemel.kb.index import write_header
from spacy_gemel.kb.jsonl import short_repr
from spacy_gemel.kb.knowledge_base import VECTORS_FILE, EntityTable

Encode: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]
"""A sentence encoder: texts to vectors, (texts, width)."""

_STORE_VERSION = 1
_CALL = 512  # texts per call of the encoder: often enough to show progress
# Encoders that agree on these texts, of which the last is long, are taken to be the same.
_PROBES = ("Mercury. first planet from the Sun", "北京市", "Ada Lovelace. English mathematician. " * 12)
_TOLERANCE = 1e-3  # of the probes' numbers, which threads and devices round differently


class DescriptionEncoder:
    """Encodes the entities of one build; batches that an interrupted build encoded by the same encoder are kept.

    Args:
        work: The build's work folder.
        input_sha256: Of the entities' file.
        encode: The encoder; it is called once at once.
        rows: Entities per batch.

    Raises:
        KBError: if the encoder gives no usable vectors.
    """

    def __init__(self, work: Path, input_sha256: str, encode: Encode, rows: int) -> None:
        self._encode = encode
        self._probes = self._unit_vectors(_PROBES)  # (probes, width)
        self._store = BatchStore(work, "descriptions", [_STORE_VERSION, input_sha256, rows])
        self.resumed = 0
        """Entities that an interrupted build had already encoded."""

    def write(self, folder: Path, table: EntityTable, progress: bool) -> None:
        """Write the file for the entities of a table. Raises KBError, OSError."""
        title = {"desc": "Encoding descriptions", "unit": " entities", "file": sys.stderr}
        with tqdm(total=len(table), **title, disable=not progress) as bar, (folder / VECTORS_FILE).open("wb") as file:
            write_header(file, (len(table), self._probes.shape[1]), np.float16)
            first = 0
            for index in range(table.n_batches):
                stop = first + table.batch(index).num_rows
                texts = [description_text(table.entity(row)) for row in range(first, stop)]
                file.write(self._batch(index, texts, bar).data)
                first = stop

    def _batch(self, index: int, texts: Sequence[str], bar: Any) -> NDArray[np.float16]:
        block = self._store.read(index, texts)
        if block is not None and self._is_of_this_encoder(block["probes"]):
            self.resumed += len(texts)
            bar.update(len(texts))
            return block["vectors"]
        chunks = []
        for start in range(0, len(texts), _CALL):
            part = texts[start : start + _CALL]
            chunks.append(self._unit_vectors(part).astype(np.float16))
            bar.update(len(part))
        vectors = np.concatenate(chunks)
        self._store.write(index, texts, {"vectors": vectors, "probes": self._probes})
        return vectors

    def _is_of_this_encoder(self, probes: NDArray[np.float32]) -> bool:
        return probes.shape == self._probes.shape and bool(np.abs(probes - self._probes).max() < _TOLERANCE)

    def _unit_vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts at length 1, (texts, width)."""
        vectors = np.asarray(self._encode(texts), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise KBError(f"The sentence encoder gave an array of shape {vectors.shape} for {len(texts)} texts")
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        usable = np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)
        if not usable.all():
            text = short_repr(texts[int(np.argmin(usable))])
            raise KBError(f"The sentence encoder gave no vector with a direction for {text}: use another encoder")
        return np.divide(vectors, norms)
