"""spaCy's own entity_linker, trained on the same examples with the same knowledge base; nothing of it is saved."""

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.kb import InMemoryLookupKB
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.vocab import Vocab
from tqdm import tqdm

from spacy_gemel.data.reader import make_example
from spacy_gemel.evaluation.baselines import TrainingMentions
from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import resolve_gold

Vectors = NDArray[np.float32]
NAME = "entity_linker"
_BATCH = 64
_WORD = re.compile(r"\w+")
_TEXTS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class LinkerOptions:
    """How spaCy's linker is trained.

    Attributes:
        epochs: Passes over the training docs; with dev docs at most so many, and the best is kept.
        seed: Of its weights and the order of docs.
        vector_length: Of the entities' vectors, if there is no encoder.
        encoder: A sentence encoder, by name or folder, of the descriptions.
        batch_size: Docs per update.
        dropout: In training.
        learn_rate: Of Adam.
        patience: Epochs without a better one on dev before it stops.
        progress: Whether to show progress bars.
    """

    epochs: int = 10
    seed: int = 0
    vector_length: int = 300
    encoder: str | None = None
    batch_size: int = 32
    dropout: float = 0.2
    learn_rate: float = 0.001
    patience: int = 3
    progress: bool = True


@dataclass(slots=True)
class SpacyLinker:
    """A trained entity_linker behind a sentencizer. epoch: whose weights it has. dev: accuracy on dev by epoch."""

    nlp: Language
    options: LinkerOptions
    epoch: int = 0
    dev: list[float] = field(default_factory=list)

    @property
    def pipe(self) -> Any:
        """The entity_linker itself."""
        return self.nlp.get_pipe(NAME)

    def link(self, docs: Sequence[Doc]) -> Iterator[Doc]:
        """The docs with ids on their entities. spaCy shuffles candidates with equal scores: the seed decides."""
        with seeded(self.options.seed):
            yield from self.nlp.pipe(docs, batch_size=_BATCH)

    @contextmanager
    def without_context(self) -> Iterator[None]:
        """In a with block it uses the priors alone."""
        self.pipe.incl_context = False
        try:
            yield
        finally:
            self.pipe.incl_context = True

    def candidates(self, mention: str) -> frozenset[str]:
        """The ids of its candidates for a mention."""
        return frozenset(candidate.entity_ for candidate in self.pipe.kb.get_alias_candidates(mention))


def train_linker(
    nlp: Language,
    kb: KnowledgeBase,
    training: TrainingMentions,
    train: Sequence[Doc],
    dev: Sequence[Doc] | None,
    options: LinkerOptions,
    entities: tuple[list[Entity], Vectors] | None = None,
) -> SpacyLinker:
    """Train on the mentions of `train` whose gold is in the knowledge base.

    Args:
        nlp: A blank pipeline, which gets the pipes.
        kb: Where entities and golds are looked up.
        training: The counts of `training_mentions` over `train`.
        train: Docs with gold entities.
        dev: Docs to choose the epoch on; None to train all epochs.
        options: How to train.
        entities: All entities and their vectors (entities, width), if they are there already.

    Raises:
        ValueError: If the training or dev docs have no mention to learn from.
    """
    examples = [example for doc in train if (example := _example(nlp, kb, doc)) is not None]
    dev_examples = [example for doc in dev or () if (example := _example(nlp, kb, doc)) is not None]
    for what, missing in (("training", not examples), ("dev", dev is not None and not dev_examples)):
        if missing:
            raise ValueError(f"not one mention of the {what} data has a gold that the knowledge base holds")
    with seeded(options.seed):
        sentencizer = nlp.add_pipe("sentencizer")
        rows, vectors = entities or entities_with_vectors(kb, options)
        config: dict[str, Any] = {
            "entity_vector_length": vectors.shape[1],
            "incl_prior": True,
            "incl_context": True,
            "use_gold_ents": False,
        }
        pipe: Any = nlp.add_pipe(NAME, config=config)
        lookup = make_lookup_kb(nlp.vocab, rows, vectors, training)
        del rows, vectors
        pipe.set_kb(lambda vocab: lookup)
        for example in (*examples, *dev_examples):
            # spaCy's linker reads the sentence of a mention, and nlp.update does not run other pipes
            example.predicted = sentencizer(example.predicted)
        linker = SpacyLinker(nlp, options)
        _fit(linker, examples, dev_examples)
    return linker


def _fit(linker: SpacyLinker, examples: list[Example], dev: list[Example]) -> None:
    nlp, options, model = linker.nlp, linker.options, linker.pipe.model
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = options.learn_rate
    order = random.Random(options.seed)
    best = model.to_bytes() if dev else b""
    best_accuracy = -1.0
    with tqdm(total=options.epochs * len(examples), desc="train", unit=" docs", disable=not options.progress) as bar:
        for epoch in range(1, options.epochs + 1):
            order.shuffle(examples)
            losses: dict[str, float] = {}
            for start in range(0, len(examples), options.batch_size):
                batch = examples[start : start + options.batch_size]
                nlp.update(batch, sgd=optimizer, losses=losses, drop=options.dropout)
                bar.update(len(batch))
            bar.set_postfix(loss=f"{losses[NAME]:.1f}")
            linker.epoch = epoch
            if not dev:
                continue
            linker.dev.append(_accuracy(linker, dev))
            if linker.dev[-1] > best_accuracy:
                best, best_accuracy = model.to_bytes(), linker.dev[-1]
            elif linker.dev.index(best_accuracy) + 1 + options.patience <= epoch:
                break
    if dev:
        linker.epoch = linker.dev.index(best_accuracy) + 1
        model.from_bytes(best)


