"""The mapper: one linear layer from an image's features to soft tokens, the only part that is trained."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from thinc.api import Linear, Model
from thinc.types import Floats1d, Floats2d

FloatArray = NDArray[np.float32]

_RIDGE = 0.3  # relative to the number of mentions
_LEAST_DEVIATION = 1e-6


def linear_mapper(prefix_length: int) -> Model[Floats2d, Floats2d]:
    """W f + b from (images, d_v) to (images, prefix_length x d_t) (paper eq. 1).

    prefix_length is the number of soft tokens per image, k in the paper (4 there, searched over 1, 2, 4, 8). The sizes
    are set when the frozen models are known. It is thinc's own layer, not a wrapped torch one, so that it is saved
    without pickle. Raises ValueError if prefix_length is below 1.
    """
    if prefix_length < 1:
        raise ValueError(f"prefix_length must be at least 1, not {prefix_length}.")
    model: Model[Floats2d, Floats2d] = Linear()
    model.attrs["prefix_length"] = prefix_length
    return model


def init_to_embedding_scale(model: Model[Floats2d, Floats2d], features: Floats2d, size: float) -> None:
    """Scale the initial weights so that soft tokens are as large as the language model's word embeddings.

    Frozen layers expect inputs of the size they were trained on, and a prefix that starts many times larger changes
    its direction slowly. On the mini world, single trials on dev data pointed this way, within their noise.
    `size` is the root mean square of the embeddings' elements; `features` are those of some images, (images, d_v).
    """
    for key in ("mean", "deviation"):  # of an earlier alignment
        model.attrs.pop(key, None)
    outputs = model.predict(features)  # (images, k x d_t)
    current = float(model.ops.xp.sqrt((outputs**2).mean())) if len(features) else 0.0
    if current > 0:
        model.set_param("W", model.get_param("W") * (size / current))


def standardise_by(model: Model[Floats2d, Floats2d], features: FloatArray) -> FloatArray:
    """Let a mapper standardise features by the mean and deviation of these, (images, d_v). Returns the deviation.

    They are kept in the model's attrs, and so are saved with it.
    """
    model.attrs["mean"], model.attrs["deviation"] = features.mean(0), features.std(0) + _LEAST_DEVIATION
    return cast(FloatArray, model.attrs["deviation"])


def standardise(model: Model[Floats2d, Floats2d], features: FloatArray) -> FloatArray:
    """Features (images, d_v) as the mapper wants them."""
    return (features - model.attrs["mean"]) / model.attrs["deviation"] if "mean" in model.attrs else features


def fit_to_embeddings(model: Model[Floats2d, Floats2d], features: FloatArray, targets: FloatArray, size: float) -> None:
    """Start a mapper by ridge regression: each soft token is the mean embedding of the name, as far as it can be told.

    Args:
        model: The mapper, which standardises features already.
        features: (mentions, d_v), of the mentions' images.
        targets: (mentions, d_t), the mean embedding of each gold name's tokens.
        size: The root mean square of the language model's embeddings. What the image adds to the mean of the targets
            gets this size: frozen layers expect inputs of the size they were trained on.
    """
    x = standardise(model, features)
    centre = targets.mean(0)
    gram = x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1], dtype=np.float32)
    weights = np.linalg.solve(gram, x.T @ (targets - centre)).T  # (d_t, d_v)
    weights *= size / max(float(np.sqrt(np.square(x @ weights.T).mean())), 1e-12)
    k = model.attrs["prefix_length"]
    model.set_param("W", model.ops.asarray2f(cast(Floats2d, np.tile(weights, (k, 1)).astype(np.float32))))
    model.set_param("b", model.ops.asarray1f(cast(Floats1d, np.tile(centre, k).astype(np.float32))))


def check_mapper(name: str, value: Any) -> None:
    """Raise ValueError if the model of the pipe `name` is no mapper."""
    message = f"[components.{name}.model] must be a mapper, such as @architectures = spacy_gemel.LinearMapper.v1, not "
    if not isinstance(value, Model):
        raise ValueError(f"{message}{value!r}.")
    message += f"the model {value.name!r}, "
    if "prefix_length" not in value.attrs:
        raise ValueError(f"{message}whose attrs lack prefix_length, the soft tokens per image.")
    for dim, what in (("nI", "width of the image features"), ("nO", "numbers of its soft tokens")):
        if value.has_dim(dim) is False:
            raise ValueError(f"{message}which has no dimension {dim}, the {what}.")
