"""Every family of image towers that open_clip builds: the feature, put through the projection, is CLIP's embedding."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file, save_model
from torch import nn
from transformers import RobertaConfig, RobertaModel

from spacy_gemel.kb.entity import Entity
from spacy_gemel.linking.descriptions import ImageDescriptions
from spacy_gemel.models.open_clip import bundle_open_clip, load_open_clip, tower_forward
from spacy_gemel.registry import open_clip_encoder

PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (70, 50, 3), dtype=np.uint8)) for seed in range(3)
]
VIT = {"image_size": 32, "layers": 2, "width": 24, "head_width": 12, "patch_size": 16}
TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
EMBEDDING = 20


def timm(name: str, size: int, pool: str, proj: str | None) -> dict[str, Any]:
    return {"timm_model_name": name, "image_size": size, "timm_pool": pool, "timm_proj": proj}


# (vision_cfg, width of the state before the projection). Pools and projections are those that open_clip's configs have.
FAMILIES: dict[str, tuple[dict[str, Any], int]] = {
    "ViT": (VIT, 24),
    "ViT, averaged (CLIPA)": (
        {**VIT, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True, "pos_embed_type": "sin_cos_2d"},
        24,
    ),
    "CoCa": ({**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}, EMBEDDING),
    "CoCa, no attention pooling": ({**VIT, "output_tokens": True}, 24),
    "ResNet of CLIP": ({"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}, 256),
    "SigLIP": (timm("vit_tiny_patch16_224", 224, "map", "none"), 192),
    "Perception Encoder": (timm("vit_pe_core_tiny_patch16_384", 384, "map", None), 192),
    "MobileCLIP ViT": (timm("vit_tiny_patch16_224", 224, "token", None), 192),
    "MobileCLIP FastViT": (timm("fastvit_t8", 256, "avg", None), 768),
    "EVA02": (timm("eva02_tiny_patch14_224", 224, "token", None), 192),
    "ConvNeXt": (timm("convnext_atto", 224, "", "linear"), 320),
    "ConvNeXt, MLP": (timm("convnext_atto", 224, "", "mlp"), 320),
    "ViTamin": (timm("vitamin_small_224", 224, "", "linear"), 384),
    "Swin": (timm("swin_tiny_patch4_window7_224", 224, "", "linear"), 768),
    "attention pooling, projected": (timm("resnet10t", 176, "rot_attn", "linear"), EMBEDDING),
}
# Large even at their smallest; the list of all models, below, has them too.
SLOW = ("Perception Encoder", "ViTamin", "Swin")
NO_STATE = timm("resnet10t", 176, "rot_attn", "")


def save(vision: dict[str, Any], folder: Path, text: dict[str, Any] = TEXT) -> Path:
    """A model of random weights as a folder, written as a bundled pipe writes it."""
    config: dict[str, Any] = {"embed_dim": EMBEDDING, "vision_cfg": vision, "text_cfg": text}
    if "timm_model_name" in vision:
        config["custom_text"] = True
    if vision.get("output_tokens"):
        config["text_cfg"] = {**text, "embed_cls": True, "output_tokens": True}
        config["multimodal_cfg"] = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
        config["custom_text"] = True
    name = f"tiny-{folder.name}"
    (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf8")
    open_clip.add_model_config(folder / f"{name}.json")
    (folder / "bundle").mkdir()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that the weights are random
        bundle_open_clip(name, folder / "bundle", pretrained=None, projection=False, dtype=None)
    return folder / "bundle"


def projection_of(visual: Any) -> Any:
    """What open_clip's own tower does last, as a function of the state before it."""
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        return lambda state: state @ visual.proj
    if hasattr(visual, "attnpool"):
        return visual.attnpool.c_proj
    layers = dict(visual.head.named_children())
    return layers.get("proj") or layers.get("mlp") or visual.trunk.get_classifier()


@pytest.mark.parametrize(
    "family", [pytest.param(family, marks=[pytest.mark.slow] * (family in SLOW)) for family in FAMILIES]
)
def test_the_feature_is_what_the_projection_is_given(family: str, tmp_path: Path) -> None:
    vision, width = FAMILIES[family]
    folder = save(vision, tmp_path)
    clip, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    pixels = torch.stack([preprocess(picture) for picture in PICTURES])
    with torch.no_grad():
        embedded = clip.eval().encode_image(pixels, normalize=False).reshape(3, -1)
    encoder = open_clip_encoder(str(folder)).load("cpu")
    features = encoder.encode(PICTURES)
    assert features.shape == (3, width) == (3, encoder.width)
    assert np.abs(features[0] - features[1]).max() > 1e-5
    with torch.no_grad():
        projected = projection_of(clip.visual)(torch.from_numpy(features))
    np.testing.assert_allclose(projected, embedded, rtol=1e-4, atol=1e-5)
    joint = open_clip_encoder(str(folder), projection=True).load("cpu").encode(PICTURES)
    np.testing.assert_allclose(joint, embedded, rtol=1e-4, atol=1e-5)
    if family == "SigLIP":  # it has no projection
        np.testing.assert_allclose(joint, features, atol=1e-6)
    else:
        assert joint.shape == (3, EMBEDDING)


