"""The nel_* scores, by hand, and against spaCy's own where it is right."""

import random

import pytest
import spacy
from spacy.scorer import Scorer
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_gemel.pipeline.scorer import linker_score, make_linker_scorer

NLP = spacy.blank("en")


def example(*rows: tuple[str, str, str]) -> Example:
    """One doc with a mention per (label, gold, predicted)."""
    words = [f"w{n}" for n in range(len(rows))]
    docs = []
    for column in (2, 1):
        doc = Doc(NLP.vocab, words=words)
        doc.set_ents([Span(doc, n, n + 1, label=row[0], kb_id=row[column]) for n, row in enumerate(rows)])
        docs.append(doc)
    return Example(*docs)


def test_by_hand() -> None:
    scores = linker_score(
        [
            example(
                ("A", "x", "x"),  # tp
                ("A", "x", "y"),  # fp and fn
                ("A", "x", "NIL"),  # fn
                ("A", "NIL", "x"),  # fp
                ("B", "NIL", "NIL"),  # neither
                ("B", "x", "x"),  # tp
                ("B", "x", ""),  # no answer is NIL: fn
            )
        ]
    )
    assert scores["nel_micro_p"] == pytest.approx(2 / 4)
    assert scores["nel_micro_r"] == pytest.approx(2 / 5)
    assert scores["nel_micro_f"] == scores["nel_score"] == pytest.approx(2 * 0.5 * 0.4 / 0.9)
    assert scores["nel_macro_p"] == pytest.approx((1 / 3 + 1) / 2)
    assert scores["nel_macro_r"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert scores["nel_f_per_type"]["A"]["p"] == pytest.approx(1 / 3)
    assert scores["nel_accuracy"] == pytest.approx(2 / 5)
    # NIL answered three times, once rightly; one of two NIL golds found
    assert scores["nel_nil_p"] == pytest.approx(1 / 3)
    assert scores["nel_nil_r"] == pytest.approx(1 / 2)
    assert scores["nel_nil_f"] == pytest.approx(2 / 5)


def test_nil_where_there_is_little_to_say_of_it() -> None:
    def nil(*rows: tuple[str, str, str]) -> list[float | None]:
        scores = linker_score([example(*rows)])
        return [scores[f"nel_nil_{key}"] for key in "prf"]

    assert nil(("A", "x", "x")) == [None, None, None]
    assert nil(("A", "NIL", "x")) == [None, 0.0, 0.0]
    assert nil(("A", "x", "NIL")) == [0.0, None, 0.0]
    assert nil(("A", "", "NIL"), ("A", "NIL", "NIL")) == [1.0, 1.0, 1.0], "a mention without a gold says nothing"


def test_a_gold_without_an_entity_is_no_error() -> None:
    plain = linker_score([example(("A", "x", "x"))])
    assert linker_score([example(("A", "x", "x"), ("A", "", "y"), ("B", "", "NIL"))]) == plain


def test_as_spacy_where_all_golds_are_annotated() -> None:
    rng = random.Random(0)
    rows = [(rng.choice("AB"), rng.choice(["x", "y", "NIL"]), rng.choice(["x", "y", "NIL"])) for _ in range(200)]
    examples = [example(*rows[n : n + 5]) for n in range(0, 200, 5)]
    theirs = Scorer.score_links(examples, negative_labels=["NIL"])
    ours = linker_score(examples)
    for key, value in theirs.items():
        assert ours[key] == (pytest.approx(value) if isinstance(value, float) else value), key


def test_no_mention_at_all() -> None:
    scores = linker_score([])
    assert scores["nel_accuracy"] is None
    assert scores["nel_micro_f"] == 0


def test_registered_and_takes_what_spacy_hands_it() -> None:
    scorer = spacy.registry.scorers.get("spacy_gemel.linker_scorer.v1")()
    assert scorer is make_linker_scorer()
    assert scorer([example(("A", "x", "x"))], labels=(), threshold=None, nlp=NLP)["nel_micro_f"] == 1.0
