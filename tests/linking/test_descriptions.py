"""Similarity to descriptions against brute force: on disk or encoded when asked, in blocks, and each once."""

import hashlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from spacy_gemel.kb.entity import Entity, description_text
from spacy_gemel.linking import descriptions
from spacy_gemel.linking.descriptions import DescriptionIndex, shared_words, unit
from tests.calls import Calls

Vectors = NDArray[np.float32]
WIDTH = 6
ENTITIES = [
    Entity(f"Q{number}", f"name {number}", 0, (), f"thing {number}" if number % 3 else None) for number in range(23)
]


class Encoder:
    """A text's vector follows from its digest; it is not of length 1."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.texts: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Vectors:
        self.texts += texts
        digests = [hashlib.sha256(f"{self.seed} {text}".encode()).digest()[:WIDTH] for text in texts]
        return np.stack([np.frombuffer(digest, dtype=np.uint8) for digest in digests]).astype(np.float32) - 128


def vector(text: str) -> Vectors:
    [row] = Encoder()([text])
    return row / np.linalg.norm(row)


def kb(on_disk: int | None = None) -> Any:
    """A knowledge base with the vectors of its first entities; the rest are as added ones."""
    vectors = None if on_disk is None else np.stack([vector(description_text(each)) for each in ENTITIES[:on_disk]])
    disk = None if vectors is None else vectors.astype(np.float16)
    return SimpleNamespace(entity=ENTITIES.__getitem__, description_vectors=disk, path="kb")


texts = st.lists(st.text(max_size=5), max_size=4)
rows_of = st.lists(st.integers(0, len(ENTITIES) - 1), max_size=5)


@pytest.mark.parametrize("on_disk", [None, 9, len(ENTITIES)])
@given(data=st.data())
def test_similarity_against_brute_force(on_disk: int | None, data: st.DataObject) -> None:
    asked = data.draw(texts)
    rows = [data.draw(rows_of) for _ in asked]
    found = DescriptionIndex(Encoder(), kb(on_disk)).similarity(asked, rows)
    assert len(found) == len(asked)
    for text, own, cosines in zip(asked, rows, found, strict=True):
        expected = [float(vector(text) @ vector(description_text(ENTITIES[row]))) for row in own]
        assert cosines.tolist() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("on_disk", [None, 9])
def test_similarity_between_entities(on_disk: int | None) -> None:
    first, second = [3, 11, 3], [0, 20]
    found = DescriptionIndex(Encoder(), kb(on_disk)).between(first, second)
    expected = [
        [vector(description_text(ENTITIES[a])) @ vector(description_text(ENTITIES[b])) for b in second] for a in first
    ]
    assert found == pytest.approx(np.array(expected), abs=2e-3)


@pytest.mark.parametrize("block", [1, 4, 9, 100])
@pytest.mark.parametrize("n", [1, 3, 40])
def test_the_nearest_against_brute_force(block: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a block; entities that are not on disk are never among them."""
    monkeypatch.setattr(descriptions, "_BLOCK", block)
    base = kb(17)
    mentions = [(f"m{number % 3}", f"text {number % 5}") for number in range(10)]
    found = DescriptionIndex(Encoder(), base).nearest(mentions, n)
    for (mention, text), rows in zip(mentions, found, strict=True):
        scores = base.description_vectors.astype(np.float32) @ (vector(mention) + vector(text))
        assert len(rows) == len(set(rows)) == min(n, 17)
        assert scores[rows].tolist() == pytest.approx(np.sort(scores)[::-1][:n].tolist(), abs=1e-5)


def test_a_mention_is_compared_with_all_entities_once(monkeypatch: pytest.MonkeyPatch) -> None:
    index = DescriptionIndex(Encoder(), kb(17))
    searched = Calls(monkeypatch, index, "_search")
    first = index.nearest([("a", "b"), ("a", "b"), ("a", "c")], 3)
    assert index.nearest([("a", "c"), ("a", "b")], 3) == [first[2], first[0]]
    assert len(searched.seen) == 1
    assert [rows[:3] for rows in index.nearest([("a", "b")], 5)] == [first[0]]


def test_of_equals_the_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptions, "_BLOCK", 4)
    same = kb(17)
    same.description_vectors[:] = same.description_vectors[0]
    assert DescriptionIndex(Encoder(), same).nearest([("a", "b")], 6) == [[0, 1, 2, 3, 4, 5]]


def test_without_vectors_or_mentions_none_is_near() -> None:
    encoder = Encoder()
    assert DescriptionIndex(encoder, kb()).nearest([("a", "b"), ("c", "d")], 5) == [[], []]
    assert DescriptionIndex(encoder, kb()).similarity([], []) == []
    assert encoder.texts == []
    assert DescriptionIndex(encoder, kb(9)).nearest([], 5) == []


def test_a_text_and_an_entity_are_encoded_once() -> None:
    encoder = Encoder()
    index = DescriptionIndex(encoder, kb(9))
    encoder.texts.clear()  # its check of the first entity
    index.similarity(["one", "two", "one"], [[1, 12], [12, 13], [2]])
    index.similarity(["two"], [[13, 12, 1]])
    index.nearest([("one", "two")], 3)
    index.between([12], [13, 0])
    assert sorted(encoder.texts) == sorted(
        ["one", "two", description_text(ENTITIES[12]), description_text(ENTITIES[13])]
    )


def test_what_was_encoded_stays_with_its_encoder() -> None:
    """An added entity changes the knowledge base, not the array of vectors: they are not checked again."""
    encoder, first = Encoder(), kb(9)
    index = DescriptionIndex(encoder, first)
    index.similarity(["one"], [[1, 12]])
    encoder.texts.clear()
    index = DescriptionIndex(encoder, SimpleNamespace(**vars(first)), index)
    index.similarity(["one"], [[1, 12]])
    assert encoder.texts == []
    foreign = kb(9)
    foreign.description_vectors = -foreign.description_vectors
    with pytest.raises(ValueError, match="encoded by another sentence encoder"):
        DescriptionIndex(encoder, foreign, index)
    other = Encoder(seed=1)
    DescriptionIndex(other, kb(), index).similarity(["one"], [[1]])
    assert other.texts == ["one", description_text(ENTITIES[1])]


def test_more_than_the_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptions, "_CACHED", 2)
    asked = [f"text {number}" for number in range(9)]
    found = DescriptionIndex(Encoder(), kb()).similarity(asked, [[number] for number in range(9)])
    for number, cosines in enumerate(found):
        assert cosines[0] == pytest.approx(vector(asked[number]) @ vector(description_text(ENTITIES[number])), abs=1e-5)


def test_vectors_of_another_encoder_are_refused() -> None:
    with pytest.raises(
        ValueError, match="kb has descriptions encoded by another sentence encoder than the retriever's"
    ):
        DescriptionIndex(Encoder(seed=1), kb(9))
    DescriptionIndex(Encoder(seed=1), kb())
    narrow = kb(9)
    narrow.description_vectors = narrow.description_vectors[:, :3]
    with pytest.raises(ValueError, match="build it again with --encode-descriptions"):
        DescriptionIndex(Encoder(), narrow)


def test_shared_words() -> None:
    assert shared_words("He sang two Songs under the bridge.", "songs, and a bridge") == 1.0
    assert shared_words("A bridge.", "a bridge between islands") == 1 / 3
    assert shared_words("a bridge", None) == shared_words("a b c", "a b c") == 0.0


def test_unit_vectors() -> None:
    found = unit(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32))
    assert found.tolist() == [pytest.approx([0.6, 0.8]), [0.0, 0.0]]
