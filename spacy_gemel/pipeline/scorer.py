"""The pipe's scorer: spaCy's nel_* scores, without what goes wrong in them.

spaCy's own `Scorer.score_links` counts a gold mention without an entity as an error of the linker, whatever
it said. Here such a mention is left out. As there, only mentions that stand in gold and prediction alike
are scored, and NIL for NIL is neither a hit nor a miss: how well NIL is told has scores of its own, nel_nil_*.
"""

import warnings
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

from spacy.scorer import PRFScore
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import registry

from spacy_gemel.kb.resolve import NIL
from spacy_gemel.pipeline.user_data import IMAGE_KEY, has_image, has_unreadable_image

_INSTEAD = (
    "`spacy evaluate`, `spacy benchmark accuracy`, `spacy find-threshold` and every use of spacy.Corpus.v1 hand the "
    "linker the text alone. Evaluate with `python -m spacy_gemel evaluate PIPELINE DATA.spacy --output METRICS.json`, "
    "find a threshold with `python -m spacy_gemel calibrate PIPELINE DEV.spacy`, or use examples of the reader "
    "spacy_gemel.MultimodalCorpus.v1, also as the dev corpus of a config (gold_ents = true where no pipe sets "
    "entities)."
)


@registry.scorers("spacy_gemel.linker_scorer.v1")  # type: ignore[untyped-decorator]
def make_linker_scorer() -> Callable[..., dict[str, Any]]:
    """The function that spaCy calls to score the pipe."""
    return linker_score


# spaCy hands a scorer whatever the pipe's cfg and labels hold, so it must take more than it uses
def linker_score(examples: Iterable[Example], resolve: Callable[[str], str] = str, **_: Any) -> dict[str, Any]:
    """nel_micro_p/r/f, nel_macro_p/r/f, nel_f_per_type, nel_score, nel_accuracy, and nel_nil_p/r/f.

    The first four as spaCy's `Scorer.score_links` has them, but for mentions without a gold, which are left out.
    nel_accuracy is the share of right answers over the gold mentions with an entity: what METRICS.json
    calls accuracy, but golds that the KB does not hold count as wrong, as a scorer cannot see the KB. It is
    None where there is no such mention.
    nel_nil_p/r/f: of the answer NIL, over the same mentions: right for the gold NIL, wrong for an entity, a missed one
    where an entity was given for the gold NIL. p is None where NIL was never answered, r where it is no gold, f where
    neither.
    resolve: the knowledge base's id for a gold that may be a URL or a title; the gold itself where there is none.
    """
    per_type: dict[str, PRFScore] = {}
    linkable = right = nil_golds = nil_answers = nil_right = 0
    for example in examples:
        golds = {(ent.start_char, ent.end_char): ent for ent in example.reference.ents}
        for ent in example.predicted.ents:
            gold_ent = golds.get((ent.start_char, ent.end_char))
            if gold_ent is None or not gold_ent.kb_id_:
                continue
            gold, predicted = resolve(gold_ent.kb_id_), ent.kb_id_ or NIL
            counts = per_type.setdefault(gold_ent.label_, PRFScore())
            nil_golds += gold == NIL
            nil_answers += predicted == NIL
            nil_right += gold == predicted == NIL
            if gold != NIL:
                linkable += 1
                right += gold == predicted
            if gold == predicted:
                counts.tp += gold != NIL
            else:
                # a wrong entity is both: one found that should not be, and one not found
                counts.fp += predicted != NIL
                counts.fn += gold != NIL
    micro = PRFScore(
        tp=sum(c.tp for c in per_type.values()),
        fp=sum(c.fp for c in per_type.values()),
        fn=sum(c.fn for c in per_type.values()),
    )
    types = max(len(per_type), 1)
    nil = precision_recall_f(nil_right, nil_answers - nil_right, nil_golds - nil_right)
    return {
        "nel_score": micro.fscore,
        "nel_score_desc": "micro F",
        "nel_micro_p": micro.precision,
        "nel_micro_r": micro.recall,
        "nel_micro_f": micro.fscore,
        "nel_macro_p": sum(c.precision for c in per_type.values()) / types,
        "nel_macro_r": sum(c.recall for c in per_type.values()) / types,
        "nel_macro_f": sum(c.fscore for c in per_type.values()) / types,
        "nel_f_per_type": {label: c.to_dict() for label, c in per_type.items()},
        "nel_accuracy": right / linkable if linkable else None,
        **{f"nel_nil_{key}": value for key, value in nil.items()},
    }


def precision_recall_f(tp: int, fp: int, fn: int) -> dict[str, float | None]:
    """{"p", "r", "f"} from 0 to 1: p is None if nothing was predicted, r if there is no gold, f if neither."""
    return {
        "p": tp / (tp + fp) if tp + fp else None,
        "r": tp / (tp + fn) if tp + fn else None,
        "f": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
    }


def check_scorable(
    examples: Sequence[Example], *, name: str, use_image: bool, labels_discard: Container[str] = ()
) -> None:
    """Refuse examples whose score would say nothing of the linker: a number that is wrong is worse than none.

    name: of the pipe, for the message. use_image: false where it is meant to link from the text alone. labels_discard:
    as the pipe has them.
    Raises ValueError where docs have an image in the gold that the linker was not given, where it could read none of
    the images, and where no pipe has set entities on any doc, so that there was nothing to link.
    """
    golds = [example for example in examples if any(ent.kb_id_ for ent in example.reference.ents)]
    if use_image:
        dropped = [eg for eg in golds if has_image(eg.reference) and not has_image(eg.predicted)]
        if dropped:
            raise ValueError(
                f"{name}: not scored: {len(dropped)} of {len(golds)} docs have an image in the gold that the linker "
                f"was not given (the first: {_start(dropped[0].reference)}). {_INSTEAD} To measure the text alone on "
                "purpose: `--no-image` there, or use_image = false."
            )
        check_images_read([example.predicted for example in golds], name=name, labels_discard=labels_discard)
    # no mark at all on the tokens: not even a pipe that looked for entities and found none
    if golds and not any(example.predicted.has_annotation("ENT_IOB") for example in golds):
        raise ValueError(
            f"{name}: not scored: not one of {len(golds)} docs with gold entities had entities to link (the first: "
            f"{_start(golds[0].reference)}). {_INSTEAD}"
        )


def check_images_read(docs: Sequence[Doc], *, name: str, labels_discard: Container[str] = ()) -> None:
    """Refuse linked docs of which not one image could be read: their scores are those of the text alone.

    docs: those that are scored; one without entities, or with those of `labels_discard` alone, was not looked at, and
    says nothing. name: of the pipe.
    A large dev set is not lost for some images that are broken: then a warning says how many. Raises ValueError.
    """
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
    warnings.warn(
        f"{name}: of {len(tried)} docs with an image {len(unreadable)} have one that could not be read (the first: "
        f"{first}): they are scored by what was linked from their text alone.",
        stacklevel=2,
    )


def _start(doc: Doc) -> str:
    text = doc.text if len(doc.text) <= 50 else doc.text[:50] + "..."
    return f"{doc.user_data['id']!r}, {text!r}" if "id" in doc.user_data else repr(text)
