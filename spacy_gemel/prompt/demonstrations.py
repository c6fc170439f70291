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
    """Demonstrations in the order they were given, and features (images, d_v) in fp32 that they share."""

    def __init__(
        self, demonstrations: Sequence[Demonstration] = (), features: NDArray[np.float32] | None = None
    ) -> None:
        self.demonstrations = list(demonstrations)
        self.features = np.zeros((0, 0), dtype=np.float32) if features is None else features

    def __len__(self) -> int:
        return len(self.demonstrations)

    def __getitem__(self, index: int) -> Demonstration:
        return self.demonstrations[index]

    def __iter__(self) -> Iterator[Demonstration]:
        return iter(self.demonstrations)

    def to_plain(self) -> dict[str, Any]:
        """Plain data for msgpack: columns of strings and numbers, and the features' bytes and shape."""
        columns = {
            field.name: [getattr(row, field.name) for row in self.demonstrations] for field in fields(Demonstration)
        }
        return {
            "columns": columns,
            "shape": list(self.features.shape),
            "features": np.ascontiguousarray(self.features, dtype="<f4").tobytes(),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "DemonstrationStore":
        """The store that `to_plain` was called on."""
        names = [field.name for field in fields(Demonstration)]
        rows = zip(*(plain["columns"][name] for name in names), strict=True)
        features = np.frombuffer(plain["features"], dtype="<f4").reshape(plain["shape"])
        return cls([Demonstration(*row) for row in rows], features.astype(np.float32))
