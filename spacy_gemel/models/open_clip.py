"""Where the image towers of open_clip keep the pooled hidden state, the feature before CLIP's projection."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]

# Tried in tests/models/test_open_clip.py on every model that open_clip lists.
_KINDS = "ViT, CoCa, ModifiedResNet, SigLIP, ConvNeXt, EVA and other timm towers"


def tower_forward(visual: Any, name: str, *, projection: bool) -> Forward:
    """The function that turns pixels (images, channels, height, width) into features (images, d_v).

    visual: an image tower of open_clip; the projection is taken out of a ViT and a ModifiedResNet where it is not used.
    projection: give CLIP's joint embedding, not the hidden state before it. A SigLIP has no projection: its pooled
        state is the embedding, with either setting.
    Raises ValueError, naming the setting that works, where the tower has no such state.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if projection:
        return _vectors(visual, name)
    if isinstance(visual, VisionTransformer):
        visual.proj = None
        return _vectors(visual, name)
    if isinstance(visual, ModifiedResNet):
        visual.attnpool.c_proj = _same(visual.attnpool.c_proj)
        return _vectors(visual, name)
    if isinstance(visual, TimmModel):
        return _vectors(_before_timm_projection(visual, name), name)
    raise ValueError(
        f"vision_encoder: {name!r} has an image tower of the class {type(visual).__name__}, of which the hidden state "
        f"before the projection is not known (it is of {_KINDS}): set projection = true."
    )


def _same(projection: nn.Linear) -> nn.Linear:
    """A projection that changes nothing: the pooling of a ModifiedResNet reads the weights of its last layer itself."""
    width = projection.in_features
    device, dtype = projection.weight.device, projection.weight.dtype
    same = nn.Linear(width, width, device=device, dtype=dtype).requires_grad_(False)
    same.weight.copy_(torch.eye(width, device=device, dtype=dtype))
    same.bias.zero_()
    return same


def _before_timm_projection(visual: Any, name: str) -> Callable[[Tensor], Any]:
    trunk, head = visual.trunk, visual.head
    layers = dict(head.named_children())
    if not layers:
        # The trunk's own classifier is the projection, or there is none (SigLIP): pre_logits is the state before it.
        return lambda pixels: trunk.forward_head(trunk.forward_features(pixels), pre_logits=True)
    if "proj" not in layers and "mlp" not in layers:
        raise ValueError(
            f"vision_encoder: the attention pooling of {name!r} is its projection as well, so there is no hidden state "
            "before it to take: set projection = true."
        )
    pool = layers.get("pool")
    return trunk if pool is None else lambda pixels: pool(trunk(pixels))


def _vectors(forward: Callable[[Tensor], Any], name: str) -> Forward:
    """The same, with the first of several outputs (CoCa gives its tokens too), and one vector an image or an error."""

    def vectors(pixels: Tensor) -> Tensor:
        output = forward(pixels)
        features: Tensor = output[0] if isinstance(output, (tuple, list)) else output
        if features.ndim == 3 and features.shape[1] == 1:
            features = features[:, 0]  # an attention pooling with one query
        if features.ndim != 2:
            raise ValueError(
                f"vision_encoder: {name!r} gives features of shape {tuple(features.shape[1:])} for an image, not one "
                "vector: its pooling is switched off. Use another model."
            )
        return features

    return vectors
