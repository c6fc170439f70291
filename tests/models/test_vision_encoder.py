"""The encoders against the libraries' own forward passes, and the mapper against its formula."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from thinc.api import Model

from spacy_gemel.images.features import FeatureReader, check_features
from spacy_gemel.images.image import ImageError
from spacy_gemel.models.frozen import FrozenModel
from spacy_gemel.models.mapper import init_to_embedding_scale, linear_mapper
from spacy_gemel.models.open_clip import bundle_open_clip, load_open_clip
from spacy_gemel.models.vision_encoder import VisionEncoder
from spacy_gemel.registry import open_clip_encoder

PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 30, 3), dtype=np.uint8)) for seed in range(40)
]


@pytest.fixture(scope="module")
def encoder(models: Path) -> VisionEncoder:
    return open_clip_encoder(str(models / "vision_encoder")).load("cpu")


def test_features_come_before_the_projection(models: Path, encoder: VisionEncoder) -> None:
    clip, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{models / 'vision_encoder'}")
    pixels = torch.stack([preprocess(picture) for picture in PICTURES])
    features = encoder.encode(PICTURES)
    assert features.shape == (40, 24)
    assert encoder.width == 24
    with torch.no_grad():
        projected = clip.eval().encode_image(pixels).numpy()
        np.testing.assert_allclose(features @ clip.visual.proj.numpy(), projected, atol=1e-5)
    joint = load_open_clip(str(models / "vision_encoder"), None, projection=True, device="cpu", dtype=None)
    np.testing.assert_allclose(joint.encode(PICTURES), projected, atol=1e-5)


def test_the_wrong_activation_is_an_error() -> None:
    with pytest.raises(ValueError, match="quickgelu"):
        load_open_clip("ViT-L-14", "openai", projection=False, device="cpu", dtype=None)


def test_an_unknown_model_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match="vision encoder 'ViT-X-99' could not be loaded"):
        load_open_clip("ViT-X-99", None, projection=False, device="cpu", dtype=None)


def test_a_named_model_is_bundled_as_a_folder_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 24, "head_width": 12, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-vit.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-vit.json")
    folder = tmp_path / "bundle"
    folder.mkdir()
    torch.manual_seed(3)
    bundle_open_clip("tiny-vit", folder, pretrained=None, projection=False, dtype=None)
    bundled = load_open_clip(str(folder), None, projection=False, device="cpu", dtype=None)
    torch.manual_seed(3)
    original = open_clip.create_model("tiny-vit", pretrained=None).eval().visual
    original.proj = None
    pixels = torch.stack([bundled.preprocess(picture) for picture in PICTURES])
    with torch.no_grad():
        np.testing.assert_allclose(bundled.encode(PICTURES), original(pixels).numpy(), atol=1e-5)


def test_one_bad_image_leaves_the_others(encoder: VisionEncoder) -> None:
    reader = FeatureReader(encoder)
    read = reader.read([PICTURES[0], b"broken", None, np.asarray(PICTURES[1]), PICTURES[0]])
    assert isinstance(read[1], ImageError)
    assert read[2] is None
    expected = encoder.encode(PICTURES[:2])
    np.testing.assert_allclose(np.stack([read[0], read[3], read[4]]), expected[[0, 1, 0]], atol=1e-6)


def test_an_image_that_was_seen_is_not_encoded_again(encoder: VisionEncoder, tmp_path: Path) -> None:
    counted: list[int] = []

    class Counting(VisionEncoder):
        def encode(self, images):  # type: ignore[no-untyped-def]
            counted.append(len(images))
            return super().encode(images)

    counting = Counting(encoder.model, encoder.preprocess, encoder.forward)
    reader = FeatureReader(counting)
    path = tmp_path / "picture.png"
    PICTURES[0].save(path)
    counted.clear()
    reader.read([str(path), path.read_bytes(), str(path)])
    reader.read([str(path), path.read_bytes()])
    assert sum(counted) <= 2
    PICTURES[1].save(path)  # another picture under the same name
    [changed] = reader.read([str(path)])
    np.testing.assert_allclose(changed, encoder.encode([PICTURES[1]])[0], atol=1e-6)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((1, 24)), np.zeros(24, dtype=int), np.full(24, np.nan)])
def test_given_features_are_checked(bad: np.ndarray) -> None:
    with pytest.raises(ImageError, match="image_features must be"):
        check_features(bad, 24)


def test_the_mapper_is_one_linear_layer() -> None:
    model = linear_mapper(4)
    assert isinstance(model, Model)
    assert model.name == "linear"
    model.set_dim("nI", 5)
    model.set_dim("nO", 4 * 3)
    model.initialize()
    inputs = np.random.default_rng(0).normal(size=(2, 5)).astype("f")
    expected = inputs @ model.get_param("W").T + model.get_param("b")
    np.testing.assert_allclose(model.predict(inputs), expected, atol=1e-6)
    with pytest.raises(ValueError, match="prefix_length"):
        linear_mapper(0)
    init_to_embedding_scale(model, inputs, 0.02)
    assert np.sqrt((model.predict(inputs) ** 2).mean()) == pytest.approx(0.02, rel=1e-4)
    init_to_embedding_scale(model, inputs[:0], 7.0)  # nothing to measure by: nothing changes
    assert np.sqrt((model.predict(inputs) ** 2).mean()) == pytest.approx(0.02, rel=1e-4)


def test_one_model_for_all_pipes_of_a_process(models: Path) -> None:
    first: FrozenModel[VisionEncoder] = open_clip_encoder(str(models / "vision_encoder"))
    second: FrozenModel[VisionEncoder] = open_clip_encoder(str(models / "vision_encoder"))
    assert first.load("cpu") is second.load("cpu")
    other = open_clip_encoder(str(models / "vision_encoder"), projection=True)
    assert other.load("cpu") is not first.load("cpu")
