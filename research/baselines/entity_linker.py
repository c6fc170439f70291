"""spaCy's entity_linker as a baseline: its epoch is chosen on dev docs, or on some of the training docs."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from research.baselines.spacy_linker import LinkerOptions, SpacyLinker, entities_with_vectors, train_linker
from spacy_gemel.data.reader import make_example, read_docs
from spacy_gemel.evaluation.baselines import Baseline, Scorer, TrainingMentions, training_mentions
from spacy_gemel.evaluation.metrics import accuracy
from spacy_gemel.evaluation.results import scored
from spacy_gemel.kb.knowledge_base import KnowledgeBase


def make_entity_linker(
    nlp: Language,
    kb: KnowledgeBase,
    training: TrainingMentions,
    docs: Sequence[Doc],
    options: LinkerOptions,
    *,
    dev: Path | None = None,
    held_out: float = 0.0,
) -> Baseline:
    """Train it.

    Args:
        nlp: A blank pipeline of the data's language.
        kb: The knowledge base.
        training: The mentions of `docs`.
        docs: The training docs.
        options: How to train.
        dev: Docs to choose the epoch on.
        held_out: In place of that, a share of the training texts to choose it on; it is then trained once more, on all
            of them, for so many epochs.

    Raises:
        ValueError: If there is nothing to learn from, or to choose on, or if there are both dev and held_out.
    """
    if not 0 <= held_out < 1:
        raise ValueError(f"held_out is {held_out}: it is a share of the training texts, from 0 to below 1")
    if held_out and dev is not None:
        raise ValueError("give dev data or a share of the training texts to hold out, not both")
    entities = entities_with_vectors(kb, options)
    dev_docs = None if dev is None else list(read_docs(dev, nlp.vocab))
    chosen, accuracies, n_held_out = options, list[float](), 0
    if held_out:
        training_docs, held_out_docs = hold_out(docs, held_out, options.seed)
        n_held_out = len(held_out_docs)
        # the priors that the epoch is chosen with must not have the mentions that are held out
        mentions = training_mentions(training_docs, kb)
        blank = spacy.blank(str(nlp.lang), vocab=nlp.vocab)
        trial = train_linker(blank, kb, mentions, training_docs, held_out_docs, options, entities)
        accuracies, chosen = trial.dev, replace(options, epochs=trial.epoch)
    linker = train_linker(nlp, kb, training, docs, dev_docs, chosen, entities)
    settings = {
        "epochs": options.epochs,
        "epoch": linker.epoch,
        "dev": None if dev is None else dev.as_posix(),
        "held_out": held_out,
        "held_out_docs": n_held_out,
        "dev_accuracy": accuracies or linker.dev,
        "seed": options.seed,
        "vectors": options.encoder or "random projection of tf-idf",
        "vector_length": int(linker.pipe.kb.entity_vector_length),
        "batch_size": options.batch_size,
        "dropout": options.dropout,
        "learn_rate": options.learn_rate,
        "lang": nlp.lang,
    }
    return Baseline(linker.link, settings, lambda examples, scorer: _bounds(linker, examples, scorer))


def hold_out(docs: Sequence[Doc], share: float, seed: int) -> tuple[list[Doc], list[Doc]]:
    """(docs to train on, docs held out): a random share of the texts, at least one; docs of one text stay together.

    Raises:
        ValueError: If there are not two texts.
    """
    texts = list(dict.fromkeys(doc.text for doc in docs))
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} training text is too few to hold one out: give dev data")
    random.Random(seed).shuffle(texts)
    drawn = set(texts[: min(max(round(share * len(texts)), 1), len(texts) - 1)])
    return [doc for doc in docs if doc.text not in drawn], [doc for doc in docs if doc.text in drawn]


def _bounds(linker: SpacyLinker, examples: Sequence[Example], scorer: Scorer) -> dict[str, Any]:
    """prior_alone: its accuracy without the context. gold_among_candidates: what it cannot exceed."""
    again = [make_example(linker.nlp, example.reference, gold_ents=True) for example in examples]
    with linker.without_context():
        for example, doc in zip(again, linker.link([example.predicted for example in again]), strict=True):
            example.predicted = doc
    results = scored(scorer(again))
    reachable = [replace(r, predicted=r.gold if r.gold in linker.candidates(r.mention) else "") for r in results]
    return {"prior_alone": accuracy(results), "gold_among_candidates": accuracy(reachable)}
