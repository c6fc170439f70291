"""A mention: what the linker works on, apart from any Doc."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Mention:
    """A span to be linked, with the features of the image of its doc, (d_v,)."""

    doc: int  # index of its doc in the batch
    start: int  # index of its first token
    end: int  # index behind its last token
    mention: str
    text: str  # the context that the language model reads
    features: NDArray[np.float32] | None  # of the doc's image, (d_v,)
    gold: str = ""  # the gold id, if it is known
    vector: NDArray[np.float32] | None = None  # that the pipeline's transformer gave it, (width,), if it is used
    candidate_ids: tuple[str, ...] = ()  # all that it may mean; without any, every entity
