"""Features of images as documents hold them: cached, stored or encoded, and one bad image leaves the others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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

    def encode(self, images: Sequence[Any]) -> Any:
        self.encoded += len(images)
        return super().encode(images)


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