WORDS = ["Mercury. a planet of the sun", "Mercury", "Java. an island"]


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in (*SLOW, "SigLIP")])
def test_images_and_texts_are_compared_as_open_clip_does(family: str, projection: bool, tmp_path: Path) -> None:
    """Whatever the features are, with the text tower they have the cosines of encode_image and encode_text."""
    if projection and family not in ("ViT", "CoCa"):
        pytest.skip("with the projection the features are the embeddings")
    folder = save(FAMILIES[family][0], tmp_path, {**TEXT, "vocab_size": 49408, "context_length": 16})
    clip, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    with torch.no_grad():
        images = clip.eval().encode_image(torch.stack([preprocess(each) for each in PICTURES]), normalize=True)
        words = clip.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(WORDS), normalize=True)
        images, words = images.reshape(3, -1), words.reshape(3, -1)
    encoder = open_clip_encoder(str(folder), projection=projection, text=True).load("cpu")
    assert encoder.joint is not None
    descriptions = ImageDescriptions(encoder.joint)
    entities = [
        Entity("a", "Mercury", 0, (), "a planet of the sun"),
        Entity("b", "Mercury"),
        Entity("c", "Java. an island"),
    ]
    found = [descriptions.similarity(features, entities) for features in encoder.encode(PICTURES)]
    np.testing.assert_allclose(found, images @ words.T, atol=1e-5)
    assert np.ptp(found) > 1e-3
    without = open_clip_encoder(str(folder), projection=projection).load("cpu")
    assert without.joint is None
    np.testing.assert_array_equal(without.encode(PICTURES), encoder.encode(PICTURES))


def test_the_text_tower_in_half_precision(tmp_path: Path) -> None:
    folder = str(save(VIT, tmp_path, {**TEXT, "vocab_size": 49408, "context_length": 16}))
    whole, half = (open_clip_encoder(folder, text=True, dtype=dtype).load("cpu") for dtype in (None, "bfloat16"))
    assert whole.joint is not None
    assert half.joint is not None
    vectors = half.joint.encode_texts(WORDS)
    assert vectors.dtype == half.joint.project(half.encode(PICTURES)).dtype == np.float32
    np.testing.assert_allclose(vectors, whole.joint.encode_texts(WORDS), atol=0.05 * np.abs(vectors).max())


def test_a_text_tower_of_transformers_is_refused(tmp_path: Path) -> None:
    name = make_foreign("CLIP", tmp_path)
    with pytest.raises(ValueError, match="text = true needs a text tower and a tokenizer of open_clip's own"):
        load_open_clip(name, None, projection=False, device="cpu", dtype=None, text=True)


@pytest.mark.parametrize("family", ["ViT", "CoCa", "ResNet of CLIP", "SigLIP", "ConvNeXt", "EVA02"])
def test_features_in_half_precision(family: str, tmp_path: Path) -> None:
    folder = str(save(FAMILIES[family][0], tmp_path))
    whole = open_clip_encoder(folder).load("cpu").encode(PICTURES)
    for dtype in ("bfloat16", "float16"):
        half = open_clip_encoder(folder, dtype=dtype).load("cpu").encode(PICTURES)
        assert half.dtype == np.float32
        assert np.isfinite(half).all()
        off = np.linalg.norm(half - whole, axis=1) / np.linalg.norm(whole, axis=1)
        assert off.max() < 0.05


def test_a_tower_without_such_a_state_says_which_setting_works(tmp_path: Path) -> None:
    folder = str(save(NO_STATE, tmp_path))
    with pytest.raises(ValueError, match=r"no hidden state before it: set projection = true"):
        open_clip_encoder(folder).load("cpu")
    assert open_clip_encoder(folder, projection=True).load("cpu").encode(PICTURES).shape == (3, EMBEDDING)
    with pytest.raises(ValueError, match=r"is unknown for .* tower is a Linear .*: set projection = true"):
        tower_forward(nn.Linear(2, 2), "mine", projection=False)


def test_a_tower_that_does_not_pool_is_refused(tmp_path: Path) -> None:
    folder = str(save({**VIT, "pool_type": "none"}, tmp_path))
    for projection in (False, True):
        with pytest.raises(ValueError, match=r"features of shape \(5, \d+\) for an image, not one vector"):
            open_clip_encoder(folder, projection=projection).load("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", open_clip.list_models())
def test_every_model_that_open_clip_lists(name: str) -> None:
    """Shapes alone, on torch's meta device: no weights are made."""
    from open_clip.model import _build_vision_tower  # the whole model would ask the hub for its text tower's config

    config = open_clip.get_model_config(name)
    size = config["vision_cfg"].get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    with torch.device("meta"), torch.no_grad():
        visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False)).eval()
        pixels = torch.zeros(2, 3, height, width)
        joint = tower_forward(visual, name, projection=True)(pixels)
        state = tower_forward(visual, name, projection=False)(pixels)
    assert joint.shape == (2, config["embed_dim"])
    assert state.ndim == 2
    assert len(state) == 2


def test_features_come_before_the_projection(models: Path) -> None:
    clip, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{models / 'vision_encoder'}")
    pixels = torch.stack([preprocess(picture) for picture in PICTURES])
    encoder = open_clip_encoder(str(models / "vision_encoder")).load("cpu")
    features = encoder.encode(PICTURES)
    assert features.shape == (3, 24)
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


# Text towers of transformers, by a name that open_clip would ask the hub for

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


def make_foreign(kind: str, folder: Path) -> str:
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


def whole_bundle(name: str, folder: Path) -> None:
    """The whole model, with its text tower."""
    model = open_clip.create_model(name, pretrained=None)
    config = {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": open_clip.get_model_preprocess_cfg(model),
    }
    save_model(model, str(folder / "open_clip_model.safetensors"))
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf8")


@pytest.mark.parametrize("whole_bundled", [False, True])
@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_loads_where_the_text_towers_config_is_not(
    kind: str, projection: bool, whole_bundled: bool, tmp_path: Path
) -> None:
    name = make_foreign(kind, tmp_path)
    folder = tmp_path / "bundle"
    folder.mkdir()
    torch.manual_seed(1)
    if whole_bundled:
        whole_bundle(name, folder)
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
    name = make_foreign("CLIP", tmp_path)
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
