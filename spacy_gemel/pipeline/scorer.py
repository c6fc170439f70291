"""The pipe's scorer: spaCy's nel_* scores without their errors, and the refusal to score blind.

spaCy's own `Scorer.score_links` counts a gold mention without an entity as an error of the linker, whatever the answer.
Here such a mention is left out. As there, only mentions that are in gold and prediction alike are scored, and NIL for
NIL is neither a hit nor a miss: the answer NIL has scores of its own, nel_nil_*.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

from spacy.scorer import PRFScore
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import registry

from spacy_gemel.kb.resolve import NIL
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.pipeline.user_data import IMAGE_KEY, has_image, has_unreadable_image
from spacy_gemel.utils.messages import UnreadableImageWarning, excerpt, warn

_REMEDY = (
    "`spacy evaluate`, `spacy benchmark accuracy`, `spacy find-threshold` and every use of spacy.Corpus.v1 hand the "
    "linker the text alone. Evaluate with `python -m spacy_gemel evaluate PIPELINE DATA.spacy --output METRICS.json`, "
    "learn when to answer NIL with `python -m spacy_gemel fit-decision PIPELINE DEV.spacy OUTPUT`, or use examples of "
    "the reader spacy_gemel.MultimodalCorpus.v1, also as the dev corpus of a config (gold_ents = true if no pipe sets "
    "entities)."
)


@registry.scorers("spacy_gemel.linker_scorer.v1")  # type: ignore[untyped-decorator]
def make_linker_scorer() -> Callable[..., dict[str, Any]]:
    """The function that spaCy calls to score the pipe."""
    return linker_score


# spaCy hands a scorer whatever the pipe's cfg and labels hold, so it must take more than it uses
def linker_score(examples: Iterable[Example], resolve: Callable[[str], str] = str, **_: Any) -> dict[str, Any]:
    """nel_micro_p/r/f, nel_macro_p/r/f, nel_f_per_type, nel_score, nel_accuracy, and nel_nil_p/r/f.

    The first four are those of spaCy's `Scorer.score_links`, less mentions without a gold. nel_accuracy is the share of
    right answers over the gold mentions with an entity, or None without any: the accuracy of METRICS.json, except that
    gold ids that the knowledge base lacks count as wrong. nel_nil_p/r/f are of the answer NIL over the same mentions,
    see `precision_recall_f`. `resolve` gives the knowledge base's id for a gold id, which may be a URL or a title.
    """
    per_type: dict[str, PRFScore] = {}
    entities = right = nil_gold_count = nil_answers = nil_right = 0
    for example in examples:
        gold_ents = {(ent.start_char, ent.end_char): ent for ent in example.reference.ents}
        for ent in example.predicted.ents:
            gold_ent = gold_ents.get((ent.start_char, ent.end_char))
            if gold_ent is None or not gold_ent.kb_id_:
                continue
            gold, predicted = resolve(gold_ent.kb_id_), ent.kb_id_ or NIL
            counts = per_type.setdefault(gold_ent.label_, PRFScore())
            nil_gold_count += gold == NIL
            nil_answers += predicted == NIL
            nil_right += gold == predicted == NIL
            if gold != NIL:
                entities += 1
                right += gold == predicted
            if gold == predicted:
                counts.tp += gold != NIL
            else:  # a wrong entity is both: one predicted in error, and one missed
                counts.fp += predicted != NIL
                counts.fn += gold != NIL
    scores = per_type.values()
    micro = PRFScore(tp=sum(c.tp for c in scores), fp=sum(c.fp for c in scores), fn=sum(c.fn for c in scores))
    types = max(len(per_type), 1)
    nil = precision_recall_f(nil_right, nil_answers - nil_right, nil_gold_count - nil_right)
    return {
        "nel_score": micro.fscore,
        "nel_score_desc": "micro F",
        "nel_micro_p": micro.precision,
        "nel_micro_r": micro.recall,
        "nel_micro_f": micro.fscore,
        "nel_macro_p": sum(c.precision for c in scores) / types,
        "nel_macro_r": sum(c.recall for c in scores) / types,
        "nel_macro_f": sum(c.fscore for c in scores) / types,
        "nel_f_per_type": {label: c.to_dict() for label, c in per_type.items()},
        "nel_accuracy": right / entities if entities else None,
        **{f"nel_nil_{key}": value for key, value in nil.items()},
    }


def precision_recall_f(tp: int, fp: int, fn: int) -> dict[str, float | None]:
    """{"p", "r", "f"} from 0 to 1: p is None if nothing was predicted, r if there is no gold, f if neither."""
    return {
        "p": tp / (tp + fp) if tp + fp else None,
        "r": tp / (tp + fn) if tp + fn else None,
        "f": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
    }


def check_scorable(examples: Sequence[Example], name: str, settings: LinkerSettings) -> None:
    """Refuse examples whose score would say nothing about the linker: a wrong number is worse than none.

    Raises ValueError if docs have an image in the gold that the linker was not given, if it could read none of the
    images, or if no pipe has set entities on any doc.
    """
    with_gold = [example for example in examples if any(ent.kb_id_ for ent in example.reference.ents)]
    if settings.use_image:
        dropped = [eg for eg in with_gold if has_image(eg.reference) and not has_image(eg.predicted)]
        if dropped:
            raise ValueError(
                f"{name}: not scored: {len(dropped)} of {len(with_gold)} docs have an image in the gold that the "
                f"linker was not given (the first: {_start(dropped[0].reference)}). {_REMEDY} To measure the text "
                "alone on purpose: `--no-image` there, or use_image = false."
            )
        check_images_read([eg.predicted for eg in with_gold], name=name, labels_discard=settings.labels_discard)
    # not even a pipe that looked for entities and found none
    if with_gold and not any(example.predicted.has_annotation("ENT_IOB") for example in with_gold):
        raise ValueError(
            f"{name}: not scored: not one of {len(with_gold)} docs with gold entities had entities to link (the first: "
            f"{_start(with_gold[0].reference)}). {_REMEDY}"
        )


def check_images_read(docs: Sequence[Doc], *, name: str, labels_discard: Container[str] = ()) -> None:
    """Raise ValueError if no image of docs with an entity to link could be read; warn if some could not."""
    tried = [doc for doc in docs if has_image(doc) and any(ent.label_ not in labels_discard for ent in doc.ents)]
    unreadable = [doc for doc in tried if has_unreadable_image(doc)]
    if not unreadable:
        return
    image = unreadable[0].user_data.get(IMAGE_KEY)
    first = _start(unreadable[0]) + (f", image {image!r}" if isinstance(image, str) else "")
    if len(unreadable) == len(tried):
        raise ValueError(
            f"{name}: not scored: of {len(tried)} docs with an image not one image could be read (the first: {first}). "
            "Put the images where the docs have them: a path in a .spacy file is relative to its folder. To measure "
            "the text alone on purpose: `python -m spacy_gemel evaluate --no-image`, or use_image = false."
        )
    warn(
        f"{name}: of {len(tried)} docs with an image {len(unreadable)} have one that could not be read (the first: "
        f"{first}): they are scored by what was linked from their text alone.",
        UnreadableImageWarning,
    )


def _start(doc: Doc) -> str:
    return f"{doc.user_data['id']!r}, {excerpt(doc.text)}" if "id" in doc.user_data else excerpt(doc.text)
