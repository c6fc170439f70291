"""Evaluated mentions: how predictions are scored against gold mentions, and the files they are kept in."""

import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import NIL, resolve_gold
from spacy_gemel.linking.demonstrations import Demonstration
from spacy_gemel.pipeline.user_data import candidate_rows, doc_id, has_image, has_unreadable_image, probability_of
from spacy_gemel.utils.files import write_json, write_whole

_DEMONSTRATION = ("text", "mention", "name", "kb_id")


@dataclass(frozen=True, slots=True)
class MentionResult:
    """What a pipeline answered for one gold mention."""

    doc: str  # its id, or its number in the data
    start: int  # characters
    end: int
    mention: str
    gold: str  # "" if not annotated
    predicted: str | None  # None if a NER did not find the mention
    probability: float | None  # of the prediction; None for NIL
    seen: bool  # the gold entity occurs in the training set
    tail: bool | None  # None for a gold that the KB never counted, or does not have
    image: bool  # the doc has an image, and no linker failed to read it
    in_kb: bool
    # best first, with kb_id, name, score, probability
    candidates: list[dict[str, Any]] = field(default_factory=list)
    # those of the prompt, the most similar last, with text, mention, name, kb_id
    demonstrations: list[dict[str, str]] = field(default_factory=list)
    text: str = ""
    image_path: str | None = None  # absolute; in a file, relative to the file's folder
    unreadable_image: bool = False  # a linker failed to read the doc's image: the prediction is from the text alone
    count: int | None = None  # how often the KB counted the gold entity; None if it is not in the KB
    explanation: dict[str, Any] | None = None  # see `GemelLinker.explain`; of the mentions that the report shows

    @property
    def correct(self) -> bool:
        """Whether the prediction is the gold entity, or NIL for NIL."""
        return self.predicted == self.gold

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What identifies the same mention in another setting's file."""
        return (self.doc, self.start, self.end, self.gold)


def scored(results: Iterable[MentionResult]) -> list[MentionResult]:
    """The mentions that accuracy is over: the gold entity is in the KB, and the pipeline had the mention."""
    return [r for r in results if r.in_kb and r.gold not in ("", NIL) and r.predicted is not None]


@dataclass(frozen=True, slots=True)
class TailSplit:
    """Common and tail entities, as METRICS.json records them.

    The paper calls tail the "entities that appear less than 5 % of the total count", which can be read in more than
    one way. Here: the least-counted entities that together hold `share` of all counts. An entity counted 1 to
    `threshold` times is tail; one with count 0, as a KB's distractors, is neither common nor tail.
    """

    share: float  # as requested
    share_held: float  # at most `share`: entities with the same count are never separated
    threshold: int
    entities: int  # how many are tail
    counted: int = 0  # how many were counted at all

    def is_tail(self, count: int) -> bool | None:
        """Whether an entity with this count is tail; None for one that was never counted."""
        return None if count <= 0 else count <= self.threshold


def split_tail(counts: NDArray[np.int64], share: float) -> TailSplit:
    """Find the greatest threshold whose entities hold at most `share` of the total; ValueError unless it is 0 to 1.

    `counts` are (entities,) whole numbers, 0 for never counted.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"the tail's share is {share}: it must be from 0 to 1")
    counts = np.asarray(counts, dtype=np.int64)
    values, times = np.unique(counts[counts > 0], return_counts=True)  # (distinct,) ascending
    shares = np.cumsum(values * times) / float((values * times).sum() or 1)
    # a share such as 0.2 of a total of 10 is 2 exactly; the tolerance absorbs rounding
    n = int(np.searchsorted(shares, share + 1e-12, side="right"))
    actual, threshold = (float(shares[n - 1]), int(values[n - 1])) if n else (0.0, 0)
    return TailSplit(share, actual, threshold, int(times[:n].sum()), int(times.sum()))


def score_mentions(
    examples: Iterable[Example],
    kb: KnowledgeBase,
    tail: TailSplit,
    training_gold_ids: frozenset[str],
    demonstrations: Callable[[Doc, Span], Sequence[Demonstration]] | None = None,
) -> list[MentionResult]:
    """Compare predicted docs with their gold docs, whoever made the predictions: one result per gold mention.

    A doc without an id is named by its number. `demonstrations` gives those in the prompt of a predicted mention; None
    leaves them out.
    """
    results = []
    for number, example in enumerate(examples):
        doc, reference = example.predicted, example.reference
        candidates_by_span = candidate_rows(doc)
        spans = {(ent.start_char, ent.end_char): ent for ent in doc.ents}
        image = doc.user_data.get("image")
        for gold in reference.ents:
            offsets = (gold.start_char, gold.end_char)
            span, candidates = spans.get(offsets), candidates_by_span.get(offsets, [])
            row = resolve_gold(kb, gold.kb_id_)
            gold_id = gold.kb_id_ if row is None else kb.entity(row).kb_id
            predicted = None if span is None else span.kb_id_ or NIL
            prompt = [] if span is None or demonstrations is None else demonstrations(doc, span)
            results.append(
                MentionResult(
                    doc=str(number if (doc_name := doc_id(reference)) is None else doc_name),
                    start=gold.start_char,
                    end=gold.end_char,
                    mention=gold.text,
                    gold=gold_id,
                    predicted=predicted,
                    probability=None if predicted is None else probability_of(predicted, candidates),
                    seen=gold_id in training_gold_ids,
                    tail=None if row is None else tail.is_tail(kb.count(row)),
                    count=None if row is None else int(kb.count(row)),
                    image=has_image(doc) and not has_unreadable_image(doc),
                    in_kb=row is not None,
                    candidates=candidates,
                    demonstrations=[{key: getattr(d, key) for key in _DEMONSTRATION} for d in prompt],
                    text=doc.text,
                    image_path=image if isinstance(image, str) else None,
                    unreadable_image=has_unreadable_image(doc),
                )
            )
    return results


def write_evaluation(metrics: dict[str, Any], results: Sequence[MentionResult], output: Path) -> None:
    """Write METRICS.json and METRICS.mentions.jsonl, each whole or not at all, the numbers last."""
    write_mentions(results, mentions_path(output))
    write_json(output, metrics)


def read_metrics(path: Path, required: Collection[str]) -> dict[str, Any]:
    """Read METRICS.json; raises ValueError for a file that `evaluate` did not write, or without a required key."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        complete = isinstance(metrics, dict) and set(metrics) >= set(required)
    except ValueError as error:
        raise ValueError(f"{path}: not a file that evaluate writes ({error})") from error
    if not complete:
        raise ValueError(f"{path}: not a file that evaluate writes (settings or accuracies are missing)")
    return dict(metrics)


def mentions_path(metrics: Path) -> Path:
    """METRICS.mentions.jsonl, which lies beside METRICS.json."""
    return metrics.with_suffix(".mentions.jsonl")


def write_mentions(results: Iterable[MentionResult], path: Path) -> None:
    """Write one JSON line per mention; image paths become relative to the folder of `path`."""
    with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as lines:
        for result in results:
            row = asdict(result)
            if result.image_path is not None and Path(result.image_path).is_absolute():
                with suppress(ValueError):  # another drive on Windows
                    row["image_path"] = Path(os.path.relpath(result.image_path, path.parent)).as_posix()
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_mentions(path: Path) -> list[MentionResult]:
    """Read a file of `write_mentions`; raises ValueError with the line, if it is no such file."""
    names = {f.name for f in fields(MentionResult)}
    results = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                results.append(MentionResult(**{key: value for key, value in row.items() if key in names}))
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}:{number}: not a row that evaluate writes ({error})") from error
    return results
