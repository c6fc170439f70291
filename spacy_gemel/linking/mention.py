"""A mention: what the linker works on, apart from any Doc."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Mention:
    """A span to be linked.

    Args:
        doc: index of its doc in the batch.
        start: index of its first token.
        end: index behind its last token.
        mention: its words.
        text: the context that the language model reads.
        features: features of the doc's image, (d_v,), or None.
        gold: the gold id, if it is known.
        vector: the vector that the pipeline's transformer gave it, (width,), if the retriever uses it and there is one.
    """

    doc: int
    start: int
    end: int
    mention: str
    text: str
    features: NDArray[np.float32] | None
    gold: str = ""
    vector: NDArray[np.float32] | None = None
