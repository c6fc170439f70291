"""Vision encoders of open_clip; the feature is the pooled hidden state before CLIP's projection (the paper's)."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spacy_gemel.models.frozen import loading, torch_dtype
from spacy_gemel.models.vision_encoder import JointSpace, VisionEncoder

_CONFIG = "open_clip_config.json"
_WEIGHTS = "open_clip_model.safetensors"
_PREFIX = "visual."
# The smallest text tower: it is built beside the image tower and thrown away.
_TINY_TEXT = {"context_length": 2, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}
# Tried in tests/models/test_open_clip.py on every model that open_clip lists.
_KINDS = "ViT, CoCa, ModifiedResNet, SigLIP, ConvNeXt, EVA and other timm towers"


def load_open_clip(
    name: str, pretrained: str | None, *, projection: bool, device: str, dtype: str | None, text: bool = False
) -> VisionEncoder:
    """A CLIP (Radford et al. 2021) of open_clip by name and tag, or a local folder with its config and weights.

    Its features are the pooled hidden state (the paper's), or with `projection` the joint embedding after it. `text`
    keeps its text tower. Raises ValueError if the model cannot be loaded, its weights need another activation, it has
    no such state, or its text tower or tokenizer is not open_clip's own.
    """
    import open_clip

    folder = Path(name)
    if not folder.is_dir():
        _check_activation(name, pretrained)
    elif not any(folder.glob("*.safetensors")):
        raise ValueError(f"The vision encoder {name!r} has no weights in safetensors, the only format that is read.")
    model, source = None, f"local-dir:{folder}" if folder.is_dir() else name
    with loading("vision encoder", name):
        config = _read_config(folder) if folder.is_dir() else {"model_cfg": open_clip.get_model_config(name) or {}}
        if text and any(key.startswith("hf_") for key in config["model_cfg"].get("text_cfg", {})):
            raise ValueError("text = true needs a text tower and a tokenizer of open_clip's own")
        if folder.is_dir() and _has_hugging_face_text(config):
            visual, preprocess = _load_image_tower(folder, config)
        else:
            model, preprocess = open_clip.create_model_from_pretrained(source, pretrained=pretrained, device="cpu")
            visual = model.visual
    # Moved only now: without `text` the text tower never goes to the device.
    kept = model if text and model is not None else visual
    kept.to(device=device, dtype=torch_dtype(dtype)).requires_grad_(False).eval()
    joint = _joint_space(kept, open_clip.get_tokenizer(source), projection=projection) if text else None
    return VisionEncoder(visual, preprocess, tower_forward(visual, name, projection=projection), joint)


def _joint_space(model: Any, tokenizer: Callable[[list[str]], Tensor], *, projection: bool) -> JointSpace:
    """The joint space of a whole CLIP, before `tower_forward` removes its projection."""
    like = next(model.visual.parameters())
    layer = nn.Identity() if projection else _projection_of(model.visual)

    def project(features: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(layer(torch.from_numpy(features).to(like)).float().cpu())

    def encode_texts(texts: Sequence[str]) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(model.encode_text(tokenizer([*texts]).to(like.device)).float().cpu())

    return JointSpace(project, encode_texts)


def _projection_of(visual: Any) -> Callable[[Tensor], Tensor]:
    """What the image tower does last, as a function of the state before it."""
    if hasattr(visual, "attnpool"):
        return visual.attnpool.c_proj
    if hasattr(visual, "head"):
        layers = dict(visual.head.named_children())
        return layers.get("proj") or layers.get("mlp") or visual.trunk.get_classifier()
    weights = getattr(visual, "proj", None)
    return nn.Identity() if weights is None else lambda state: state @ weights


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: Any = json.loads((folder / _CONFIG).read_text(encoding="utf8"))
    except FileNotFoundError:
        raise ValueError(f"there is no {_CONFIG}") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise ValueError(f"{_CONFIG} has no model_cfg")
    return config


def build_image_tower(config: Mapping[str, Any]) -> Any:
    """The image tower of a model_cfg of open_clip, without weights and without asking any hub for the text tower."""
    import open_clip

    vision = dict(config["vision_cfg"])
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    quick_gelu = config.get("quick_gelu", False)
    return open_clip.CustomTextCLIP(config["embed_dim"], vision, _TINY_TEXT, quick_gelu=quick_gelu).visual


def _load_image_tower(folder: Path, config: dict[str, Any]) -> tuple[Any, Any]:
    """The image tower of a folder, on the CPU, and its preprocessing, without asking any hub for the text tower."""
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
    from safetensors.torch import load_file

    visual = build_image_tower(config["model_cfg"])
    file = folder / _WEIGHTS
    weights = load_file(file if file.is_file() else min(folder.glob("*.safetensors")))
    visual.load_state_dict({k.removeprefix(_PREFIX): v for k, v in weights.items() if k.startswith(_PREFIX)})
    preprocess = merge_preprocess_dict(vars(PreprocessCfg()), config.get("preprocess_cfg", {}))
    preprocess["size"] = visual.image_size
    return visual, image_transform_v2(PreprocessCfg(**preprocess), is_train=False)


def bundle_open_clip(name: str, folder: Path, *, pretrained: str | None, **_settings: Any) -> None:
    """Write a model of open_clip as a folder; without its text tower if that comes from transformers."""
    import open_clip
    from safetensors.torch import save_model

    model = open_clip.create_model(name, pretrained=pretrained)
    preprocess = open_clip.get_model_preprocess_cfg(model)
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": preprocess}
    if _has_hugging_face_text(config):
        model = nn.ModuleDict({_PREFIX.rstrip("."): model.visual})
    save_model(model, str(folder / _WEIGHTS))
    (folder / _CONFIG).write_text(json.dumps(config), encoding="utf8")


def _has_hugging_face_text(config: Mapping[str, Any]) -> bool:
    """Whether the text tower comes from transformers (XLM-R, NLLB, mT5), by a name that open_clip asks the hub for."""
    return bool(config["model_cfg"].get("text_cfg", {}).get("hf_model_name"))


def _check_activation(name: str, pretrained: str | None) -> None:
    """Raise ValueError if the weights were trained with another GELU; open_clip only warns, after the download."""
    import open_clip

    config, weights = open_clip.get_model_config(name), open_clip.get_pretrained_cfg(name, pretrained or "")
    if not config or not weights:
        return  # open_clip's own error names it
    quick_gelu = weights.get("quick_gelu", False)
    if quick_gelu != config.get("quick_gelu", False):
        fitting = name.removesuffix("-quickgelu") + ("-quickgelu" if quick_gelu else "")
        trained = f"{pretrained!r} of {name!r} were trained with {'QuickGELU' if quick_gelu else 'plain GELU'}"
        raise ValueError(
            f"vision_encoder: the weights {trained}, which this model does not use: set name = {fitting!r}."
        )


def tower_forward(visual: Any, name: str, *, projection: bool) -> Callable[[Tensor], Tensor]:
    """The function from pixels (images, channels, height, width) to features (images, d_v) of an image tower.

    An unused projection is removed from a ViT or a ModifiedResNet. A SigLIP has no projection: with or without it,
    the features are its pooled state. Raises ValueError if the tower has no such state.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, TimmModel) and not projection:
        return _one_vector(_without_timm_projection(visual, name), name)
    if isinstance(visual, ModifiedResNet) and not projection:
        # its pooling reads the projection's weights itself: an identity in its place
        layer = visual.attnpool.c_proj
        with torch.no_grad():
            layer = visual.attnpool.c_proj = nn.Linear(layer.in_features, layer.in_features).to(layer.weight)
            layer.requires_grad_(False)
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
    elif isinstance(visual, VisionTransformer) and not projection:
        visual.proj = None
    elif not projection:
        tower = f"unknown for {name!r}, whose image tower is a {type(visual).__name__} (it is known for {_KINDS})"
        raise ValueError(f"vision_encoder: the hidden state before the projection is {tower}: set projection = true.")
    return _one_vector(visual, name)


