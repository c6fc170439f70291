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
    """Demonstrations in the order they were given, and features (images, d_v) in fp32 that they share.

    vectors: what the pipeline's transformer made of the mentions, (demonstrations, width) in fp32, a row of NaN for one
        that has none; None where the retriever did not want them. Raises ValueError for another number of rows.
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

    def picture(self, shown: Demonstration) -> NDArray[np.float32] | None:
        """The features of a demonstration's image, (d_v,), or None."""
        return None if shown.image == NO_IMAGE else self.features[shown.image]

    def to_plain(self) -> dict[str, Any]:
        """Plain data for msgpack: columns of strings and numbers; bytes and shape of the features and the vectors."""
        columns = {
            field.name: [getattr(row, field.name) for row in self.demonstrations] for field in fields(Demonstration)
        }
        plain = {"columns": columns, "shape": list(self.features.shape), "features": _bytes(self.features)}
        if self.vectors is not None:
            plain |= {"vectors_shape": list(self.vectors.shape), "vectors": _bytes(self.vectors)}
        return plain

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "DemonstrationStore":
        """The store that `to_plain` was called on."""
        names = [field.name for field in fields(Demonstration)]
        rows = zip(*(plain["columns"][name] for name in names), strict=True)
        features = np.frombuffer(plain["features"], dtype="<f4").reshape(plain["shape"])
        vectors = None
        if "vectors" in plain:
            vectors = np.frombuffer(plain["vectors"], dtype="<f4").reshape(plain["vectors_shape"]).astype(np.float32)
        return cls([Demonstration(*row) for row in rows], features.astype(np.float32), vectors)


def _bytes(matrix: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(matrix, dtype="<f4").tobytes()
