"""The image tower of an open_clip folder alone: for models whose text tower open_clip would ask the hub for."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from PIL.Image import Image

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
_PREFIX = "visual."
# As small as can be, and needing nothing: it is built beside the image tower and thrown away.
_PLAIN_TEXT = {"context_length": 2, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}


def has_text_of_transformers(config: Mapping[str, Any]) -> bool:
    """Whether a model's config names a text tower of transformers, by a name that may be a hub's (XLM-R, NLLB, mT5)."""
    return bool(config["model_cfg"].get("text_cfg", {}).get("hf_model_name"))


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a folder of open_clip's. Raises ValueError where there is none, or it is none."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf8"))
    except FileNotFoundError:
        raise ValueError(f"there is no {CONFIG}") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise ValueError(f"{CONFIG} has no model_cfg")
    return config


def load_image_tower(
    folder: Path, config: Mapping[str, Any]
) -> tuple[torch.nn.Module, Callable[["Image"], torch.Tensor]]:
    """The image tower of a folder on the CPU, and how open_clip makes (channels, height, width) of an image.

    The text tower is not looked at.
    config: as `read_config` gives it. Raises RuntimeError or KeyError where the files do not hold the whole tower.
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
    from safetensors.torch import load_file

    model_config = config["model_cfg"]
    vision = dict(model_config["vision_cfg"])
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    model = open_clip.CustomTextCLIP(
        model_config["embed_dim"], vision, _PLAIN_TEXT, quick_gelu=model_config.get("quick_gelu", False)
    )
    visual: torch.nn.Module = model.visual
    named = folder / WEIGHTS
    weights = load_file(named if named.is_file() else min(folder.glob("*.safetensors")))
    visual.load_state_dict(
        {name.removeprefix(_PREFIX): value for name, value in weights.items() if name.startswith(_PREFIX)}
    )
    preprocess = merge_preprocess_dict(vars(PreprocessCfg()), config.get("preprocess_cfg", {}))
    preprocess["size"] = visual.image_size
    return visual, image_transform_v2(PreprocessCfg(**preprocess), is_train=False)


def save_image_tower(model: Any, config: Mapping[str, Any], folder: Path) -> None:
    """Write what `load_image_tower` reads of an open_clip model. Raises OSError."""
    from safetensors.torch import save_model

    save_model(torch.nn.ModuleDict({_PREFIX.rstrip("."): model.visual}), str(folder / WEIGHTS))
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf8")
