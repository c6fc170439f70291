"""The training examples that a prompt may show, with the features of their images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

NO_IMAGE = -1


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A mention with its answer.

    image: row of its image's features in the store, NO_IMAGE if it has none.
    """

    text: str
    mention: str
    name: str
    kb_id: str
    image: int = NO_IMAGE


class DemonstrationStore:
    """Demonstrations in the order they were given, and the features that they share.

    Args:
        demonstrations: the demonstrations.
        features: (images, d_v) in fp32.
        vectors: the vectors that the pipeline's transformer gave the mentions, (demonstrations, width) in fp32, with a
            row of NaN for a mention that has none; None if the retriever does not use them.

    Raises:
        ValueError: if there are more or fewer vectors than demonstrations.
    """

    def __init__(
        self,
        demonstrations: Sequence[Demonstration] = (),
        features: NDArray[np.float32] | None = None,
        vectors: NDArray[np.float32] | None = None,
    ) -> None:
        self.demonstrations = list(demonstrations)
        if vectors is not None and len(vectors) != len(self.demonstrations):
            raise ValueError(f"{len(vectors)} vectors were given for {len(self.demonstrations)} demonstrations")
        self.vectors = vectors
        self.features = np.zeros((0, 0), dtype=np.float32) if features is None else features

    def __len__(self) -> int:
        return len(self.demonstrations)

    def __getitem__(self, index: int) -> Demonstration:
        return self.demonstrations[index]

    def __iter__(self) -> Iterator[Demonstration]:
        return iter(self.demonstrations)

    def features_of(self, demonstration: Demonstration) -> NDArray[np.float32] | None:
        """The features of a demonstration's image, (d_v,), or None."""
        return None if demonstration.image == NO_IMAGE else self.features[demonstration.image]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for msgpack: columns of strings and numbers; bytes and shape of the features and the vectors."""
        columns = {
            field.name: [getattr(row, field.name) for row in self.demonstrations] for field in fields(Demonstration)
        }
        data = {"columns": columns, "shape": list(self.features.shape), "features": _to_bytes(self.features)}
        if self.vectors is not None:
            data |= {"vectors_shape": list(self.vectors.shape), "vectors": _to_bytes(self.vectors)}
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "DemonstrationStore":
        """The store that `to_dict` was called on."""
        rows = zip(*(data["columns"][field.name] for field in fields(Demonstration)), strict=True)
        features = _from_bytes(data["features"], data["shape"])
        vectors = _from_bytes(data["vectors"], data["vectors_shape"]) if "vectors" in data else None
        return cls([Demonstration(*row) for row in rows], features, vectors)


def _to_bytes(matrix: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(matrix, dtype="<f4").tobytes()


def _from_bytes(data: bytes, shape: Sequence[int]) -> NDArray[np.float32]:
    return np.frombuffer(data, dtype="<f4").reshape(shape).astype(np.float32)
