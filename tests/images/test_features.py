"""Features of images as documents hold them: cached, stored or encoded, and one bad image leaves the others."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spacy_gemel.images.feature_store import EncoderFingerprint, FeatureStore, FeatureWriter, content_key
from spacy_gemel.images.features import FeatureReader, check_features
from spacy_gemel.images.image import ImageError
from spacy_gemel.models.vision_encoder import VisionEncoder
from spacy_gemel.registry import open_clip_encoder

PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 30, 3), dtype=np.uint8)) for seed in range(6)
]


class Counting(VisionEncoder):
    """Counts the images that it encodes."""

    def __init__(self, encoder: VisionEncoder) -> None:
        self.encoded = 0
        super().__init__(encoder.model, encoder.preprocess, encoder.forward)
        self.encoded = 0

    def encode_pixels(self, pixels: Sequence[Any]) -> Any:
        self.encoded += len(pixels)
        return super().encode_pixels(pixels)


@pytest.fixture(scope="module")
def encoder(models: Path) -> VisionEncoder:
    return open_clip_encoder(str(models / "vision_encoder")).load("cpu")


def test_one_bad_image_leaves_the_others(encoder: VisionEncoder) -> None:
    reader = FeatureReader(encoder)
    read = reader.read([PICTURES[0], b"broken", None, np.asarray(PICTURES[1]), PICTURES[0]])
    assert isinstance(read[1], ImageError)
    assert read[2] is None
    expected = encoder.encode(PICTURES[:2])
    np.testing.assert_allclose(np.stack([read[0], read[3], read[4]]), expected[[0, 1, 0]], atol=1e-6)


def test_an_image_that_was_seen_is_not_encoded_again(encoder: VisionEncoder, tmp_path: Path) -> None:
    counting = Counting(encoder)
    reader = FeatureReader(counting)
    path = tmp_path / "picture.png"
    PICTURES[0].save(path)
    reader.read([str(path), path.read_bytes(), str(path)])
    reader.read([str(path), path.read_bytes()])
    assert counting.encoded <= 2
    PICTURES[1].save(path)  # another picture under the same name
    [changed] = reader.read([str(path)])
    np.testing.assert_allclose(changed, encoder.encode([PICTURES[1]])[0], atol=1e-6)


def test_a_pil_image_is_encoded_once(encoder: VisionEncoder) -> None:
    reader = FeatureReader(counting := Counting(encoder))
    first, same = reader.read([PICTURES[0], PICTURES[0].copy()])
    [again] = reader.read([PICTURES[0]])
    assert counting.encoded == 1 and (first == same).all() and (first == again).all()


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((1, 24)), np.zeros(24, dtype=int), np.full(24, np.nan)])
def test_given_features_are_checked(bad: np.ndarray) -> None:
    with pytest.raises(ImageError, match="image_features must be"):
        check_features(bad, 24)


def test_stored_features_are_used_and_the_rest_is_encoded(encoder: VisionEncoder, tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(6)]
    for path, picture in zip(paths, PICTURES, strict=True):
        picture.save(path)
    with FeatureWriter(tmp_path / "features", EncoderFingerprint.of(encoder, "x")) as writer:
        for path, features in zip(paths[:4], encoder.encode(PICTURES[:4]), strict=True):
            writer.add(content_key(path) or b"", features)
    paths[0].rename(tmp_path / "moved.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    sources = [
        str(tmp_path / "moved.png"), str(paths[1]), paths[2].read_bytes(), np.asarray(PICTURES[3]), str(paths[4]),
        None, str(tmp_path / "bad.png"), str(paths[0]), PICTURES[5], str(paths[1]),
    ]  # fmt: skip
    expected = FeatureReader(encoder).read(sources)
    for cache_bytes in (2**20, 0):
        counting = Counting(encoder)
        reader = FeatureReader(counting, cache_bytes, store=FeatureStore(tmp_path / "features"))
        read = reader.read(sources)
        assert counting.encoded == 3  # the array, which was stored as a file, picture 4 and the PIL image
        for index, (one, other) in enumerate(zip(read, expected, strict=True)):
            if isinstance(other, ImageError):
                assert str(one) == str(other)
            elif other is None:
                assert one is None
            else:
                np.testing.assert_allclose(one, other, atol=1e-6, err_msg=str(index))


class Raising(os.PathLike[str]):
    def __fspath__(self) -> str:
        raise KeyError("not foreseen")


def faults(folder: Path) -> dict[str, Any]:
    """Sources that raise errors of many classes, and an encoder's own."""
    view = memoryview(b"released")
    view.release()
    Image.new("L", (1, 9000)).save(folder / "thin.png")
    return {
        "not foreseen": Raising(),
        "released memoryview": view,
        "no pixels": Image.new("RGB", (0, 0)),
        "one side is more than": str(folder / "thin.png"),
        "no regular file": "/dev/zero",
        "no preparation": np.full((7, 7, 3), 77, dtype=np.uint8),
        "no room": np.full((8, 8, 3), 88, dtype=np.uint8),
        "no finite numbers": np.full((9, 9, 3), 99, dtype=np.uint8),
    }


def test_whatever_a_source_raises_the_others_are_read(encoder: VisionEncoder, tmp_path: Path) -> None:
    def preprocess(image: Image.Image) -> torch.Tensor:
        if image.size == (7, 7):
            raise MemoryError("no preparation")
        pixels = encoder.preprocess(image)
        if image.size == (8, 8):
            pixels = pixels[:, 1:]  # of another size than the rest, which cannot be stacked
        return pixels * (float("nan") if image.size == (9, 9) else 1.0)

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        if pixels.shape[-2] != 32:
            raise IndexError("no room")
        return encoder.forward(pixels)

    reader = FeatureReader(VisionEncoder(encoder.model, preprocess, forward))
    bad = faults(tmp_path)
    sources = [source for each in bad.values() for source in (each, PICTURES[0])] + [None, PICTURES[1]]
    read = reader.read(sources)
    for reason, result in zip(bad, read[0:-2:2], strict=True):
        assert isinstance(result, ImageError) and reason in str(result), (reason, result)
    expected = encoder.encode(PICTURES[:2])
    for result in read[1:-2:2]:
        np.testing.assert_allclose(result, expected[0], atol=1e-6)
    assert read[-2] is None
    np.testing.assert_allclose(read[-1], expected[1], atol=1e-6)


def test_given_features_of_any_kind() -> None:
    tensor = torch.ones(24, requires_grad=True)
    assert check_features(tensor, 24).tolist() == [1.0] * 24
    with pytest.raises(ImageError, match="finite numbers, also in 32 bits"):
        check_features(np.full(24, 1e200), 24)


def test_the_same_relative_path_in_another_folder(
    encoder: VisionEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = FeatureReader(encoder)
    for index, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        PICTURES[index].save(tmp_path / name / "1.bmp")
        os.utime(tmp_path / name / "1.bmp", (1.7e9, 1.7e9))
        monkeypatch.chdir(tmp_path / name)
        np.testing.assert_allclose(reader.read(["1.bmp"])[0], encoder.encode([PICTURES[index]])[0], atol=1e-6)
