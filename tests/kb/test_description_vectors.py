"""Vectors of descriptions: what is written, mapped and refused, and that an interrupted build resumes."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from spacy_gemel.kb.check import check_kb
from spacy_gemel.kb.entity import Entity, KBError, description_text
from spacy_gemel.kb.knowledge_base import VECTORS_FILE, KnowledgeBase
from spacy_gemel.kb.meta import file_record, read_meta, write_meta
from tests.kb.building import BATCH, ROWS, Build, content

WIDTH = 5
PROBES = 1  # the first call of a build


class Encoder:
    """A text's vector follows from its digest; `noise` is another machine's, `fails_at` the number of a call."""

    def __init__(self, seed: int = 0, noise: float = 0.0, fails_at: int = -1) -> None:
        self.seed, self.noise, self.fails_at = seed, noise, fails_at
        self.calls: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        self.calls.append(list(texts))
        digests = [hashlib.sha256(f"{self.seed} {text}".encode()).digest()[:WIDTH] for text in texts]
        rows = [np.frombuffer(digest, dtype=np.uint8) for digest in digests]
        return np.stack(rows).astype(np.float32) + np.float32(1 + self.noise)


def expected(texts: Sequence[str], seed: int = 0) -> NDArray[np.float16]:
    vectors = Encoder(seed)(texts)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize(("description", "text"), [("a city", "Paris. a city"), ("", "Paris"), (None, "Paris")])
def test_text_of_an_entity(description: str | None, text: str) -> None:
    assert description_text(Entity("Q90", "Paris", description=description)) == text


def test_a_unit_vector_of_each_entity(tmp_path: Path, build: Build, planets: list[Any]) -> None:
    encoder = Encoder()
    report = build(tmp_path, [planets[0], "{bad", planets[0], *planets[1:]], encode=encoder)
    kb = KnowledgeBase.open(report.path, verify=True)
    texts = ["New York", "New York City. a city", "Mercury", "Mercury", "Mercury", "東京都 🪐"]
    assert encoder.calls[PROBES:] == [texts]
    vectors = kb.description_vectors
    assert vectors is not None
    assert (vectors.dtype, vectors.shape) == (np.float16, (6, WIDTH))
    assert np.array_equal(vectors, expected(texts))
    assert not vectors.flags.owndata
    assert not vectors.flags.writeable
    assert sorted(kb.files()) == sorted(path.name for path in report.path.iterdir())
    assert check_kb(report.path) == []
    assert "for the vectors of descriptions" in report.lines()[0]


def test_added_entities_have_none(tmp_path: Path, build: Build, planets: list[Any], tokenizer: Any) -> None:
    kb = KnowledgeBase.open(build(tmp_path, planets, encode=Encoder()).path)
    added = kb.with_added([Entity("new", "new")], tokenizer)
    assert added.description_vectors is kb.description_vectors
    assert len(added) == len(kb) + 1


def test_only_if_asked_for(tmp_path: Path, build: Build, planets: list[Any]) -> None:
    report = build(tmp_path, planets)
    kb = KnowledgeBase.open(report.path)
    assert kb.description_vectors is None
    assert VECTORS_FILE not in kb.files()
    assert "vectors" not in report.lines()[0]
    plain = content(report.path)
    assert KnowledgeBase.open(build(tmp_path, planets, encode=Encoder()).path).description_vectors is not None
    assert content(build(tmp_path, planets).path) == plain  # it goes with the knowledge base that it belongs to


DAMAGED = {
    "other rows": (np.zeros((5, WIDTH), np.float16), "has vectors of 5 entities instead of 6"),
    "a list": (np.zeros(6, np.float16), "does not hold a 2-D float16 array"),
    "another type": (np.zeros((6, WIDTH), np.float32), "does not hold a 2-D float16 array"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_another_array_is_refused(tmp_path: Path, build: Build, planets: list[Any], damage: str) -> None:
    folder = build(tmp_path, planets, encode=Encoder()).path
    array, message = DAMAGED[damage]
    np.save(folder / VECTORS_FILE, array)
    meta = read_meta(folder)
    write_meta(folder, replace(meta, files={**meta.files, VECTORS_FILE: file_record(folder / VECTORS_FILE)}))
    with pytest.raises(KBError, match=rf"descriptions\.npy.* {message}.*: build the KB again"):
        KnowledgeBase.open(folder)
    assert any(message in problem for problem in check_kb(folder))


def test_changed_bytes_and_a_missing_file_are_noticed(tmp_path: Path, build: Build, planets: list[Any]) -> None:
    folder = build(tmp_path, planets, encode=Encoder()).path
    path = folder / VECTORS_FILE
    sound = path.read_bytes()
    path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    KnowledgeBase.open(folder)
    with pytest.raises(KBError, match=r"descriptions\.npy does not match its checksum"):
        KnowledgeBase.open(folder, verify=True)
    assert any("descriptions.npy does not match" in problem for problem in check_kb(folder))
    path.write_bytes(sound[:-1])
    with pytest.raises(KBError, match=r"descriptions\.npy has \d+ bytes instead of"):
        KnowledgeBase.open(folder)
    path.unlink()
    with pytest.raises(KBError, match=r"descriptions\.npy is missing"):
        KnowledgeBase.open(folder)


UNUSABLE = {
    "zeros": (
        lambda texts: np.zeros((len(texts), WIDTH), np.float32),
        "no vector with a direction for 'Mercury",
    ),
    "not a number": (lambda texts: np.full((len(texts), WIDTH), np.nan), "no vector with a direction"),
    "too few": (lambda texts: np.ones((1, WIDTH), np.float32), "an array of shape \\(1, 5\\) for 3 texts"),
    "flat": (lambda texts: np.ones(len(texts), np.float32), "an array of shape \\(3,\\) for 3 texts"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_encoder_without_usable_vectors(tmp_path: Path, build: Build, planets: list[Any], kind: str) -> None:
    encode, message = UNUSABLE[kind]
    with pytest.raises(KBError, match=message):
        build(tmp_path, planets, encode=encode)
    assert [path.name for path in tmp_path.iterdir()] == ["entities.jsonl"]


# Interrupted builds: ROWS have 60 entities, BATCH of which are a batch.


@pytest.fixture
def whole_vectors(tmp_path: Path, build: Build, small_batches: None) -> dict[str, bytes]:
    """What a build of ROWS in one go writes."""
    (tmp_path / "whole").mkdir()
    return content(build(tmp_path / "whole", ROWS, encode=Encoder()).path)


def interrupt(folder: Path, build: Build, batches: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(folder, ROWS, encode=Encoder(fails_at=PROBES + batches))


def test_goes_on_after_an_interrupt(tmp_path: Path, build: Build, whole_vectors: dict[str, bytes]) -> None:
    interrupt(tmp_path, build, 4)
    encoder = Encoder()
    report = build(tmp_path, ROWS, encode=encoder)
    assert (report.resumed, report.resumed_descriptions) == (60, 4 * BATCH)
    assert len(encoder.calls) == PROBES + 4
    assert content(report.path) == whole_vectors
    assert any(f"encoded the descriptions of {4 * BATCH} entities" in line for line in report.lines())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entities.jsonl", "kb", "whole"]


def test_says_what_is_left(tmp_path: Path, build: Build, small_batches: None) -> None:
    with pytest.raises(KeyboardInterrupt) as raised:
        build(tmp_path, ROWS, encode=Encoder(fails_at=PROBES + 1))
    assert "resumes from the tokenised names and encoded descriptions in" in raised.value.__notes__[0]


def test_rounding_does_not_make_another_encoder(tmp_path: Path, build: Build, small_batches: None) -> None:
    interrupt(tmp_path, build, 4)
    assert build(tmp_path, ROWS, encode=Encoder(noise=1e-4)).resumed_descriptions == 4 * BATCH


@pytest.mark.parametrize("change", ["encoder", "description", "damage"])
def test_goes_on_only_with_the_same_encoder_and_texts(
    tmp_path: Path, build: Build, small_batches: None, change: str
) -> None:
    interrupt(tmp_path, build, 4)
    rows, encoder, resumed = list(ROWS), Encoder(seed=int(change == "encoder")), 0
    if change == "description":
        rows[0] = {**rows[0], "description": "changed"}
    elif change == "damage":
        first = min((tmp_path / ".kb.building").glob("descriptions-*/*.npz"))
        first.write_bytes(first.read_bytes()[:-30])
        resumed = 3 * BATCH
    report = build(tmp_path, rows, encode=encoder)
    assert report.resumed_descriptions == resumed
    assert len(encoder.calls) == PROBES + 8 - resumed // BATCH
    kb = KnowledgeBase.open(report.path, verify=True)
    texts = [description_text(kb.entity(row)) for row in range(len(kb))]
    assert kb.description_vectors is not None
    assert np.array_equal(kb.description_vectors, expected(texts, encoder.seed))
    assert not (tmp_path / ".kb.building").exists()


def test_progress_within_a_batch(tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of a slow encoder takes minutes."""
    monkeypatch.setattr("spacy_gemel.kb.description_vectors._CALL", 16)
    encoder = Encoder()
    report = build(tmp_path, ROWS, encode=encoder)
    assert [len(call) for call in encoder.calls[PROBES:]] == [16, 16, 16, 12]
    kb = KnowledgeBase.open(report.path)
    assert kb.description_vectors is not None
    assert np.array_equal(kb.description_vectors, expected([kb.entity(row).name for row in range(60)]))