def _without_timm_projection(visual: Any, name: str) -> Callable[[Tensor], Any]:
    trunk = visual.trunk
    layers = dict(visual.head.named_children())
    if not layers:
        # The trunk's own classifier is the projection, or there is none (SigLIP): pre_logits is the state before it.
        return lambda pixels: trunk.forward_head(trunk.forward_features(pixels), pre_logits=True)
    if "proj" not in layers and "mlp" not in layers:
        pooling = f"the attention pooling of {name!r} is its projection as well, so there is no hidden state before it"
        raise ValueError(f"vision_encoder: {pooling}: set projection = true.")
    return nn.Sequential(trunk, layers["pool"]) if "pool" in layers else trunk


def _one_vector(forward: Callable[[Tensor], Any], name: str) -> Callable[[Tensor], Tensor]:
    """`forward` with only the first of several outputs (CoCa also returns its tokens), checked to be one vector."""

    def vectors(pixels: Tensor) -> Tensor:
        output = forward(pixels)
        features: Tensor = output[0] if isinstance(output, (tuple, list)) else output
        if features.ndim == 3 and features.shape[1] == 1:
            features = features[:, 0]  # an attention pooling with one query
        if features.ndim != 2:
            shape = f"shape {tuple(features.shape[1:])} for an image, not one vector: its pooling is switched off"
            raise ValueError(f"vision_encoder: {name!r} returns features of {shape}. Use another model.")
        return features

    return vectors
