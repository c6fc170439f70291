"""Models of open_clip whose text tower is one of transformers, by a name that open_clip would ask the hub for."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file, save_model
from transformers import RobertaConfig, RobertaModel

from spacy_gemel.models.open_clip import bundle_open_clip, load_open_clip
from spacy_gemel.registry import open_clip_encoder

PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (70, 50, 3), dtype=np.uint8)) for seed in range(3)
]
VIT = {"image_size": 32, "layers": 2, "width": 24, "head_width": 12, "patch_size": 16}
# As of xlm-roberta-base-ViT-B-32, coca_roberta-ViT-B-32 and nllb-clip-base-siglip.
KINDS: dict[str, dict[str, Any]] = {
    "CLIP": {"vision_cfg": VIT, "quick_gelu": True},
    "CoCa": {
        "vision_cfg": {**VIT, "output_tokens": True},
        "multimodal_cfg": {"context_length": 8, "vocab_size": 40, "width": 16, "heads": 2, "layers": 1},
        "custom_text": True,
    },
    "SigLIP": {
        "vision_cfg": {
            "timm_model_name": "vit_tiny_patch16_224",
            "image_size": 224,
            "timm_pool": "map",
            "timm_proj": "none",
            "timm_model_pretrained": False,
        },
        "embed_dim": 192,
        "custom_text": True,
        "init_logit_bias": -10,
    },
}


def make(kind: str, folder: Path) -> str:
    """A random model's name, which open_clip knows; its text tower's config is only in a folder."""
    text = RobertaConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    RobertaModel(text, add_pooling_layer=False).save_pretrained(folder / "roberta")
    tower = {"hf_model_name": str(folder / "roberta"), "hf_proj_type": "linear", "output_tokens": kind == "CoCa"}
    config = {"embed_dim": 20, "text_cfg": {**tower, "vocab_size": 40, "width": 16}, **KINDS[kind]}
    name = f"foreign-{folder.name}"
    (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf8")
    open_clip.add_model_config(folder / f"{name}.json")
    return name


def bundle_of_before(name: str, folder: Path) -> None:
    """The whole model, with its text tower."""
    model = open_clip.create_model(name, pretrained=None)
    config = {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": open_clip.get_model_preprocess_cfg(model),
    }
    save_model(model, str(folder / "open_clip_model.safetensors"))
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf8")


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_loads_where_the_text_towers_config_is_not(
    kind: str, projection: bool, before: bool, tmp_path: Path
) -> None:
    name = make(kind, tmp_path)
    folder = tmp_path / "bundle"
    folder.mkdir()
    torch.manual_seed(1)
    if before:
        bundle_of_before(name, folder)
    else:
        bundle_open_clip(name, folder, pretrained=None, projection=projection, dtype=None)
        assert all(key.startswith("visual.") for key in load_file(folder / "open_clip_model.safetensors"))
    torch.manual_seed(1)
    whole = open_clip.create_model(name, pretrained=None).eval()
    shutil.rmtree(tmp_path / "roberta")
    encoder = open_clip_encoder(str(folder), projection=projection).load("cpu")
    preprocess = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(whole)), is_train=False)
    pixels = torch.stack([preprocess(picture) for picture in PICTURES])
    assert torch.equal(torch.stack([encoder.preprocess(picture) for picture in PICTURES]), pixels)
    if not projection and kind != "SigLIP":
        whole.visual.proj = None
    with torch.no_grad():
        expected = whole.visual(pixels)
    expected = expected[0] if isinstance(expected, tuple) else expected
    np.testing.assert_allclose(encoder.encode(PICTURES), expected, atol=1e-5)


def test_an_image_tower_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    name = make("CLIP", tmp_path)
    folder = tmp_path / "bundle"
    folder.mkdir()
    bundle_open_clip(name, folder, pretrained=None, projection=False, dtype=None)
    weights = load_file(folder / "open_clip_model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if "ln_post" not in key}, folder / "open_clip_model.safetensors"
    )
    with pytest.raises(ValueError, match=r"could not be loaded \(Error.*state_dict"):
        open_clip_encoder(str(folder)).load("cpu")
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(ValueError, match=r"there is no open_clip_config\.json"):
        open_clip_encoder(str(folder)).load("cpu")


def test_the_text_tower_never_comes_to_the_device(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    created = open_clip.create_model_from_pretrained

    def create(*arguments: Any, **options: Any) -> Any:
        asked.append(torch.device(options.get("device", "cpu")))
        return created(*arguments, **options)

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    loaded = load_open_clip(str(models / "vision_encoder"), None, projection=False, device="cpu", dtype="bfloat16")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    with pytest.raises(NotImplementedError, match="meta"):  # where nothing can be computed, but everything can lie
        load_open_clip(str(models / "vision_encoder"), None, projection=False, device="meta", dtype=None)
    assert asked == [torch.device("cpu")] * 2
