"""spaCy's own entity_linker, trained on the same examples with the same knowledge base; nothing of it is saved."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from tqdm import tqdm

from research.baselines.entity_vectors import normalised, projected_vectors, text_of
from research.baselines.lookup_kb import make_lookup_kb
from research.baselines.options import LinkerOptions
from spacy_gemel.data.reader import make_example
from spacy_gemel.evaluation.baselines import TrainingMentions
from spacy_gemel.kb.resolve import resolve_gold

if TYPE_CHECKING:
    from spacy_gemel.kb.entity import Entity
    from spacy_gemel.kb.knowledge_base import KnowledgeBase

__all__ = ["LinkerOptions", "SpacyLinker", "entities_with_vectors", "train_linker"]

NAME = "entity_linker"
_READ_AT_ONCE = 64


@dataclass(slots=True)
class SpacyLinker:
    """A trained entity_linker behind a sentencizer. epoch: the one that it is of; dev: accuracy on dev by epoch."""

    nlp: Language
    options: LinkerOptions
    epoch: int = 0
    dev: list[float] = field(default_factory=list)

    @property
    def vector_length(self) -> int:
        """Of the entities' vectors."""
        pipe: Any = self.nlp.get_pipe(NAME)
        return int(pipe.kb.entity_vector_length)

    def link(self, docs: Sequence[Doc]) -> Iterator[Doc]:
        """The docs with ids on their entities. spaCy shuffles candidates that score alike: the seed decides."""
        with seeded(self.options.seed):
            yield from self.nlp.pipe(docs, batch_size=_READ_AT_ONCE)

    @contextmanager
    def without_context(self) -> Iterator[None]:
        """In a with block it goes by the priors alone."""
        pipe: Any = self.nlp.get_pipe(NAME)
        pipe.incl_context = False
        try:
            yield
        finally:
            pipe.incl_context = True

    def known(self, mention: str) -> frozenset[str]:
        """The ids of its candidates for a mention."""
        pipe: Any = self.nlp.get_pipe(NAME)
        return frozenset(candidate.entity_ for candidate in pipe.kb.get_alias_candidates(mention))


def train_linker(
    nlp: Language,
    kb: "KnowledgeBase",
    training: TrainingMentions,
    train: Sequence[Doc],
    dev: Sequence[Doc] | None,
    options: LinkerOptions,
    known: "tuple[list[Entity], NDArray[np.float32]] | None" = None,
) -> SpacyLinker:
    """Train on the mentions of `train` whose gold is in the knowledge base.

    nlp: a blank pipeline, which gets the pipes. training: what `training_mentions` says of `train`. dev: docs to choose
    the epoch on, None for all epochs. known: all entities and their vectors, (entities, width), as
    `entities_with_vectors` gives them, if they are there already.
    Raises ValueError where one of them has nothing to learn from.
    """
    examples = [example for doc in train if (example := _example(nlp, kb, doc)) is not None]
    chosen_on = [example for doc in dev or () if (example := _example(nlp, kb, doc)) is not None]
    for what, some in (("training", examples), ("dev", chosen_on)):
        if not some and (what == "training" or dev is not None):
            raise ValueError(f"not one mention of the {what} data has a gold that the knowledge base holds")
    with seeded(options.seed):
        sentencizer = nlp.add_pipe("sentencizer")
        entities, vectors = known or entities_with_vectors(kb, options)
        config: dict[str, Any] = {
            "entity_vector_length": vectors.shape[1],
            "incl_prior": True,
            "incl_context": True,
            "use_gold_ents": False,
        }
        pipe: Any = nlp.add_pipe(NAME, config=config)
        lookup = make_lookup_kb(nlp.vocab, entities, vectors, training)
        del entities, vectors
        pipe.set_kb(lambda vocab: lookup)
        for example in (*examples, *chosen_on):
            # spaCy's linker reads the sentence of a mention, and nlp.update asks no other pipe for it
            example.predicted = sentencizer(example.predicted)
        linker = SpacyLinker(nlp, options)
        _fit(linker, pipe, examples, chosen_on)
    return linker