def _accuracy(linker: SpacyLinker, examples: Sequence[Example]) -> float:
    docs = linker.link([example.predicted.copy() for example in examples])
    correct = [
        gold.kb_id_ == ent.kb_id_
        for example, doc in zip(examples, docs, strict=True)
        for gold, ent in zip(example.reference.ents, doc.ents, strict=True)
    ]
    return sum(correct) / len(correct) if correct else 0.0


def _example(nlp: Language, kb: KnowledgeBase, doc: Doc) -> Example | None:
    """The mentions of a doc that can be learned from; None if there are none.

    A gold that the knowledge base does not have would be learned as a vector of zeros.
    """
    resolved = [(ent, row) for ent in doc.ents if (row := resolve_gold(kb, ent.kb_id_)) is not None]
    if not resolved:
        return None
    reference = doc.copy()
    reference.set_ents(
        [Span(reference, ent.start, ent.end, ent.label_, kb_id=kb.entity(row).kb_id) for ent, row in resolved]
    )
    return make_example(nlp, reference, gold_ents=True)


def alias_priors(entities: Sequence[Entity], training: TrainingMentions) -> dict[str, dict[int, float]]:
    """{string: {row: prior probability}} for all names, aliases and training mentions, as written.

    A string has the weight of its training mentions, plus 1 that all entities with it as name or alias share by
    1 + their count: counts decide what no training mention decides.
    """
    weights: dict[str, dict[int, float]] = {}
    for row, entity in enumerate(entities):
        for surface in dict.fromkeys((entity.name, *entity.aliases)):
            if surface:
                weights.setdefault(surface, {})[row] = 1.0 + entity.count
    weights = {surface: _normalised(rows) for surface, rows in weights.items()}
    for mention, counts in training.rows.items():
        rows = weights.setdefault(mention, {})
        for row, count in counts.items():
            rows[row] = rows.get(row, 0.0) + count
    return {surface: _normalised(rows) for surface, rows in weights.items()}


def _normalised(weights: dict[int, float]) -> dict[int, float]:
    total = sum(weights.values())
    return {row: weight / total for row, weight in weights.items()}


def make_lookup_kb(
    vocab: Vocab, entities: Sequence[Entity], vectors: Vectors, training: TrainingMentions
) -> InMemoryLookupKB:
    """Make spaCy's knowledge base of all entities. vectors: (entities, width).

    An entity's frequency is its count and its training mentions.
    """
    kb = InMemoryLookupKB(vocab, entity_vector_length=vectors.shape[1])
    frequencies = [float(entity.count) for entity in entities]
    for counts in training.rows.values():
        for row, count in counts.items():
            frequencies[row] += count
    ids = [entity.kb_id for entity in entities]
    kb.set_entities(ids, frequencies, vectors.tolist())
    for alias, rows in alias_priors(entities, training).items():
        kb.add_alias(alias, [ids[row] for row in rows], list(rows.values()))
    return kb


def entities_with_vectors(kb: KnowledgeBase, options: LinkerOptions) -> tuple[list[Entity], Vectors]:
    """All entities, and unit vectors (entities, width) of their descriptions, or of their names."""
    entities = [kb.entity(row) for row in tqdm(range(len(kb)), "entities", disable=not options.progress)]
    texts = [(entity.description or "").strip() or entity.name for entity in entities]
    if options.encoder is None:
        return entities, projected_vectors(texts, options.vector_length)
    from spacy_gemel.models.sentence_encoder import load_sentence_encoder

    encode = load_sentence_encoder(options.encoder, device="cpu")
    starts = range(0, len(texts), 1024)
    bar = tqdm(starts, "encode descriptions", unit=" x 1024", disable=not options.progress)
    return entities, unit_vectors(np.concatenate([encode(texts[start : start + 1024]) for start in bar]))


def projected_vectors(texts: Sequence[str], width: int, *, seed: int = 0) -> Vectors:
    """Unit vectors (texts, width) by random projection (Johnson and Lindenstrauss 1984; Bingham and Mannila 2001).

    A word's vector is random, a text's the sum of its words' vectors by tf-idf, which keeps the cosines of the word
    counts. spaCy's tutorial takes the word vectors of a pretrained pipeline instead.
    """
    if width < 1:
        raise ValueError(f"the entity vectors' length is {width}: it must be 1 or more")
    vocabulary: dict[str, int] = {}
    # a text of symbols is one word: a vector of zeros would have no direction
    words = [
        [vocabulary.setdefault(word, len(vocabulary)) for word in _WORD.findall(text.casefold()) or [text]]
        for text in texts
    ]
    frequency = np.zeros(len(vocabulary))
    for row in words:
        frequency[list(set(row))] += 1
    weights = (np.log((1 + len(texts)) / (1 + frequency)) + 1).astype(np.float32)  # (words,), never 0
    directions = np.random.default_rng(seed).standard_normal((len(vocabulary), width), dtype=np.float32)
    directions *= weights[:, None]
    vectors = np.empty((len(texts), width), dtype=np.float32)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        batch = words[start : start + _TEXTS_AT_ONCE]
        starts = np.cumsum([0, *(len(row) for row in batch[:-1])])
        flat = np.concatenate([np.array(row) for row in batch])
        vectors[start : start + len(batch)] = np.add.reduceat(directions[flat], starts, axis=0)
    return unit_vectors(vectors)


def unit_vectors(vectors: Vectors) -> Vectors:
    """Rows of length 1, (rows, width); a row of zeros gets the first direction, since spaCy divides by the length."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)
    unit[lengths[:, 0] == 0, 0] = 1
    return unit


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's and NumPy's global generators, which spaCy and thinc use, from a seed; restored afterwards."""
    # thinc's initialisers and dropout use no other generator
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
