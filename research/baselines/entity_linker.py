"""spaCy's entity_linker as a peer: its epoch chosen on dev docs or on training docs held out, and what bounds it."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import spacy
from spacy.tokens import Doc
from spacy.training import Example

from research.baselines.options import PeerOptions
from research.baselines.spacy_linker import SpacyLinker, entities_with_vectors, train_linker
from spacy_gemel.data.reader import make_example, read_docs
from spacy_gemel.evaluation.baselines import Baseline, Scorer, TrainingData, training_mentions
from spacy_gemel.evaluation.metrics import accuracy
from spacy_gemel.evaluation.results import scored


def make_entity_linker(data: TrainingData, options: PeerOptions) -> Baseline:
    """Train it. Raises ValueError where there is nothing to learn from, or to choose on."""
    given = options.linker
    dev = None if options.dev is None else list(read_docs(options.dev, data.nlp.vocab))
    known = entities_with_vectors(data.kb, given)
    held: Sequence[Doc] = ()
    chosen: list[float] = []
    if options.held_out:
        learn, held = hold_out(data.docs, options.held_out, given.seed)
        # the mentions held out must not be in the priors that the epoch is chosen with
        again = spacy.blank(options.lang, vocab=data.nlp.vocab)
        trial = train_linker(again, data.kb, training_mentions(learn, data.kb), learn, held, given, known)
        chosen, given = trial.dev, replace(given, epochs=trial.epoch)
    linker = train_linker(data.nlp, data.kb, data.mentions, data.docs, dev, given, known)
    settings = {
        "epochs": options.linker.epochs,
        "epoch": linker.epoch,
        "dev": None if options.dev is None else options.dev.as_posix(),
        "held_out": options.held_out,
        "held_out_docs": len(held),
        "dev_accuracy": chosen or linker.dev,
        "seed": given.seed,
        "vectors": given.encoder or "random projection of tf-idf",
        "vector_length": linker.vector_length,
        "batch_size": given.batch_size,
        "dropout": given.dropout,
        "learn_rate": given.learn_rate,
        "lang": options.lang,
    }
    return Baseline(linker.link, settings, lambda examples, scorer: _bounds(linker, examples, scorer))


def hold_out(docs: Sequence[Doc], share: float, seed: int) -> tuple[list[Doc], list[Doc]]:
    """(the others, those held out): a share of the texts by chance, at least one; docs of one text stay together.

    Raises ValueError where there are not two texts.
    """
    texts = list(dict.fromkeys(doc.text for doc in docs))
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} training text is too few to hold one out: give dev data")
    random.Random(seed).shuffle(texts)
    held = set(texts[: min(max(round(share * len(texts)), 1), len(texts) - 1)])
    return [doc for doc in docs if doc.text not in held], [doc for doc in docs if doc.text in held]


def _bounds(linker: SpacyLinker, examples: Sequence[Example], scorer: Scorer) -> dict[str, Any]:
    """prior_alone: its accuracy without the context. gold_among_candidates: what it cannot exceed."""
    again = [make_example(linker.nlp, example.reference, gold_ents=True) for example in examples]
    with linker.without_context():
        docs = list(linker.link([example.predicted for example in again]))
    for example, doc in zip(again, docs, strict=True):
        example.predicted = doc
    counted = scored(scorer(again))
    found = [
        replace(result, predicted=result.gold if result.gold in linker.known(result.mention) else "")
        for result in counted
    ]
    return {"prior_alone": accuracy(counted), "gold_among_candidates": accuracy(found)}
