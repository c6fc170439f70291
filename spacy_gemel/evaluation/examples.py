"""The mentions that the report shows as examples: which, and why each is linked as it is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from spacy.tokens import Span
from spacy.training import Example

from spacy_gemel.evaluation.results import MentionResult, scored

_RIGHT, _WRONG = 8, 4
RULE = (
    f"Chosen by rule, not by hand: of the scored mentions with a picture, in the order of the data, {_RIGHT} "
    f"that are right and {_WRONG} that are wrong, evenly spaced, and no gold entity twice if there are others. "
    "They illustrate how it links; how often it is right is in the table."
)


def choose_examples(results: Sequence[MentionResult]) -> list[MentionResult]:
    """Choose a dozen of the scored mentions by RULE.

    If there are too few right or wrong ones the others fill up; if no mention has a picture it is not required.
    """
    mentions = scored(results)
    pool = [m for m in mentions if m.image_path is not None] or mentions
    right, wrong = ([i for i, m in enumerate(pool) if m.correct is correct] for correct in (True, False))
    chosen: list[int] = []
    for indices, most in ((wrong, _WRONG), (right, _RIGHT + _WRONG), (wrong, _RIGHT + _WRONG)):
        unused, n = [i for i in indices if i not in chosen], most - len(chosen)
        gold_ids = {pool[i].gold for i in chosen}
        for number in range(min(n, len(unused))):
            start = number * len(unused) // n
            index = next((i for i in [*unused[start:], *unused[:start]] if pool[i].gold not in gold_ids), None)
            if index is not None:
                gold_ids.add(pool[index].gold)
                chosen.append(index)
    rest = [i for i in range(len(pool)) if i not in chosen]
    chosen += rest[: _RIGHT + _WRONG - len(chosen)]  # if there are fewer gold entities than examples
    return [pool[i] for i in sorted(chosen)]


def explain_examples(
    results: Sequence[MentionResult], examples: Sequence[Example], explain: Callable[[Span], dict[str, Any]]
) -> list[MentionResult]:
    """The results of linked docs, with an explanation of those that a report will show."""
    chosen = {id(result) for result in choose_examples(results)}
    docs = [example.predicted for example in examples for _ in example.reference.ents]  # of each result
    explained = []
    for result, doc in zip(results, docs, strict=True):
        span = doc.char_span(result.start, result.end) if id(result) in chosen and result.candidates else None
        explained.append(result if span is None else replace(result, explanation=explain(span)))
    return explained
