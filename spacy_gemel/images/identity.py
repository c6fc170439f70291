"""What tells one vision encoder from another: its weights, and what it makes of a fixed picture."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from spacy_gemel.images.feature_store import EncoderFingerprint
from spacy_gemel.models.vision_encoder import VisionEncoder

# Machines round differently, and convolutions on a GPU may run in TF32; other pixels make far larger differences.
_TOLERANCE = 5e-3
_TOLERANCE_OF_HALVES = 5e-2


def identify(encoder: VisionEncoder, name: str, settings: Sequence[tuple[str, Any]] = ()) -> EncoderFingerprint:
    """The identity of a loaded encoder; the first call reads all of its weights.

    name, settings: as its config names it.
    """
    known = encoder.identity
    if known is None:
        dtypes = {str(tensor.dtype) for tensor in encoder.model.parameters()}
        known = (
            _digest_of_weights(encoder.model),
            encoder.encode([_probe()])[0].tolist(),
            _TOLERANCE if dtypes == {"torch.float32"} else _TOLERANCE_OF_HALVES,
        )
        encoder.identity = known
    weights, probe, tolerance = known
    return EncoderFingerprint(name, dict(settings), encoder.width, weights, probe, tolerance)


def _digest_of_weights(model: torch.nn.Module) -> str:
    """The same for the same numbers, whatever a library's version calls the tensors that hold them."""
    digests = []
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            digest = hashlib.blake2b(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), digest_size=16)
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
            digests.append(digest.hexdigest())
    return hashlib.blake2b("".join(sorted(digests)).encode(), digest_size=16).hexdigest()


def _probe() -> Any:
    """A picture of fine and coarse patterns, neither square nor small: crops and resizing show in its features."""
    from PIL import Image

    y, x, channel = np.indices((173, 251, 3))
    return Image.fromarray(((x * 7 + y * 13 + x * y // 31 + channel * 85) % 256).astype(np.uint8))
