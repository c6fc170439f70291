"""Frozen vision encoders: images in, one feature vector each out (paper section 3.1); those of transformers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spacy_gemel.models.frozen import (
    NO_REMOTE_CODE,
    LoadedModel,
    check_weights,
    dtype_argument,
    loading,
    torch_dtype,
)

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 16  # larger ones outgrow a processor's caches
# What transformers calls the parameter that becomes the first row of hidden states.
_CLS_NAMES = ("cls_token", "class_embedding", "class_token")
# Relative to the features' norm: kernels may add in another order each time, other patches differ far more.
_TOLERANCE = 5e-3


@dataclass(frozen=True, slots=True)
class JointSpace:
    """The space in which a CLIP compares images and texts (Radford et al. 2021).

    Attributes:
        project: Features of images in fp32, (images, d_v), -> their embeddings, (images, width).
        encode_texts: Texts -> their embeddings, (texts, width), in fp32.
    """

    project: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    encode_texts: Callable[[Sequence[str]], NDArray[np.float32]]


class VisionEncoder(LoadedModel):
    """A frozen model that turns an image into a vector (paper section 3.1) of `width` numbers, d_v.

    `preprocess` turns a PIL image into a tensor (channels, height, width), `forward` a batch of these into features.
    `joint` is None unless it is a CLIP that was loaded with its text tower.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: Callable[["Image"], Tensor],
        forward: Callable[[Tensor], Tensor],
        joint: JointSpace | None = None,
    ) -> None:
        from PIL import Image

        self.joint = joint
        self.model = model.requires_grad_(False).eval()
        self.preprocess = preprocess
        self.forward = forward
        self.width: int = self.encode([Image.new("RGB", (64, 64))]).shape[1]

    def encode(self, images: Sequence["Image"]) -> NDArray[np.float32]:
        """The features of RGB images, (images, d_v), in fp32."""
        batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        rows = [self.encode_pixels([self.preprocess(image) for image in batch]) for batch in batches]
        return np.concatenate(rows) if rows else np.zeros((0, self.width), dtype=np.float32)

    def encode_pixels(self, pixels: Sequence[Tensor]) -> NDArray[np.float32]:
        """The features of one batch, at least one image as `preprocess` returns it; (images, d_v), in fp32."""
        parameter = next(self.model.parameters())
        with torch.no_grad():
            # the channels last in memory: convolutions on a CPU run faster
            batch = torch.stack([image.movedim(0, -1) for image in pixels]).movedim(-1, 1)
            features = self.forward(batch.to(parameter.device, parameter.dtype))
        return cast(NDArray[np.float32], features.float().cpu().numpy())


def load_hugging_face_vision(name: str, *, revision: str | None, device: str, dtype: str | None) -> VisionEncoder:
    """Any vision encoder of transformers (ViT, BEiT, ResNet, ConvNeXt, Swin, DINOv2), also that of a CLIP or SigLIP.

    For its features see `image_vectors`. A pooling layer without weights in the files is dropped, since transformers
    would initialise it at random. Raises ValueError if the model cannot be loaded, lacks other weights, has no such
    features, needs more than pixels, or gives different features for the same picture.
    """
    import transformers
    from PIL import Image

    options: dict[str, Any] = {dtype_argument(transformers.__version__): torch_dtype(dtype), **NO_REMOTE_CODE}
    with loading("vision encoder", name):
        processor = transformers.AutoImageProcessor.from_pretrained(name, revision=revision, **NO_REMOTE_CODE)
        model, info = transformers.AutoModel.from_pretrained(
            name, revision=revision, use_safetensors=True, output_loading_info=True, **options
        )
    model = _image_tower(model, name, info["missing_keys"]).to(device)
    encoder = VisionEncoder(
        model,
        lambda image: cast(Tensor, processor(images=image, return_tensors="pt")["pixel_values"][0]),
        lambda pixels: image_vectors(model, pixels, name),
    )
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    first, second = (encoder.encode([Image.fromarray(noise)])[0] for _ in range(2))
    if np.linalg.norm(first - second) > _TOLERANCE * np.linalg.norm(first):
        raise ValueError(
            f"vision_encoder: {name!r} is a {type(model).__name__}, which gives different features for the same "
            "picture each time: it masks patches at random, as in pretraining. Set mask_ratio to 0 in its config.json "
            "if it has one, or use another model."
        )
    return encoder


def _image_tower(model: Any, name: str, missing_keys: Iterable[str]) -> Any:
    """The part that reads images, without a pooling layer that has no weights. Raises ValueError if there is none."""
    missing = sorted(missing_keys)
    if hasattr(model, "vision_model"):  # a whole CLIP or SigLIP, or a tower of one
        model = model.vision_model
        missing = [key.partition("vision_model.")[2] for key in missing if "vision_model." in key]
    elif model.main_input_name != "pixel_values":
        raise ValueError(f"vision_encoder: {name!r} is a {type(model).__name__}, which reads no images.")
    if any(key.startswith("pooler.") for key in missing):
        model.pooler = None  # not part of the encoder's fingerprint either
    # a mask token is only used in pretraining
    missing = [key for key in missing if not key.startswith("pooler.") and not key.endswith("mask_token")]
    check_weights(missing, "vision encoder", name)
    return model


def image_vectors(model: Any, pixels: Tensor, name: str) -> Tensor:
    """The features (images, d_v) of a vision model of transformers for pixels (images, channels, height, width).

    These are its pooled output; without one, the state of its CLS token; without either, the mean over the patches,
    if each hidden state belongs to a patch. Raises ValueError if there is none, or the model needs more than pixels.
    """
    try:
        output = model(pixel_values=pixels)
    except TypeError as error:
        kind = f"{name!r} is a {type(model).__name__}, which does not make features from pixels alone"
        raise ValueError(f"vision_encoder: {kind} ({error}). Use another model.") from error
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None:
        return cast(Tensor, pooled.flatten(1))  # ResNet pools to (images, d_v, 1, 1)
    states: Tensor | None = getattr(output, "last_hidden_state", None)
    if states is not None and states.ndim == 3:
        paths = (path.split(".") for path, _ in model.named_parameters())
        # Some only pool with a CLS token (AIMv2's head), and put none before the patches.
        if any(name in _CLS_NAMES and "embed" in ".".join(modules) for *modules, name in paths):
            return states[:, 0]
        if states.shape[1] == _count_patches(model, pixels):
            return states.mean(dim=1)
    missing = "no pooled output, no CLS token and no hidden state per patch, so there is no single vector for an image"
    raise ValueError(f"vision_encoder: {name!r} has {missing}. Use a model with a pooling layer or a CLS token.")


def _count_patches(model: Any, pixels: Tensor) -> int | None:
    """The number of patches in an image of this size; None if the config does not give their size."""
    size = getattr(model.config, "patch_size", None)
    if isinstance(size, (list, tuple)):
        size = size[0] if len(set(size)) == 1 else None
    if not isinstance(size, int) or pixels.ndim != 4:
        return None
    return (pixels.shape[-2] // size) * (pixels.shape[-1] // size)
