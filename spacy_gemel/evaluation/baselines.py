"""Baselines that look the mention up: the most frequent training entity, and the knowledge base's names and aliases.

They are measured on the same mentions as a pipeline, into the same files: `evaluate --baseline`.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from tqdm import tqdm

from spacy_gemel.data.reader import read_docs
from spacy_gemel.evaluation.bootstrap import RESAMPLES, SEED
from spacy_gemel.evaluation.metrics import summarise
from spacy_gemel.evaluation.results import MentionResult, score_mentions, split_tail
from spacy_gemel.evaluation.runner import read_examples
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import NIL, resolve_gold
from spacy_gemel.linking.candidates import Candidate, decide
from spacy_gemel.pipeline.user_data import to_row, write_rows

BASELINES = ("most-frequent", "alias")
_SMALLEST_SHARE = 1e-9  # its logarithm is the score of an entity that was never counted: JSON has no infinity


@dataclass(frozen=True, slots=True)
class TrainingMentions:
    """The gold mentions of a training set: {mention as written: {row of the knowledge base: how often}}."""

    rows: dict[str, Counter[int]]
    gold_ids: frozenset[str]  # ids of the entities that a linker can answer: a mention of one counts as seen
    used: int
    nil: int
    unannotated: int
    not_in_kb: int


def training_mentions(docs: Iterable[Doc], kb: KnowledgeBase) -> TrainingMentions:
    """Count the gold mentions of some docs; golds may be ids, URLs, titles or aliases."""
    rows: dict[str, Counter[int]] = {}
    gold_ids: set[str] = set()
    counts: Counter[str] = Counter()
    resolved: dict[str, int | None] = {}
    for doc in docs:
        for ent in doc.ents:
            gold = ent.kb_id_
            if gold not in resolved:
                resolved[gold] = resolve_gold(kb, gold)
            row = resolved[gold]
            if row is None:
                counts["unannotated" if not gold else "nil" if gold == NIL else "not_in_kb"] += 1
                continue
            counts["used"] += 1
            rows.setdefault(ent.text, Counter())[row] += 1
            if kb.is_in_trie(row):
                gold_ids.add(kb.entity(row).kb_id)
    return TrainingMentions(
        rows, frozenset(gold_ids), counts["used"], counts["nil"], counts["unannotated"], counts["not_in_kb"]
    )


class Surfaces(Protocol):
    """Which entities a mention string names, and when two spellings are the same."""

    def key(self, mention: str) -> str:
        """What two spellings of one mention have in common."""

    def lookup(self, mention: str) -> tuple[list[int], list[int]]:
        """Rows of the entities with this name, and of those with this alias and another name; each ascending."""


class KBSurfaces:
    """Mentions as written; names and aliases by the knowledge base's own index.

    They are compared as gold titles are: underscores count as blanks, and the first letter's case does not count, as
    in Wikipedia's titles. With `exact` they are compared as written.
    """

    def __init__(self, kb: KnowledgeBase, *, exact: bool) -> None:
        self._kb = kb
        self._exact = exact

    def key(self, mention: str) -> str:
        """The mention itself."""
        return mention

    def lookup(self, mention: str) -> tuple[list[int], list[int]]:
        """See Surfaces."""
        named, aliased = self._kb.rows_by_surface(mention)
        if not self._exact:
            return named, aliased
        exact = [row for row in named if self._kb.entity(row).name == mention]
        with_alias = {row for row in [*named, *aliased] if mention in self._kb.entity(row).aliases}
        return exact, sorted(with_alias - set(exact))


class FoldedSurfaces:
    """Mentions, names and aliases compared without regard to case. Reads the whole knowledge base once."""

    def __init__(self, kb: KnowledgeBase, *, progress: bool = True) -> None:
        self._named: dict[str, list[int]] = {}
        self._aliased: dict[str, list[int]] = {}
        for row in tqdm(range(len(kb)), "index names", unit=" entities", disable=not progress):
            entity = kb.entity(row)
            name = self.key(entity.name)
            self._named.setdefault(name, []).append(row)
            for alias in dict.fromkeys(map(self.key, entity.aliases)):
                if alias != name:
                    self._aliased.setdefault(alias, []).append(row)

    def key(self, mention: str) -> str:
        """The mention with its case folded."""
        return mention.casefold()

    def lookup(self, mention: str) -> tuple[list[int], list[int]]:
        """See Surfaces."""
        key = self.key(mention)
        return self._named.get(key, []), self._aliased.get(key, [])


class MostFrequentEntity:
    """The most frequent training entity for the same mention, else the entity that has the mention as its name.

    Of equally frequent ones the entity that the knowledge base counts more often, then the earlier one in it. NIL golds
    of the training data are no entities. A candidate's probability is its share of the training mentions.
    """

    def __init__(self, kb: KnowledgeBase, training: TrainingMentions, surfaces: Surfaces) -> None:
        self._kb = kb
        self._surfaces = surfaces
        self._training: dict[str, Counter[int]] = {}
        for mention, rows in training.rows.items():
            self._training.setdefault(surfaces.key(mention), Counter()).update(rows)

    def candidates(self, mention: str) -> list[Candidate]:
        """The entities of the training mentions, or else those of this name; best first, none for NIL."""
        count = self._kb.count
        times = self._training.get(self._surfaces.key(mention))
        if times is not None:
            rows = sorted(times, key=lambda row: (-times[row], -count(row), row))
            return _to_candidates(self._kb, rows, [times[row] for row in rows])
        rows = sorted(self._surfaces.lookup(mention)[0], key=lambda row: (-count(row), row))
        return _to_candidates(self._kb, rows, [count(row) for row in rows])


class AliasMatch:
    """The entity with the mention as name or alias: the most counted, a name before an alias, then the earlier.

    A candidate's probability is its share of the counts; equal shares if none was ever counted.
    """

    def __init__(self, kb: KnowledgeBase, surfaces: Surfaces) -> None:
        self._kb = kb
        self._surfaces = surfaces

    def candidates(self, mention: str) -> list[Candidate]:
        """All entities with this name or alias, best first, none for NIL."""
        named, aliased = self._surfaces.lookup(mention)
        rows = sorted([*named, *aliased], key=lambda row: -self._kb.count(row))  # stable: names stay first
        return _to_candidates(self._kb, rows, [self._kb.count(row) for row in rows])


def _to_candidates(kb: KnowledgeBase, rows: Sequence[int], weights: Sequence[int]) -> list[Candidate]:
    total = sum(weights)
    candidates = []
    for row, weight in zip(rows, weights, strict=True):
        entity = kb.entity(row)
        share = weight / total if total else 1 / len(rows)
        candidates.append(Candidate(entity.kb_id, entity.name, math.log(max(share, _SMALLEST_SHARE)), share))
    return candidates


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a baseline is made from: a blank pipeline of the data's language, the KB, and the training docs."""

    nlp: Language
    kb: KnowledgeBase
    mentions: TrainingMentions
    docs: Sequence[Doc]


