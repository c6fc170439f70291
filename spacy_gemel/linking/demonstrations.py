"""The training examples that a prompt may show, with the features of their images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.linking.mention import prompt_text

NO_IMAGE = -1


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A mention with its answer, and the row of its image's features in the store; its words are a `prompt_text`."""

    text: str
    mention: str
    name: str
    kb_id: str
    image: int = NO_IMAGE

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", prompt_text(self.text))
        object.__setattr__(self, "mention", prompt_text(self.mention))


class DemonstrationStore:
    """Demonstrations in the order they were given, and the features that they share, (images, d_v) in fp32.

    `vectors` are those that the pipeline's transformer gave the mentions, (demonstrations, width) in fp32, with a row
    of NaN for a mention that has none; None if the retriever does not use them. Raises ValueError for another number.
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

    def picture_similarity(self, indices: Sequence[int], features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The cosine of some demonstrations' pictures with features (d_v,), standardised; -1 without a picture."""
        if not len(self.features):
            return np.full(len(indices), -1, dtype=np.float32)
        images = np.array([self[index].image for index in indices], dtype=np.int64)
        rows, query = (((each - self._mean) / self._deviation) for each in (self.features[images], features))
        norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
        cosines = (rows @ query) / np.maximum(norms, 1e-12)  # (indices,)
        return np.where(images == NO_IMAGE, np.float32(-1), cosines)

    @cached_property
    def _mean(self) -> NDArray[np.float32]:
        return self.features.mean(0)

    @cached_property
    def _deviation(self) -> NDArray[np.float32]:
        return self.features.std(0) + 1e-6

    def to_dict(self) -> dict[str, Any]:
        """Plain data for msgpack: columns of strings and numbers, bytes and shapes of the arrays."""
        names = [field.name for field in fields(Demonstration)]
        columns = {name: [getattr(demonstration, name) for demonstration in self] for name in names}
        features = self.features.astype("<f4").tobytes()
        data = {"columns": columns, "shape": list(self.features.shape), "features": features}
        if self.vectors is not None:
            data |= {"vectors_shape": list(self.vectors.shape), "vectors": self.vectors.astype("<f4").tobytes()}
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "DemonstrationStore":
        """The store that `to_dict` was called on."""
        rows = zip(*(data["columns"][field.name] for field in fields(Demonstration)), strict=True)
        features = _from_bytes(data["features"], data["shape"])
        vectors = _from_bytes(data["vectors"], data["vectors_shape"]) if "vectors" in data else None
        return cls([Demonstration(*row) for row in rows], features, vectors)


def order_by_picture(store: DemonstrationStore, indices: Sequence[int], features: NDArray[np.float32]) -> list[int]:
    """Demonstrations by how similar their pictures are to `features` of the query's, (d_v,), the most similar first.

    Those without a picture come last; ties keep their order.
    """
    similarity = store.picture_similarity(indices, features)
    return [indices[position] for position in np.argsort(-similarity, kind="stable")]


def _from_bytes(data: bytes, shape: Sequence[int]) -> NDArray[np.float32]:
    return np.frombuffer(data, dtype="<f4").reshape(shape).astype(np.float32)


# The features of one picture differ, relative to their length, by less than this: the batch changes their rounding.
_SAME_PICTURE = 0.005


def extend_store(
    store: DemonstrationStore, new: DemonstrationStore, *, wants_vectors: bool
) -> tuple[DemonstrationStore, int]:
    """A store with the new demonstrations of another, behind its own, and how many these are.

    A demonstration is known if its mention, text, entity and picture are, or if it has no picture and one that is
    otherwise equal has any. One with a picture takes the place of an equal one without. With `wants_vectors` those of
    `store` without a vector do not count as known. Raises ValueError if the vectors are of different widths.
    """
    useless = np.zeros(len(store), dtype=bool)
    if wants_vectors:
        useless[:] = True if store.vectors is None else ~np.isfinite(store.vectors).all(axis=1)
    known: dict[tuple[str, str, str], dict[int, NDArray[np.float32] | None]] = {}  # {index: features}
    for index, old in enumerate(store):
        if not useless[index]:
            known.setdefault((old.mention, old.text, old.kb_id), {})[index] = store.features_of(old)
    sources: dict[int, int] = {}  # index in the result -> index in `new`
    end = len(store)
    for source, demonstration in enumerate(new):
        key = demonstration.mention, demonstration.text, demonstration.kb_id
        equal, features = known.setdefault(key, {}), new.features_of(demonstration)
        if (equal and features is None) or any(_is_same_picture(features, other) for other in equal.values()):
            continue
        index = next((index for index, other in equal.items() if other is None), end)
        end += index == end
        equal[index], sources[index] = features, source
    return (_merged(store, new, sources), len(sources)) if sources else (store, 0)


def _merged(store: DemonstrationStore, new: DemonstrationStore, sources: dict[int, int]) -> DemonstrationStore:
    """A store with demonstrations of another at some indices, and their pictures. Raises ValueError."""
    demonstrations = [*store]
    images: dict[int, int] = {NO_IMAGE: NO_IMAGE}
    for index, source in sorted(sources.items()):
        image = images.setdefault(new[source].image, len(store.features) + len(images) - 1)
        demonstrations[index : index + 1] = [replace(new[source], image=image)]
    features = new.features[[image for image in images if image != NO_IMAGE]]
    if len(store.features):
        features = np.concatenate([store.features, features])
    widths = [vectors.shape[1] for vectors in (new.vectors, store.vectors) if vectors is not None]
    if not widths:
        return DemonstrationStore(demonstrations, features)
    vectors = np.full((len(demonstrations), widths[0]), np.nan, dtype=np.float32)
    if store.vectors is not None and np.isfinite(store.vectors).any():
        if widths[-1] != widths[0]:
            raise ValueError(
                f"the docs' vectors are of width {widths[0]}, those of the demonstrations there are of width "
                f"{widths[-1]}: they were made by another transformer. Use the one that the linker was trained behind."
            )
        vectors[: len(store)] = store.vectors
    if new.vectors is not None:
        vectors[[*sources]] = new.vectors[[*sources.values()]]
    return DemonstrationStore(demonstrations, features, vectors)


def _is_same_picture(features: NDArray[np.float32] | None, other: NDArray[np.float32] | None) -> bool:
    if features is None or other is None:
        return False
    return bool(np.linalg.norm(features - other) <= _SAME_PICTURE * np.linalg.norm(other))
