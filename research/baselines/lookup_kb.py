"""spaCy's InMemoryLookupKB with what our knowledge base and the training data hold."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from spacy.kb import InMemoryLookupKB
from spacy.vocab import Vocab

from spacy_gemel.evaluation.baselines import TrainingMentions

if TYPE_CHECKING:
    from spacy_gemel.kb.entity import Entity


def alias_priors(entities: "list[Entity]", training: TrainingMentions) -> dict[str, dict[int, float]]:
    """{string: {row: prior probability}} for all names, aliases and training mentions, as they are written.

    A string counts its training mentions, and one more that all entities bearing it as name or alias share by 1 + their
    count: what no training mention decides, the counts do, and what the data have shown once outweighs them.
    """
    weights: dict[str, dict[int, float]] = {}
    for row, entity in enumerate(entities):
        for surface in dict.fromkeys((entity.name, *entity.aliases)):
            if surface:
                weights.setdefault(surface, {})[row] = 1.0 + entity.count
    for of_rows in weights.values():
        total = sum(of_rows.values())
        for row in of_rows:
            of_rows[row] /= total
    for mention, times in training.rows.items():
        of_rows = weights.setdefault(mention, {})
        for row, number in times.items():
            of_rows[row] = of_rows.get(row, 0.0) + number
    for of_rows in weights.values():
        total = sum(of_rows.values())
        for row in of_rows:
            of_rows[row] /= total
    return weights


def make_lookup_kb(
    vocab: Vocab, entities: "list[Entity]", vectors: NDArray[np.float32], training: TrainingMentions
) -> InMemoryLookupKB:
    """The knowledge base for spaCy: all entities, as each can be called by its name at least.

    vectors: (entities, width). An entity's frequency is its count and its training mentions.
    """
    kb = InMemoryLookupKB(vocab, entity_vector_length=vectors.shape[1])
    frequencies = [float(entity.count) for entity in entities]
    for times in training.rows.values():
        for row, number in times.items():
            frequencies[row] += number
    ids = [entity.kb_id for entity in entities]
    kb.set_entities(ids, frequencies, vectors.tolist())
    for alias, of_rows in alias_priors(entities, training).items():
        kb.add_alias(alias, [ids[row] for row in of_rows], list(of_rows.values()))
    return kb
