"""Measure a peer as `evaluate` measures a pipeline: the same mentions, judged alike, in the same files."""

import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import spacy
from tqdm import tqdm

from research.baselines.kinds import KINDS, Task
from research.baselines.options import PeerOptions
from research.baselines.training_mentions import training_mentions
from spacy_gemel.data.reader import make_example, read_docs
from spacy_gemel.evaluation.bootstrap import RESAMPLES, SEED
from spacy_gemel.evaluation.judge import Judge
from spacy_gemel.evaluation.metrics import summarise
from spacy_gemel.evaluation.results import MentionResult
from spacy_gemel.evaluation.tail import split_tail
from spacy_gemel.kb.knowledge_base import KnowledgeBase

__all__ = ["KINDS", "PeerOptions", "evaluate_peer"]


def evaluate_peer(
    kind: str, train: Path, test: Path, kb_folder: Path, options: PeerOptions
) -> tuple[dict[str, Any], list[MentionResult]]:
    """Let a peer learn from `train` and measure it on the gold mentions of `test`, .spacy files or folders of them.

    Returns what `evaluation.runner.evaluate` does, which `write_evaluation` writes. Raises ValueError for a kind that
    there is none of, an option that the kind has no use for, and where there is nothing to read, KBError for the
    knowledge base.
    """
    options.check(kind)
    kb = KnowledgeBase.open(kb_folder)
    tail = split_tail(kb.counts, options.tail_share)
    nlp = spacy.blank(options.lang)
    test_docs = islice(read_docs(test, nlp.vocab), options.limit or None)
    examples = [make_example(nlp, doc, gold_ents=True) for doc in test_docs]
    if not any(example.reference.ents for example in examples):
        raise ValueError(f"{test}: not one mention in {len(examples)} docs, so there is nothing to evaluate")
    start = time.perf_counter()
    train_docs = list(read_docs(train, nlp.vocab))
    training = training_mentions(train_docs, kb)
    if not training.used:
        raise ValueError(
            f"{train}: not one mention of {len(train_docs)} docs has a gold that {kb_folder} holds: check that both "
            "have the same ids"
        )
    made = KINDS[kind].make(Task(nlp, kb, training, train_docs, options))
    prepared = time.perf_counter()
    docs = made.link([example.predicted for example in examples])
    bar = tqdm(docs, "link", total=len(examples), unit=" docs", disable=not options.progress)
    for example, doc in zip(examples, bar, strict=True):
        example.predicted = doc
    seconds = time.perf_counter() - prepared
    judge = Judge(kb, tail, training.golds)
    results = [result for number, example in enumerate(examples) for result in judge.results_of(example, number)]
    settings = {
        "peer": kind,
        **made.settings,
        **(made.also(examples, judge) if made.also else {}),
        "use_image": False,
        "data": test.as_posix(),
        "train": train.as_posix(),
        "kb": kb_folder.as_posix(),
        "training_mentions": training.used,
        "training_mentions_unused": {
            "nil": training.nil,
            "unannotated": training.unannotated,
            "not_in_kb": training.not_in_kb,
        },
        "seconds_to_prepare": round(prepared - start, 1),
        "tail_share": options.tail_share,
        "limit": options.limit,
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
        "versions": {name: version(name) for name in ("spacy", "thinc", "numpy")},
    }
    linked = sum(len(example.predicted.ents) for example in examples)
    return summarise(results, tail, settings=settings, seconds=seconds, linked=linked), results
