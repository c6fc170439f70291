"""GEMEL's own form, with and without HDF5 features."""

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spacy_gemel.data.datasets.converters import convert
from tests.data.datasets.conversion import WIKI, ents, pictures, run, write


class FakeH5(dict[str, Any]):
    """The part of an h5py file that is used: a mapping from names to objects that return an array for [()]."""

    def __enter__(self) -> "FakeH5":
        return self

    def __exit__(self, *_: object) -> None:
        pass


GEMEL = [
    {"text": "Ada in London", "mention": "London", "golden": "London", "target": "London", "img_url": "a/b.jpg"},
    {"text": "Ada in London", "mention": "Ada", "golden": "NIL", "target": "Ada", "img_url": "a/b.jpg"},
    {"text": "Ada in London", "mention": "Ada", "target": "Ada Lovelace", "img_name": "7.jpg"},
    {"text": "Ada", "mention": "Ada", "golden": f"{WIKI}Ada_Lovelace", "img_name": "gone.jpg"},
    {"text": "Ada", "mention": "Ada"},
    {"text": "Ada", "golden": "Ada"},
    {"text": 1, "mention": "Ada", "golden": "Ada"},
    [],
]


def check_gemel(tmp_path: Path, features: Path) -> None:
    _, docs, written = run("gemel", write(tmp_path / "train.json", GEMEL, lines=True), features=features)
    assert [ents(doc) for doc in docs] == [
        [("Ada", "ENTITY", "NIL"), ("London", "ENTITY", "London")],
        [("Ada", "ENTITY", "Ada Lovelace")],
        [("Ada", "ENTITY", "Ada Lovelace")],
    ]
    vectors = [doc.user_data.get("image_features") for doc in docs]
    assert vectors[0].dtype == vectors[1].dtype == np.float32
    assert vectors[0].tolist() == [1.0, 2.0] and vectors[1].tolist() == [3.0, 4.0]
    assert vectors[2] is None
    assert docs[0].user_data["image_url"] == "a/b.jpg"
    assert written["features"] == {"found": 2, "missing": {"no features of this image": 1}}
    assert written["rows"]["read"] == 8
    assert written["rows"]["dropped"] == {"no entity": 1, "no mention": 1, "no text": 1, "not an object": 1}
    assert f"{tmp_path / 'train.json'}:5: row left out: no entity" in "\n".join(written["problems"])


def test_gemel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FakeH5({"a/b.jpg": {(): np.array([1, 2], dtype=np.float16)}, "7.jpg": {(): np.array([[3.0, 4.0]])}})
    monkeypatch.setitem(sys.modules, "h5py", SimpleNamespace(File=lambda path, mode: file))
    (tmp_path / "f.h5").touch()
    check_gemel(tmp_path, tmp_path / "f.h5")


def test_gemel_with_a_real_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a/b.jpg"] = np.array([1, 2], dtype=np.float16)
        file["7.jpg"] = np.array([[3.0, 4.0]])
    check_gemel(tmp_path, tmp_path / "f.h5")
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"bad\.h5: not an HDF5 file"):
        convert("gemel", tmp_path / "train.json", tmp_path / "o.spacy", features=tmp_path / "bad.h5", progress=False)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array(["x"], dtype=object), "the features are not numbers"),
        (np.array([1.0, np.nan]), "the features are not finite"),
        (np.ones((2, 3)), "the features are not a vector"),
        (np.ones(0), "the features are not a vector"),
    ],
)
def test_gemel_bad_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: np.ndarray, reason: str) -> None:
    monkeypatch.setitem(sys.modules, "h5py", SimpleNamespace(File=lambda *_: FakeH5({"7.jpg": {(): array}})))
    (tmp_path / "f.h5").touch()
    _, (doc,), written = run("gemel", write(tmp_path / "x.json", GEMEL[2:3], lines=True), features=tmp_path / "f.h5")
    assert "image_features" not in doc.user_data
    assert written["features"]["missing"] == {reason: 1}


def test_gemel_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"needs h5py: pip install spacy-gemel\[hdf5\]"):
        run("gemel", write(tmp_path / "x.json", GEMEL[:1], lines=True), features=tmp_path / "f.h5")
    # without features no such package is needed
    assert len(run("gemel", tmp_path / "x.json")[1]) == 1


def test_gemel_image_files(tmp_path: Path) -> None:
    images = pictures(tmp_path / "img", "7.jpg", hashlib.md5(b"b.jpg").hexdigest() + ".jpg")
    _, docs, written = run("gemel", write(tmp_path / "x.json", GEMEL[:3], lines=True), images=images)
    assert written["images"] == {"named": 2, "missing": 0}
    assert docs[1].user_data["image"] == "../img/7.jpg"