def _fit(linker: SpacyLinker, pipe: Any, examples: list[Example], dev: list[Example]) -> None:
    nlp, options = linker.nlp, linker.options
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = options.learn_rate
    order = random.Random(options.seed)
    best = pipe.model.to_bytes() if dev else b""
    best_accuracy = -1.0
    with tqdm(total=options.epochs * len(examples), desc="train", unit=" docs", disable=not options.progress) as bar:
        for epoch in range(1, options.epochs + 1):
            order.shuffle(examples)
            losses: dict[str, float] = {}
            for start in range(0, len(examples), options.batch_size):
                batch = examples[start : start + options.batch_size]
                nlp.update(batch, sgd=optimizer, losses=losses, drop=options.dropout)
                bar.update(len(batch))
            linker.epoch = epoch
            if not dev:
                bar.set_postfix(loss=f"{losses[NAME]:.1f}")
                continue
            linker.dev.append(_accuracy(linker, dev))
            bar.set_postfix(loss=f"{losses[NAME]:.1f}", dev=f"{linker.dev[-1]:.3f}")
            if linker.dev[-1] > best_accuracy:
                best, best_accuracy = pipe.model.to_bytes(), linker.dev[-1]
            elif linker.dev.index(best_accuracy) + 1 + options.patience <= epoch:
                break
    if dev:
        linker.epoch = linker.dev.index(best_accuracy) + 1
        pipe.model.from_bytes(best)


def _accuracy(linker: SpacyLinker, examples: Sequence[Example]) -> float:
    right = total = 0
    for example, doc in zip(examples, linker.link([eg.predicted.copy() for eg in examples]), strict=True):
        for gold, ent in zip(example.reference.ents, doc.ents, strict=True):
            total += 1
            right += gold.kb_id_ == ent.kb_id_
    return right / total if total else 0.0


def _example(nlp: Language, kb: "KnowledgeBase", doc: Doc) -> Example | None:
    """The mentions of a doc that can be learned from, with the knowledge base's ids; None where there are none.

    A gold that the knowledge base does not hold would be learned as a vector of zeros.
    """
    golds = [(ent, row) for ent in doc.ents if (row := resolve_gold(kb, ent.kb_id_)) is not None]
    if not golds:
        return None
    reference = doc.copy()
    reference.set_ents(
        [Span(reference, ent.start, ent.end, ent.label_, kb_id=kb.entity(row).kb_id) for ent, row in golds]
    )
    return make_example(nlp, reference, gold_ents=True)


def entities_with_vectors(kb: "KnowledgeBase", options: LinkerOptions) -> "tuple[list[Entity], NDArray[np.float32]]":
    """All entities, and their vectors, (entities, width), as `entity_vectors` makes them."""
    entities = [kb.entity(row) for row in tqdm(range(len(kb)), "entities", disable=not options.progress)]
    return entities, entity_vectors(entities, options)


def entity_vectors(entities: "Sequence[Entity]", options: LinkerOptions) -> NDArray[np.float32]:
    """Unit vectors (entities, width) of what is written about the entities. Raises ValueError for the encoder."""
    texts = [text_of(entity) for entity in entities]
    if options.encoder is None:
        return projected_vectors(texts, options.vector_length)
    from spacy_gemel.models.sentence_encoder import load_sentence_encoder

    encode = load_sentence_encoder(options.encoder, device="cpu")
    starts = range(0, len(texts), 1024)
    bar = tqdm(starts, "encode descriptions", unit=" x 1024", disable=not options.progress)
    return normalised(np.concatenate([encode(texts[start : start + 1024]) for start in bar]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's and NumPy's global generators, which spaCy and thinc use, from a seed; as they were afterwards."""
    # thinc's initialisers and dropout know no other generator
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
