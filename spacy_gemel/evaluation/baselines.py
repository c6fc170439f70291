"""Baselines that look the mention up: the most frequent training entity, and the knowledge base's names and aliases.

They are measured on the same mentions as a pipeline, into the same files: `evaluate --baseline`.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from tqdm import tqdm

from spacy_gemel.data.reader import read_docs
from spacy_gemel.evaluation.bootstrap import RESAMPLES, SEED
from spacy_gemel.evaluation.metrics import summarise
from spacy_gemel.evaluation.results import MentionResult, score_mentions, split_tail
from spacy_gemel.evaluation.runner import predict, read_examples
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import NIL, resolve_gold
from spacy_gemel.linking.candidates import Answer, Candidate, answer_id
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
    """Count the gold mentions of some docs; gold ids may also be URLs, titles or aliases."""
    rows: dict[str, Counter[int]] = {}
    gold_ids: set[str] = set()
    counts = {"used": 0, "nil": 0, "unannotated": 0, "not_in_kb": 0}
    resolve = cache(partial(resolve_gold, kb))
    for ent in (ent for doc in docs for ent in doc.ents):
        gold = ent.kb_id_
        row = resolve(gold)
        if row is None:
            counts["unannotated" if not gold else "nil" if gold == NIL else "not_in_kb"] += 1
            continue
        counts["used"] += 1
        rows.setdefault(ent.text, Counter())[row] += 1
        if kb.is_in_trie(row):
            gold_ids.add(kb.entity(row).kb_id)
    return TrainingMentions(rows, frozenset(gold_ids), **counts)


class KBSurfaces:
    """Which entities a mention names, by the knowledge base's own index.

    Names and aliases are compared as gold titles are: underscores count as blanks, and the first letter's case does not
    count, as in Wikipedia's titles. With `exact` they are compared as written.
    """

    key: Callable[[str], str] = staticmethod(str)  # what two spellings of one mention have in common

    def __init__(self, kb: KnowledgeBase, *, exact: bool) -> None:
        self._kb = kb
        self._exact = exact

    def lookup(self, mention: str) -> tuple[list[int], list[int]]:
        """Rows of the entities with this name, and of those with this alias and another name; each ascending."""
        named, aliased = self._kb.rows_by_surface(mention)
        if not self._exact:
            return named, aliased
        exact = [row for row in named if self._kb.entity(row).name == mention]
        with_alias = {row for row in [*named, *aliased] if mention in self._kb.entity(row).aliases}
        return exact, sorted(with_alias - set(exact))


class FoldedSurfaces(KBSurfaces):
    """Mentions, names and aliases compared without regard to case. Reads the whole knowledge base once."""

    key = staticmethod(str.casefold)

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

    def lookup(self, mention: str) -> tuple[list[int], list[int]]:
        """See KBSurfaces."""
        key = self.key(mention)
        return self._named.get(key, []), self._aliased.get(key, [])


Lookup = Callable[[str], list[Candidate]]  # a mention's candidates, best first, none for NIL


def most_frequent_entity(kb: KnowledgeBase, training: TrainingMentions, surfaces: KBSurfaces) -> Lookup:
    """The most frequent training entity for the same mention, else the entity that has the mention as its name.

    Of equally frequent ones the entity that the knowledge base counts more often, then the earlier one in it. Training
    mentions of NIL are left out. A candidate's probability is its share of the training mentions.
    """
    counts: dict[str, Counter[int]] = {}
    for text, rows_of_text in training.rows.items():
        counts.setdefault(surfaces.key(text), Counter()).update(rows_of_text)

    def candidates(mention: str) -> list[Candidate]:
        times = counts.get(surfaces.key(mention))
        if times is None:
            times = Counter({row: kb.count(row) for row in surfaces.lookup(mention)[0]})
        return _to_candidates(kb, times, sorted(times, key=lambda row: (-times[row], -kb.count(row), row)))

    return candidates


def alias_match(kb: KnowledgeBase, surfaces: KBSurfaces) -> Lookup:
    """The entity with the mention as name or alias: the most counted, a name before an alias, then the earlier.

    A candidate's probability is its share of the counts; equal shares if none was ever counted.
    """

    def candidates(mention: str) -> list[Candidate]:
        named, aliased = surfaces.lookup(mention)
        counts = {row: kb.count(row) for row in [*named, *aliased]}
        return _to_candidates(kb, counts, sorted(counts, key=lambda row: -counts[row]))  # stable: names stay first

    return candidates


def _to_candidates(kb: KnowledgeBase, weights: Mapping[int, int], rows: Sequence[int]) -> list[Candidate]:
    total = sum(weights.values())
    candidates = []
    for row in rows:
        entity = kb.entity(row)
        share = weights[row] / total if total else 1 / len(rows)
        candidates.append(Candidate(entity.kb_id, entity.name, math.log(max(share, _SMALLEST_SHARE)), share))
    return candidates


Scorer = Callable[[Sequence[Example]], list[MentionResult]]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline that is ready to link docs with mentions."""

    link: Callable[[Sequence[Doc]], Iterable[Doc]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    # more settings, from the linked test examples
    measure: Callable[[Sequence[Example], Scorer], dict[str, Any]] = lambda examples, scorer: {}


# of a blank pipeline of the data's language, the KB, the training mentions, and the docs that have them
MakeBaseline = Callable[[Language, KnowledgeBase, TrainingMentions, Sequence[Doc]], Baseline]


def _lookup_baseline(
    name: str, kb: KnowledgeBase, training: TrainingMentions, folded: FoldedSurfaces | None
) -> Baseline:
    """One of `BASELINES`, by its name; it ignores case if there are folded surfaces."""
    surfaces = folded or KBSurfaces(kb, exact=name != "alias")
    lookup = alias_match(kb, surfaces) if name == "alias" else most_frequent_entity(kb, training, surfaces)

    def link(docs: Sequence[Doc]) -> Iterator[Doc]:
        for doc in docs:
            rows = []
            for ent in doc.ents:
                candidates = lookup(ent.text)
                for token in ent:
                    token.ent_kb_id_ = answer_id(Answer(candidates), None)
                rows.append(to_row(ent.start_char, ent.end_char, candidates))
            write_rows(doc, rows)
            yield doc

    return Baseline(link, {"ignore_case": folded is not None})


def evaluate_baseline(
    name: str,
    train: Path,
    test: Path,
    kb_folder: Path,
    make: MakeBaseline | None = None,
    *,
    ignore_case: bool = False,
    lang: str = "en",
    tail_share: float = 0.05,
    limit: int = 0,
    progress: bool = True,
) -> tuple[dict[str, Any], list[MentionResult]]:
    """Make a baseline from `train` and measure it on the gold mentions of `test`, .spacy files or folders of them.

    `make` makes it; without it, it is the one of `BASELINES` with this name; `ignore_case` applies only to these.
    `lang` is the data's language, `tail_share` as in `split_tail`, and `limit` the most test docs to read, 0 for all.
    Returns what `evaluate` does for a pipeline. Raises ValueError if there is nothing to read, or no such baseline.
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
        message = f"{train}: not one mention of {len(docs)} docs has a gold that {kb_folder} has"
        raise ValueError(f"{message}: check that both have the same ids")
    if make is not None:
        baseline = make(nlp, kb, training, docs)
    else:
        baseline = _lookup_baseline(name, kb, training, FoldedSurfaces(kb, progress=progress) if ignore_case else None)
    preparation = time.perf_counter() - start
    seconds = predict(examples, baseline.link([example.predicted for example in examples]), "link", progress=progress)
    scorer = partial(score_mentions, kb=kb, tail=tail, training_gold_ids=training.gold_ids)
    results = scorer(examples)
    settings = {
        "baseline": name,
        **baseline.settings,
        **baseline.measure(examples, scorer),
        "use_image": False,
        "data": test.as_posix(),
        "train": train.as_posix(),
        "kb": kb_folder.as_posix(),
        "training_mentions": training.used,
        "training_mentions_unused": {key: getattr(training, key) for key in ("nil", "unannotated", "not_in_kb")},
        "seconds_to_prepare": round(preparation, 1),
        "tail_share": tail_share,
        "limit": limit,
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
        "versions": {name: version(name) for name in ("spacy", "thinc", "numpy")},
    }
    mentions = sum(len(example.predicted.ents) for example in examples)
    return summarise(results, tail, settings=settings, seconds=seconds, linked=mentions), results
