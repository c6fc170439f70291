"""Measure a peer as `evaluate` measures a pipeline: the same mentions, judged alike, in the same files."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm

from spacy_gemel.candidates import decide, to_row, write_rows
from spacy_gemel.corpus.reader import make_example, read_docs
from spacy_gemel.evaluation.bootstrap import RESAMPLES, SEED
from spacy_gemel.evaluation.judge import Judge
from spacy_gemel.evaluation.mentions import MentionResult
from spacy_gemel.evaluation.metrics import summarise
from spacy_gemel.evaluation.tail import split_tail
from spacy_gemel.golds import NIL
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.peers.lookup import AliasMatch, Lookup, Shortcut
from spacy_gemel.peers.spacy_linker import LinkerOptions, train_linker
from spacy_gemel.peers.surfaces import FoldedSurfaces, KBSurfaces, Surfaces
from spacy_gemel.peers.training_mentions import TrainingMentions, training_mentions

KINDS = ("shortcut", "alias", "entity_linker")


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How to measure a peer. `limit` counts test docs, 0 for all.

    ignore_case: compare mentions, names and aliases without regard to case (shortcut, alias). dev: what the epoch of
    entity_linker is chosen on. lang: spaCy's language, whose tokenizer and sentences entity_linker sees.
    """

    ignore_case: bool = False
    lang: str = "en"
    dev: Path | None = None
    linker: LinkerOptions = field(default_factory=LinkerOptions)
    tail_share: float = 0.05
    limit: int = 0
    progress: bool = True


def evaluate_peer(
    kind: str, train: Path, test: Path, kb_folder: Path, options: PeerOptions
) -> tuple[dict[str, Any], list[MentionResult]]:
    """Let a peer learn from `train` and measure it on the gold mentions of `test`, .spacy files or folders of them.

    Returns what `evaluation.runner.evaluate` does, which `write_evaluation` writes. Raises ValueError for a kind that
    there is none of, an option that the kind has no use for, and where there is nothing to read, KBError for the
    knowledge base.
    """
    _check(kind, options)
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
    link, learned = _peer(kind, nlp, kb, training, train_docs, options)
    prepared = time.perf_counter()
    docs = link([example.predicted for example in examples])
    bar = tqdm(docs, "link", total=len(examples), unit=" docs", disable=not options.progress)
    for example, doc in zip(examples, bar, strict=True):
        example.predicted = doc
    seconds = time.perf_counter() - prepared
    judge = Judge(kb, tail, training.golds)
    results = [result for number, example in enumerate(examples) for result in judge.results_of(example, number)]
    settings = {
        "peer": kind,
        **learned,
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


def _check(kind: str, options: PeerOptions) -> None:
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no peer: use one of {', '.join(KINDS)}")
    if kind == "entity_linker" and options.ignore_case:
        raise ValueError("entity_linker compares mentions as they are written: it cannot ignore case")
    if kind != "entity_linker" and options.dev is not None:
        raise ValueError(f"{kind} chooses nothing on dev data: it takes no --dev")


def _peer(
    kind: str,
    nlp: Language,
    kb: KnowledgeBase,
    training: TrainingMentions,
    train_docs: Sequence[Doc],
    options: PeerOptions,
) -> tuple[Callable[[Sequence[Doc]], Iterator[Doc]], dict[str, Any]]:
    """How the peer links docs, and what of it belongs into the settings. nlp: entity_linker's, blank as yet."""
    if kind == "entity_linker":
        given = options.linker
        dev = None if options.dev is None else list(read_docs(options.dev, nlp.vocab))
        linker = train_linker(nlp, kb, training, train_docs, dev, given)
        learned = {
            "epochs": given.epochs,
            "epoch": linker.epoch,
            "dev": None if options.dev is None else options.dev.as_posix(),
            "dev_accuracy": linker.dev,
            "seed": given.seed,
            "vectors": given.encoder or "random projection of tf-idf",
            "vector_length": linker.vector_length,
            "batch_size": given.batch_size,
            "dropout": given.dropout,
            "learn_rate": given.learn_rate,
            "lang": options.lang,
        }
        return linker.link, learned
    lookup: Lookup
    names: Surfaces
    if options.ignore_case:
        names = FoldedSurfaces(kb, progress=options.progress)
    else:
        names = KBSurfaces(kb, exact=kind == "shortcut")
    lookup = Shortcut(kb, training, names) if kind == "shortcut" else AliasMatch(kb, names)
    return lambda docs: _looked_up(lookup, docs), {"ignore_case": options.ignore_case}


def _looked_up(lookup: Lookup, docs: Sequence[Doc]) -> Iterator[Doc]:
    for doc in docs:
        rows = []
        for ent in doc.ents:
            candidates = lookup.candidates(ent.text)
            kb_id = decide(candidates, None, NIL)
            for token in ent:
                token.ent_kb_id_ = kb_id
            rows.append(to_row(ent.start_char, ent.end_char, candidates))
        write_rows(doc, rows)
        yield doc
