"""The vision encoders of transformers, small and random: the features are those of the class's own forward pass."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from spacy_gemel.models.vision_encoder import VisionEncoder, image_vectors
from spacy_gemel.registry import hugging_face_vision

PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (70, 50, 3), dtype=np.uint8)) for seed in range(3)
]
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 16,
}
STAGES = {"hidden_sizes": [8, 12], "depths": [1, 1]}
SQUARE = {"height": 32, "width": 32}
TEXT = {**{name: SMALL[name] for name in list(SMALL)[:4]}, "vocab_size": 32, "max_position_embeddings": 8}
BOTH = {"text_config": TEXT, "vision_config": SMALL}


def pooled(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=pixels).pooler_output.flatten(1)


def first_state(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=pixels).last_hidden_state[:, 0]


def mean_of_patches(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=pixels).last_hidden_state.mean(1)


def of_its_tower(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return model.vision_model(pixel_values=pixels).pooler_output


Forward = Callable[[Any, torch.Tensor], torch.Tensor]
# (model class, its config, processor class and settings, the expected features, width). ViTMSN has no pooling but a
# CLS token; I-JEPA has neither: its own classifier takes the mean over the patches.
CLASSES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], Forward, int]] = {
    "ViT": ("ViTModel", SMALL, "ViTImageProcessor", {"size": SQUARE}, pooled, 16),
    "BEiT": ("BeitModel", SMALL, "BeitImageProcessor", {"size": SQUARE, "do_center_crop": False}, pooled, 16),
    "DeiT": ("DeiTModel", SMALL, "DeiTImageProcessor", {"size": SQUARE, "crop_size": SQUARE}, pooled, 16),
    "ResNet": (
        "ResNetModel",
        {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1], "layer_type": "bottleneck"},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
        pooled,
        20,
    ),
    "ConvNeXt": (
        "ConvNextModel",
        {**STAGES, "num_stages": 2},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
        pooled,
        12,
    ),
    "Swin": (
        "SwinModel",
        {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4},
        "ViTImageProcessor",
        {"size": SQUARE},
        pooled,
        16,
    ),
    "DINOv2": (
        "Dinov2Model",
        SMALL,
        "BitImageProcessor",
        {"size": {"shortest_edge": 36}, "crop_size": SQUARE},
        pooled,
        16,
    ),
    "CLIP's tower": (
        "CLIPVisionModel",
        SMALL,
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 32}, "crop_size": SQUARE},
        pooled,
        16,
    ),
    "CLIP": (
        "CLIPModel",
        {**BOTH, "projection_dim": 6},
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 32}, "crop_size": SQUARE},
        of_its_tower,
        16,
    ),
    "SigLIP's tower": ("SiglipVisionModel", SMALL, "SiglipImageProcessor", {"size": SQUARE}, pooled, 16),
    "SigLIP": ("SiglipModel", BOTH, "SiglipImageProcessor", {"size": SQUARE}, of_its_tower, 16),
    "ViTMSN": ("ViTMSNModel", SMALL, "ViTImageProcessor", {"size": SQUARE}, first_state, 16),
    "I-JEPA": ("IJepaModel", SMALL, "ViTImageProcessor", {"size": SQUARE}, mean_of_patches, 16),
    "AIMv2": ("Aimv2VisionModel", SMALL, "ViTImageProcessor", {"size": SQUARE}, pooled, 16),
    "AIMv2 without its head": (
        "Aimv2VisionModel",
        {**SMALL, "use_head": False},
        "ViTImageProcessor",
        {"size": SQUARE},
        mean_of_patches,
        16,
    ),
    "ViTMAE that masks nothing": (
        "ViTMAEModel",
        {**SMALL, "mask_ratio": 0.0},
        "ViTImageProcessor",
        {"size": SQUARE},
        first_state,
        16,
    ),
}
CLASSES = {kind: row for kind, row in CLASSES.items() if hasattr(transformers, row[0])}  # AIMv2 came with 4.54


def save(kind: str, folder: Path, model_class: str | None = None, **changes: Any) -> Any:
    """A model of random weights with its processor; the model."""
    own_class, settings, processor, how, _, _ = CLASSES[kind]
    torch.manual_seed(0)
    config = getattr(transformers, own_class.replace("Model", "Config"))(**settings)
    model = getattr(transformers, model_class or own_class)(config, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)  # those that begin as zeros too
    model.save_pretrained(folder)
    getattr(transformers, processor)(**how).save_pretrained(folder)
    return model.eval()


def load(folder: Path, dtype: str | None = None) -> VisionEncoder:
    return hugging_face_vision(str(folder), dtype=dtype).load("cpu")


def pixels_of(folder: Path) -> torch.Tensor:
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels: torch.Tensor = processor(images=PICTURES, return_tensors="pt")["pixel_values"]
    return pixels


@pytest.mark.parametrize("kind", CLASSES)
def test_the_features_are_those_of_the_class(kind: str, tmp_path: Path) -> None:
    model = save(kind, tmp_path)
    forward, width = CLASSES[kind][-2:]
    with torch.no_grad():
        expected = forward(model, pixels_of(tmp_path)).numpy()
    encoder = load(tmp_path)
    features = encoder.encode(PICTURES)
    assert features.shape == (3, width) == (3, encoder.width)
    assert np.abs(features[0] - features[1]).max() > 1e-6
    np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize("kind", CLASSES)
def test_features_in_half_precision(kind: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    whole = load(tmp_path).encode(PICTURES)
    for dtype in ("bfloat16", "float16"):
        half = load(tmp_path, dtype).encode(PICTURES)
        assert half.dtype == np.float32
        assert np.isfinite(half).all()
        assert np.linalg.norm(half - whole) < 0.1 * np.linalg.norm(whole)


def test_without_pooling_it_is_the_cls_state_the_same_at_each_load(tmp_path: Path) -> None:
    """transformers would fill a missing pooling layer in at random."""
    model = save("ViT", tmp_path, add_pooling_layer=False)
    with torch.no_grad():
        expected = first_state(model, pixels_of(tmp_path)).numpy()
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.testing.assert_allclose(load_anew(tmp_path).encode(PICTURES), expected, atol=1e-5)


def load_anew(folder: Path) -> VisionEncoder:
    from spacy_gemel.models.vision_encoder import load_hugging_face_vision

    return load_hugging_face_vision(str(folder), revision=None, device="cpu", dtype=None)


@pytest.mark.parametrize("kind", ["ViT", "BEiT", "ResNet"])
def test_a_classifier_gives_the_features_below_its_head(kind: str, tmp_path: Path) -> None:
    """Most of these models are published as classifiers; the paper's ResNet-101 and BEiT-large are."""
    name = CLASSES[kind][0].removesuffix("Model")
    model = save(kind, tmp_path, f"{name}ForImageClassification")
    base = getattr(model, model.base_model_prefix)
    with torch.no_grad():
        expected = (first_state if kind == "ViT" else pooled)(base, pixels_of(tmp_path)).numpy()
    np.testing.assert_allclose(load_anew(tmp_path).encode(PICTURES), expected, atol=1e-5)
    np.testing.assert_allclose(load_anew(tmp_path).encode(PICTURES), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "lost"), [("ViT", "layernorm.weight"), ("SigLIP", "vision_model.post_layernorm.bias")]
)
def test_missing_weights_are_an_error(kind: str, lost: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"lacks 1 of its weights \({lost.removeprefix('vision_model.')} first\)"):
        load(tmp_path)


