"""One vector for an image out of what a vision model of transformers gives; and whether it is always the same."""

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

if TYPE_CHECKING:
    from spacy_gemel.models.vision_encoder import VisionEncoder

# What transformers calls the parameter that becomes the first row of hidden states.
_CLS_NAMES = ("cls_token", "class_embedding", "class_token")
# Of the features' length: kernels may add in another order each time, other patches make far larger differences.
_TOLERANCE = 5e-3


def image_vectors(model: Any, pixels: Tensor, name: str) -> Tensor:
    """The features of some images, (images, d_v).

    They are the model's pooled output; without one the state of its CLS token; and the mean over the patches where
    there is no such token and every hidden state is a patch's.
    pixels: (images, channels, height, width). name: the model's, for messages.
    Raises ValueError for a model that wants more than pixels, or gives no such vector.
    """
    try:
        output = model(pixel_values=pixels)
    except TypeError as error:
        raise ValueError(
            f"vision_encoder: {name!r} is a {type(model).__name__}, which does not make features of pixels alone "
            f"({error}). Use another model."
        ) from error
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None:
        vectors: Tensor = pooled.flatten(1)  # ResNet pools to (images, d_v, 1, 1)
        return vectors
    states: Tensor | None = getattr(output, "last_hidden_state", None)
    if states is not None and states.ndim == 3:
        if _has_cls_token(model):
            return states[:, 0]
        if states.shape[1] == _patches(model, pixels):
            return states.mean(dim=1)
    raise ValueError(
        f"vision_encoder: {name!r} gives no pooled output, no CLS token's state and no row of its patches' states, so "
        "there is no one vector for an image. Use a model with a pooling layer or a CLS token."
    )


def check_repeatable(encoder: "VisionEncoder", name: str) -> None:
    """Raise ValueError where an encoder gives other features for a picture each time, as one that masks patches."""
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    first, second = (encoder.encode([Image.fromarray(noise)])[0] for _ in range(2))
    if np.linalg.norm(first - second) > _TOLERANCE * np.linalg.norm(first):
        raise ValueError(
            f"vision_encoder: {name!r} is a {type(encoder.model).__name__}, which gives other features for the same "
            "picture each time: parts of it are left out at random, as in pretraining. Set mask_ratio to 0 in its "
            "config.json if it has one, or use another model."
        )


def _has_cls_token(model: nn.Module) -> bool:
    """Whether the model puts a token of its own before the patches; others may only pool with one (AIMv2's head)."""
    for path, _ in model.named_parameters():
        *modules, parameter = path.split(".")
        if parameter in _CLS_NAMES and any("embed" in module for module in modules):
            return True
    return False


def _patches(model: Any, pixels: Tensor) -> int | None:
    """How many patches an image of this size has; None where the model's config does not tell."""
    size = getattr(model.config, "patch_size", None)
    if isinstance(size, (list, tuple)):
        size = size[0] if len(set(size)) == 1 else None
    if not isinstance(size, int) or pixels.ndim != 4:
        return None
    height, width = pixels.shape[-2:]
    return (height // size) * (width // size)
