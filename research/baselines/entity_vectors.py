"""Vectors of entities from what is written about them: spaCy's entity_linker learns to point a sentence at them.

spaCy's tutorial takes the word vectors of a pretrained pipeline. Where no encoder is given, a word's vector here is
random, and an entity's the sum of its words' vectors by tf-idf: a random projection, which keeps the cosines of the
word counts (Johnson and Lindenstrauss 1984; Bingham and Mannila 2001).
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from spacy_gemel.kb.entity import Entity

SEED = 0
_WORD = re.compile(r"\w+")
_AT_ONCE = 4096


def text_of(entity: "Entity") -> str:
    """What a vector is made of: the description, or the name where there is none."""
    description = (entity.description or "").strip()
    return description or entity.name


def projected_vectors(texts: Sequence[str], width: int, *, seed: int = SEED) -> NDArray[np.float32]:
    """Unit vectors (texts, width) by random projection (Johnson and Lindenstrauss 1984).

    They are the same for the same texts and seed. Raises ValueError for a width below 1.
    """
    if width < 1:
        raise ValueError(f"the entity vectors' length is {width}: it must be 1 or more")
    vocabulary: dict[str, int] = {}
    words: list[list[int]] = []
    for text in texts:
        # a text of symbols alone is a word of its own: a vector of zeros has no direction
        found = _WORD.findall(text.casefold()) or [text]
        words.append([vocabulary.setdefault(word, len(vocabulary)) for word in found])
    occurs = np.zeros(len(vocabulary))
    for row in words:
        occurs[list(set(row))] += 1
    weights = (np.log((1 + len(texts)) / (1 + occurs)) + 1).astype(np.float32)  # (words,), never 0
    directions = np.random.default_rng(seed).standard_normal((len(vocabulary), width), dtype=np.float32)
    directions *= weights[:, None]
    vectors = np.empty((len(texts), width), dtype=np.float32)
    for start in range(0, len(texts), _AT_ONCE):
        some = words[start : start + _AT_ONCE]
        flat = np.concatenate([np.array(row) for row in some])
        starts = np.cumsum([0, *(len(row) for row in some[:-1])])
        vectors[start : start + len(some)] = np.add.reduceat(directions[flat], starts, axis=0)
    return normalised(vectors)


def normalised(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1, (rows, width); one of zeros gets the first direction, since spaCy divides by the length."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
    unit[lengths[:, 0] == 0, 0] = 1
    return unit
