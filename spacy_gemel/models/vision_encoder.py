"""Frozen vision encoders: images in, one feature vector each out (paper section 3.1)."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from spacy_gemel.models.frozen import Loaded
from spacy_gemel.models.image_tower import (
    CONFIG,
    WEIGHTS,
    has_text_of_transformers,
    load_image_tower,
    read_config,
    save_image_tower,
)
from spacy_gemel.models.loading import dtype_argument, torch_dtype
from spacy_gemel.models.pooling import check_repeatable, image_vectors
from spacy_gemel.models.tokenizer import missing_model_message

if TYPE_CHECKING:
    from PIL.Image import Image

Features = NDArray[np.float32]

_BATCH = 32
# Only looked at where patches are masked, while such a model is pretrained.
_UNUSED = "mask_token"


class VisionEncoder(Loaded):
    """A frozen model that turns an image into a vector (paper section 3.1).

    preprocess: a PIL image -> a tensor (channels, height, width).
    forward: a batch of those -> features (images, d_v).
    """

    def __init__(
        self,
        model: torch.nn.Module,
        preprocess: Callable[["Image"], torch.Tensor],
        forward: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        self.preprocess = preprocess
        self.forward = forward
        self.width: int = self.encode([_blank_image()]).shape[1]
        # Digest of the weights, features of a picture, tolerance: kept by vision/identity.py once it was asked.
        self.identity: tuple[str, list[float], float] | None = None

    def encode(self, images: Sequence["Image"]) -> Features:
        """The features of some RGB images, (images, d_v), in fp32."""
        rows = [
            self.encode_pixels([self.preprocess(image) for image in images[start : start + _BATCH]])
            for start in range(0, len(images), _BATCH)
        ]
        return np.concatenate(rows) if rows else np.zeros((0, self.width), dtype=np.float32)

    def encode_pixels(self, pixels: Sequence[torch.Tensor]) -> Features:
        """The features of one batch of images as `preprocess` gives them, (images, d_v), in fp32; at least one."""
        parameter = next(self.model.parameters())
        with torch.no_grad():
            features = self.forward(torch.stack(list(pixels)).to(parameter.device, parameter.dtype))
        rows: Features = features.float().cpu().numpy()
        return rows


def load_open_clip(
    name: str, pretrained: str | None, *, projection: bool, device: str, dtype: str | None
) -> VisionEncoder:
    """A CLIP (Radford et al. 2021) of open_clip by name and tag, or a local folder with its config and weights.

    projection: give CLIP's joint embedding instead of the pooled hidden state before it (the paper's).
    Raises ValueError if the model cannot be loaded, if its activation is not the one of its weights, or if it has no
    such hidden state (see `towers.tower_forward`).
    """
    from spacy_gemel.models.open_clip import tower_forward

    is_folder = Path(name).is_dir()
    if not is_folder:
        _check_activation(name, pretrained)
    elif not any(Path(name).glob("*.safetensors")):
        raise ValueError(f"The vision encoder {name!r} has no weights in safetensors; others are not read.")
    try:
        visual, preprocess = _folder_of_open_clip(Path(name)) if is_folder else _named_by_open_clip(name, pretrained)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(missing_model_message("vision encoder", name, error)) from error
    # Only now to the device, where the text tower has no business.
    visual = visual.to(device=device, dtype=torch_dtype(dtype)).requires_grad_(False)
    return VisionEncoder(visual, preprocess, tower_forward(visual, name, projection=projection))


def _folder_of_open_clip(folder: Path) -> tuple[Any, Any]:
    """Image tower and preprocessing of a folder, on the CPU, without asking any hub."""
    config = read_config(folder)
    if has_text_of_transformers(config):
        return load_image_tower(folder, config)
    return _named_by_open_clip(f"local-dir:{folder}", None)


def _named_by_open_clip(name: str, pretrained: str | None) -> tuple[Any, Any]:
    """Image tower and preprocessing as open_clip makes them, on the CPU."""
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(name, pretrained=pretrained, device="cpu")
    return model.visual, preprocess


def _check_activation(name: str, pretrained: str | None) -> None:
    """Refuse weights that were trained with another GELU than the model would run them with.

    Their features would be others, and open_clip only warns, after it has downloaded them.
    """
    import open_clip

    config, weights = open_clip.get_model_config(name), open_clip.get_pretrained_cfg(name, pretrained or "")
    if not config or not weights:
        return  # open_clip says what is not there
    needs, has = weights.get("quick_gelu", False), config.get("quick_gelu", False)
    if needs != has:
        fitting = name.removesuffix("-quickgelu") + ("-quickgelu" if needs else "")
        raise ValueError(
            f"vision_encoder: the weights {pretrained!r} of {name!r} were trained with "
            f"{'QuickGELU' if needs else 'plain GELU'}, which this model is not built with: "
            f"set name = {fitting!r}."
        )


def bundle_open_clip(name: str, folder: Path, *, pretrained: str | None, projection: bool, dtype: str | None) -> None:
    """Write a model that open_clip knows by name as a folder that `load_open_clip` reads.

    Of a model whose text tower is one of transformers the image tower alone is written.
    """
    import json

    import open_clip
    from safetensors.torch import save_model

    model = open_clip.create_model(name, pretrained=pretrained)
    config = {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": open_clip.get_model_preprocess_cfg(model),
    }
    if has_text_of_transformers(config):
        save_image_tower(model, config, folder)
        return
    save_model(model, str(folder / WEIGHTS))
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf8")


def load_hugging_face_vision(name: str, *, revision: str | None, device: str, dtype: str | None) -> VisionEncoder:
    """Any vision encoder of transformers (ViT, BEiT, ResNet, ConvNeXt, Swin, DINOv2), also that of a CLIP or SigLIP.

    The feature is its pooled output; its CLS token's state where it has no pooling or where the files have no weights
    for it: transformers would fill those in at random, anew each time; the mean over its patches where there is no CLS
    token either (see `pooling.image_vectors`).
    Raises ValueError if it cannot be loaded, if other weights are missing, if it pools in no such way, if it takes more
    than pixels, or if its features of one picture differ from time to time.
    """
    import transformers

    options: dict[str, Any] = {dtype_argument(transformers.__version__): torch_dtype(dtype)}
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name, revision=revision)
        model, message = transformers.AutoModel.from_pretrained(
            name, revision=revision, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(missing_model_message("vision encoder", name, error)) from error
    model = _image_part(model, name, message["missing_keys"]).to(device)

    def preprocess(image: "Image") -> torch.Tensor:
        pixels: torch.Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        return image_vectors(model, pixels, name)

    encoder = VisionEncoder(model, preprocess, forward)
    check_repeatable(encoder, name)
    return encoder


def _image_part(model: Any, name: str, missing: Iterable[str]) -> Any:
    """The part that reads images, less a pooling layer that has no weights.

    missing: the weights that the model's files lack. Raises ValueError where the features would depend on them, and
    for a model that reads no images.
    """
    lacking = sorted(missing)
    if hasattr(model, "vision_model"):  # of a whole CLIP or SigLIP, or a tower of theirs
        model = model.vision_model
        if any("vision_model." in key for key in lacking):
            lacking = [key.partition("vision_model.")[2] for key in lacking if "vision_model." in key]
        else:
            lacking = []
    elif model.main_input_name != "pixel_values":
        raise ValueError(f"vision_encoder: {name!r} is a {type(model).__name__}, which reads no images.")
    if any(key.startswith("pooler.") for key in lacking):
        model.pooler = None  # and out of what identifies the weights
    lacking = [key for key in lacking if not key.startswith("pooler.") and not key.endswith(_UNUSED)]
    if lacking:
        raise ValueError(
            f"The vision encoder {name!r} lacks {len(lacking)} of its weights ({lacking[0]} first), which would be "
            "random: give a folder or a name that holds all of them."
        )
    return model


def _blank_image() -> "Image":
    from PIL import Image

    return Image.new("RGB", (64, 64))