def test_a_text_tower_may_be_missing_from_a_clip(tmp_path: Path) -> None:
    save("CLIP", tmp_path)
    expected = load_anew(tmp_path).encode(PICTURES)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if name.startswith("vision_model.")}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    np.testing.assert_allclose(load_anew(tmp_path).encode(PICTURES), expected, atol=1e-6)


def test_a_model_of_text_is_refused(tmp_path: Path) -> None:
    config = transformers.BertConfig(**TEXT)
    transformers.BertModel(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is a BertModel, which reads no images"):
        load(tmp_path)


def save_another(name: str, processor: Any, folder: Path, **settings: Any) -> None:
    """A random model of a class that is no encoder of the table above."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**settings)
    getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_that_differ_each_time_are_refused(dtype: str, tmp_path: Path) -> None:
    """ViTMAE masks three patches of four at random, in eval mode too."""
    save_another("ViTMAE", transformers.ViTImageProcessor(size=SQUARE), tmp_path, **SMALL)
    with pytest.raises(ValueError, match=r"ViTMAEModel, which gives different features .* mask_ratio to 0"):
        load(tmp_path, dtype)


def test_a_model_that_wants_more_than_pixels_is_refused(tmp_path: Path) -> None:
    tower = {name: value for name, value in SMALL.items() if name != "image_size"}
    processor = transformers.Siglip2ImageProcessor(patch_size=16)
    save_another("Siglip2", processor, tmp_path, text_config=TEXT, vision_config=tower)
    with pytest.raises(ValueError, match=r"Siglip2Vision\w+, which does not make features from pixels alone"):
        load(tmp_path)


def test_states_that_are_no_patches_are_not_taken_for_features(tmp_path: Path) -> None:
    """A segmenter's last states are a map."""
    save_another(
        "Segformer",
        transformers.SegformerImageProcessor(size=SQUARE),
        tmp_path,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        num_encoder_blocks=2,
        sr_ratios=[1, 1],
        patch_sizes=[3, 3],
        strides=[4, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[1, 1],
    )
    with pytest.raises(ValueError, match="no single vector for an image"):
        load(tmp_path)


@pytest.mark.parametrize("patch_size", [16, (16, 16), (8, 16), None])
def test_the_mean_is_taken_over_patches_alone(patch_size: Any) -> None:
    """A row of states of another length, as of the objects that a detector looks for, is no row of patches."""

    class States(torch.nn.Module):
        def __init__(self, rows: int) -> None:
            super().__init__()
            self.config = SimpleNamespace(patch_size=patch_size)
            self.states = torch.randn(1, rows, 5)

        def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(last_hidden_state=self.states.expand(len(pixel_values), -1, -1))

    pixels = torch.zeros(2, 3, 32, 48)
    patches, others = States(6), States(5)
    if patch_size in (16, (16, 16)):
        expected = patches.states.mean(1).expand(2, -1)
        torch.testing.assert_close(image_vectors(patches, pixels, "mine"), expected)
    else:
        others = patches
    with pytest.raises(ValueError, match="'mine' has no pooled output"):
        image_vectors(others, pixels, "mine")
