"""From evaluated mentions to the numbers of METRICS.json."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from spacy_gemel.evaluation.bootstrap import accuracy_of
from spacy_gemel.evaluation.results import MentionResult, TailSplit, scored
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.pipeline.scorer import precision_recall_f

SUBSETS = ("common", "tail", "seen", "unseen", "with_image", "without_image")


def summarise(
    results: Sequence[MentionResult], tail: TailSplit, *, settings: dict[str, Any], seconds: float, linked: int
) -> dict[str, Any]:
    """The metrics of one run; accuracy is the paper's, top-1 over the mentions whose gold entity is in the KB.

    Accuracies are from 0 to 1, or None if there is no such mention; `low` and `high` bound the 95 % interval. NIL
    and gold ids outside the KB are counted separately, and mentions without a gold are only counted. `nil` is the
    share of mentions of NIL that were answered with NIL, and p, r, f of the answer NIL. `unreadable_image` is of docs
    whose image could not be read, which are in neither `with_image` nor `without_image`; its `mentions` counts all of
    them, including those that do not count for accuracy.
    """
    annotated = [r for r in results if r.gold]
    seen_by_pipe = [r for r in annotated if r.predicted is not None]
    counted = scored(results)
    nil = [r for r in seen_by_pipe if r.gold == NIL]
    predicted_nil = sum(r.predicted == NIL for r in counted)
    nil_right = sum(r.correct for r in nil)
    unreadable = sum(r.unreadable_image for r in results)

    def subset(condition: Callable[[MentionResult], bool]) -> dict[str, Any]:
        return accuracy(r for r in counted if condition(r))

    return {
        "settings": settings,
        **accuracy(counted),
        "common": subset(lambda r: r.tail is False),
        "tail": {**subset(lambda r: r.tail is True), **asdict(tail)},
        "uncounted": subset(lambda r: r.tail is None),
        "seen": subset(lambda r: r.seen),
        "unseen": subset(lambda r: not r.seen),
        "with_image": subset(lambda r: r.image),
        "without_image": subset(lambda r: not r.image and not r.unreadable_image),
        "unreadable_image": {**subset(lambda r: r.unreadable_image), "mentions": unreadable},
        "nil": {**accuracy(nil), **precision_recall_f(nil_right, predicted_nil, len(nil) - nil_right)},
        "not_in_kb": {"n": sum(not r.in_kb and r.gold != NIL for r in seen_by_pipe)},
        "unannotated": {"n": len(results) - len(annotated)},
        "predicted_nil": predicted_nil,
        "mentions_per_second": linked / seconds if seconds > 0 else None,
    }


def end_to_end_metrics(results: Sequence[MentionResult], *, predicted_mentions: int) -> dict[str, Any]:
    """What `--predicted-ents` adds: how many gold mentions the NER found, and the accuracy over all of them.

    Mentions without a gold entity count for recall and precision, as they are mentions all the same.
    """
    recognised = sum(r.predicted is not None for r in results)
    return {
        "mention_recall": recognised / len(results) if results else None,
        "mention_precision": recognised / predicted_mentions if predicted_mentions else None,
        "end_to_end": accuracy(r for r in results if r.in_kb and r.gold not in ("", NIL)),
    }


def accuracy(results: Iterable[MentionResult]) -> dict[str, Any]:
    """{"n", "accuracy", "low", "high"} of some mentions; None if there are none."""
    return accuracy_of([r.correct for r in results])
