"""nel_*: what counts, and what does not."""

from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.scorer import Scorer
from spacy.tokens import Doc, Span
from spacy.training import Example

from tests.entity_linker.world import GOLDS, add_linker, example_of, photo, training_data
from tests.mini_pipeline import Ent, doc_of, linker, picture

TEXT = "Mercury met Hermes in Rome."
PLACES = {"Mercury": "PERSON", "Hermes": "PERSON", "Rome": "GPE"}


def pair(nlp: Language, golds: dict[str, str], answers: dict[str, str]) -> Example:
    """One doc of these entities and ids, as predicted and in the gold."""

    def ents(given: dict[str, str]) -> list[Ent]:
        return [(words, PLACES[words], kb_id) for words, kb_id in given.items()]

    return Example(doc_of(nlp, TEXT, *ents(answers)), doc_of(nlp, TEXT, *ents(golds)))


def score(nlp: Language, *examples: Example) -> dict[str, Any]:
    return dict(linker(nlp).score(examples))


def test_right_wrong_and_nil_by_type(trained: Language) -> None:
    examples = [
        pair(trained, {"Mercury": "A", "Rome": "B"}, {"Mercury": "C", "Rome": "B"}),
        pair(trained, {"Mercury": "A", "Rome": "B"}, {"Mercury": "A", "Rome": "NIL"}),
        pair(trained, {"Rome": "NIL"}, {"Rome": "NIL"}),
    ]
    scores = score(trained, *examples)
    # PERSON: one right, one wrong (which is one too many and one missed); GPE: one right, one missed
    assert scores["nel_f_per_type"]["PERSON"] == {"p": 1 / 2, "r": 1 / 2, "f": 1 / 2}
    assert scores["nel_f_per_type"]["GPE"] == {"p": 1, "r": 1 / 2, "f": pytest.approx(2 / 3)}
    assert (scores["nel_micro_p"], scores["nel_micro_r"]) == (2 / 3, 2 / 4)
    theirs = Scorer.score_links(examples, negative_labels=["NIL"])
    assert {key: scores[key] for key in theirs} == theirs


@pytest.mark.parametrize("answer", ["A", "NIL"])
def test_a_gold_that_nobody_linked_is_not_scored(trained: Language, answer: str) -> None:
    """spaCy's own scorer takes any answer for wrong there."""
    examples = [pair(trained, {"Mercury": "A", "Rome": ""}, {"Mercury": "A", "Rome": answer})]
    scores = score(trained, *examples)
    assert scores["nel_micro_f"] == 1
    assert scores["nel_f_per_type"].keys() == {"PERSON"}
    assert Scorer.score_links(examples, negative_labels=["NIL"])["nel_micro_f"] < 1


def test_what_only_one_side_has_is_not_scored(trained: Language) -> None:
    more = pair(trained, {"Mercury": "A"}, {"Mercury": "A", "Hermes": "B", "Rome": "C"})
    fewer = pair(trained, {"Mercury": "A", "Hermes": "B"}, {"Mercury": "A"})
    assert score(trained, more)["nel_micro_f"] == score(trained, fewer)["nel_micro_f"] == 1


def test_a_link_where_there_is_none_is_one_too_many(trained: Language) -> None:
    scores = score(trained, pair(trained, {"Mercury": "NIL", "Rome": "A"}, {"Mercury": "B", "Rome": "A"}))
    assert (scores["nel_micro_p"], scores["nel_micro_r"]) == (1 / 2, 1)


def test_other_tokens_in_the_gold_are_scored_by_their_characters(trained: Language) -> None:
    finer = Doc(trained.vocab, words=["A", "photo", "of", "Mer", "cury", "."], spaces=[True] * 3 + [False] * 3)
    finer.set_ents([Span(finer, 3, 5, label="ENT", kb_id="Mercury_(planet)")])
    predicted = photo(trained, like="Mercury_(planet)")
    finer.user_data["image"] = predicted.user_data["image"]
    assert trained.evaluate([Example(predicted, finer)])["nel_micro_f"] == 1


def test_only_linked_golds_make_a_type(models: Path, kb: Path) -> None:
    """Of two entities that a recogniser finds only one is linked in the gold: only its type has a linking score."""
    nlp = spacy.blank("en")
    add_linker(nlp, models, kb)
    nlp.initialize(lambda: training_data(nlp))
    ruler = nlp.add_pipe("entity_ruler", before="gemel_linker")
    patterns = [{"label": label, "pattern": words} for words, label in PLACES.items()]
    ruler.add_patterns(patterns)  # type: ignore[attr-defined]
    golds = [(words, label, "Mercury" if words == "Mercury" else "") for words, label in PLACES.items()]
    reference = doc_of(nlp, TEXT, *golds, image=picture("Mercury"))
    scores = nlp.evaluate([example_of(nlp, reference, ents=False)])
    assert scores["ents_f"] == 1
    assert scores["ents_per_type"].keys() == {"PERSON", "GPE"}
    assert scores["nel_f_per_type"].keys() == {"PERSON"}


def test_no_gold_at_all_is_no_error(trained: Language) -> None:
    scores = trained.evaluate([example_of(trained, trained.make_doc("The sky is blue."))])
    assert (scores["nel_micro_f"], scores["nel_accuracy"]) == (0, None)
    assert score(trained)["nel_f_per_type"] == {}


def test_scoring_leaves_the_examples_as_they_are(trained: Language) -> None:
    data = training_data(trained)
    trained.evaluate(data)
    assert [ent.kb_id_ for eg in data for ent in eg.predicted.ents] == [""] * len(data)
    assert [ent.kb_id_ for eg in data for ent in eg.reference.ents] == [*GOLDS] * 2


def test_training_is_steered_by_the_micro_score(models: Path) -> None:
    ours, theirs = spacy.blank("en"), spacy.blank("en")
    add_linker(ours, models, None)
    theirs.add_pipe("entity_linker")
    weights = [nlp.config["training"]["score_weights"] for nlp in (ours, theirs)]
    assert weights[1] == {"nel_micro_f": 1.0, "nel_micro_r": None, "nel_micro_p": None}
    assert weights[0] == {**weights[1], "nel_nil_f": 0.0}
