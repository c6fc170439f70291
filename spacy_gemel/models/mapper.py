"""The mapper: one linear layer from an image's features to soft tokens, the only part that is trained."""

from typing import Any

from thinc.api import Linear, Model
from thinc.types import Floats2d


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
    outputs = model.predict(features)  # (images, k x d_t)
    current = float(model.ops.xp.sqrt((outputs**2).mean())) if len(features) else 0.0
    if current > 0:
        model.set_param("W", model.get_param("W") * (size / current))


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