Scorer = Callable[[Sequence[Example]], list[MentionResult]]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline that is ready to link docs with mentions."""

    link: Callable[[Sequence[Doc]], Iterable[Doc]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    # more settings, from the linked test examples
    measure: Callable[[Sequence[Example], Scorer], dict[str, Any]] | None = None


def make_lookup_baseline(name: str, data: TrainingData, *, ignore_case: bool, progress: bool = True) -> Baseline:
    """One of `BASELINES`, by its name."""
    folded = FoldedSurfaces(data.kb, progress=progress) if ignore_case else None
    lookup: MostFrequentEntity | AliasMatch
    if name == "alias":
        lookup = AliasMatch(data.kb, folded or KBSurfaces(data.kb, exact=False))
    else:
        lookup = MostFrequentEntity(data.kb, data.mentions, folded or KBSurfaces(data.kb, exact=True))

    def link(docs: Sequence[Doc]) -> Iterator[Doc]:
        for doc in docs:
            rows = []
            for ent in doc.ents:
                candidates = lookup.candidates(ent.text)
                for token in ent:
                    token.ent_kb_id_ = decide(candidates, None)
                rows.append(to_row(ent.start_char, ent.end_char, candidates))
            write_rows(doc, rows)
            yield doc

    return Baseline(link, {"ignore_case": ignore_case})


def evaluate_baseline(
    name: str,
    train: Path,
    test: Path,
    kb_folder: Path,
    make: Callable[[TrainingData], Baseline] | None = None,
    *,
    ignore_case: bool = False,
    lang: str = "en",
    tail_share: float = 0.05,
    limit: int = 0,
    progress: bool = True,
) -> tuple[dict[str, Any], list[MentionResult]]:
    """Make a baseline from `train` and measure it on the gold mentions of `test`, .spacy files or folders of them.

    Args:
        name: What the settings call it.
        train: The training docs.
        test: The docs to link.
        kb_folder: The knowledge base.
        make: Makes it; None for the one of `BASELINES` with this name.
        ignore_case: Whether one of `BASELINES` ignores case.
        lang: spaCy's language of the data.
        tail_share: The share of all counts that the tail's entities hold.
        limit: Test docs to read at most, 0 for all.
        progress: Whether to show progress bars.

    Returns:
        The metrics and one result per gold mention, as `evaluate` does for a pipeline.

    Raises:
        ValueError: If there is nothing to read, or no baseline of this name.
    """
    if make is None and name not in BASELINES:
        raise ValueError(f"{name!r} is not a baseline: use {' or '.join(BASELINES)}")
    kb, nlp = KnowledgeBase.open(kb_folder), spacy.blank(lang)
    tail = split_tail(kb.counts, tail_share)
    examples = read_examples(nlp, test, limit=limit)
    start = time.perf_counter()
    docs = list(read_docs(train, nlp.vocab))
    training = training_mentions(docs, kb)
    if not training.used:
        raise ValueError(
            f"{train}: not one mention of {len(docs)} docs has a gold that {kb_folder} has: check that both have the "
            "same ids"
        )
    make = make or partial(make_lookup_baseline, name, ignore_case=ignore_case, progress=progress)
    baseline = make(TrainingData(nlp, kb, training, docs))
    ready = time.perf_counter()
    linked = baseline.link([example.predicted for example in examples])
    bar = tqdm(linked, "link", total=len(examples), unit=" docs", disable=not progress)
    for example, doc in zip(examples, bar, strict=True):
        example.predicted = doc
    seconds = time.perf_counter() - ready
    scorer = partial(score_mentions, kb=kb, tail=tail, training_gold_ids=training.gold_ids)
    results = scorer(examples)
    settings = {
        "peer": name,
        **baseline.settings,
        **(baseline.measure(examples, scorer) if baseline.measure else {}),
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
        "seconds_to_prepare": round(ready - start, 1),
        "tail_share": tail_share,
        "limit": limit,
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
        "versions": {name: version(name) for name in ("spacy", "thinc", "numpy")},
    }
    mentions = sum(len(example.predicted.ents) for example in examples)
    return summarise(results, tail, settings=settings, seconds=seconds, linked=mentions), results
