"""From evaluated mentions to the numbers of METRICS.json."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from spacy_gemel.evaluation.bootstrap import accuracy_interval
from spacy_gemel.evaluation.precision import precision_recall_f
from spacy_gemel.evaluation.results import MentionResult
from spacy_gemel.evaluation.tail import TailSplit
from spacy_gemel.kb.resolve import NIL


def summarise(
    results: Sequence[MentionResult],
    tail: TailSplit,
    *,
    settings: dict[str, Any],
    seconds: float,
    linked: int,
) -> dict[str, Any]:
    """The metrics of one run; accuracy is the paper's, top-1 over golds that the KB holds, told by id.

    Accuracies are from 0 to 1, over the mentions whose gold entity is in the KB and that the pipeline saw,
    None where there are none; `low` and `high` bound the 95 % interval. NIL golds and golds outside the KB
    are counted apart, mentions without a gold are only counted. nil: the share of NIL golds that got NIL, and p, r, f
    of the answer NIL over NIL golds and scored mentions; p is None where NIL was never answered. unreadable_image:
    mentions of docs whose image could not be read, which are in neither with_image nor without_image; `mentions` of it
    are all, with those that do not count for accuracy. seconds: wall time of
    the pipeline; linked: the mentions that it linked.
    """
    annotated = [r for r in results if r.gold]
    found = [r for r in annotated if r.predicted is not None]
    scored = [r for r in found if r.in_kb and r.gold != NIL]
    nil = [r for r in found if r.gold == NIL]
    predicted_nil = sum(r.predicted == NIL for r in scored)
    nil_right = sum(r.correct for r in nil)

    def part(keep: Callable[[MentionResult], bool]) -> dict[str, Any]:
        return accuracy(r for r in scored if keep(r))

    return {
        "settings": settings,
        **accuracy(scored),
        "common": part(lambda r: r.tail is False),
        "tail": {
            **part(lambda r: r.tail is True),
            "share": tail.share,
            "share_held": tail.held,
            "threshold": tail.threshold,
            "entities": tail.entities,
            "counted": tail.counted,
        },
        "uncounted": part(lambda r: r.tail is None),
        "seen": part(lambda r: r.seen),
        "unseen": part(lambda r: not r.seen),
        "with_image": part(lambda r: r.image),
        "without_image": part(lambda r: not r.image and not r.unreadable_image),
        "unreadable_image": {
            **part(lambda r: r.unreadable_image),
            "mentions": sum(r.unreadable_image for r in results),
        },
        "nil": {**accuracy(nil), **precision_recall_f(nil_right, predicted_nil, len(nil) - nil_right)},
        "not_in_kb": {"n": sum(not r.in_kb and r.gold != NIL for r in found)},
        "unannotated": {"n": len(results) - len(annotated)},
        "predicted_nil": predicted_nil,
        "mentions_per_second": linked / seconds if seconds > 0 else None,
    }


def behind_ner(results: Sequence[MentionResult], *, predicted_mentions: int) -> dict[str, Any]:
    """What `--predicted-ents` adds: how many gold mentions the NER found, and the accuracy over all of them.

    predicted_mentions: how many mentions the NER predicted. Mentions without a gold entity count too here,
    as they are mentions all the same.
    """
    found = sum(r.predicted is not None for r in results)
    in_kb = [r for r in results if r.in_kb and r.gold and r.gold != NIL]
    return {
        "mention_recall": found / len(results) if results else None,
        "mention_precision": found / predicted_mentions if predicted_mentions else None,
        "end_to_end": accuracy(in_kb),
    }


def accuracy(results: Iterable[MentionResult]) -> dict[str, Any]:
    """{"n", "accuracy", "low", "high"} of some mentions."""
    outcomes = [r.correct for r in results]
    n, correct = len(outcomes), sum(outcomes)
    interval = accuracy_interval(correct, n)
    low, high = interval or (None, None)
    return {"n": n, "accuracy": correct / n if n else None, "low": low, "high": high}
