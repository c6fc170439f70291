"""The mapper: one linear layer from an image's features to soft tokens, the only thing that is trained."""

from thinc.api import Linear, Model
from thinc.types import Floats2d


def linear_mapper(prefix_length: int) -> Model[Floats2d, Floats2d]:
    """W f + b from (images, d_v) to (images, prefix_length x d_t) (paper eq. 1).

    prefix_length: soft tokens per image, k in the paper (4 there, searched over 1, 2, 4, 8).
    The sizes are set when the frozen models are known. thinc's own layer, not a wrapped torch one: it is
    saved without pickle and takes its shape from what is loaded. Raises ValueError for a prefix_length below 1.
    """
    if prefix_length < 1:
        raise ValueError(f"prefix_length must be at least 1, not {prefix_length}.")
    model: Model[Floats2d, Floats2d] = Linear()
    model.attrs["prefix_length"] = prefix_length
    return model


def init_to_embedding_scale(model: Model[Floats2d, Floats2d], features: Floats2d, size: float) -> None:
    """Scale the initial weights so that soft tokens are as large as the language model's word embeddings.

    features: some images', (images, d_v). size: root mean square of the embeddings' elements.
    Frozen layers take inputs of the size they were trained on, and a prefix that starts many times larger is
    turned only slowly. On the mini world single trials on dev data leaned this way, within their noise.
    """
    outputs = model.predict(features)  # (images, k x d_t)
    now = float(model.ops.xp.sqrt((outputs**2).mean())) if len(features) else 0.0
    if now > 0:
        model.set_param("W", model.get_param("W") * (size / now))
