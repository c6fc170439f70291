"""spaCy's own first test of a trainable pipe: what it was shown, it knows, also after it was saved."""

from pathlib import Path

import pytest
import spacy
from spacy.language import Language

from tests.entity_linker.world import GOLDS, add_linker, example_of, ids, make_nlp, photo, training_data
from tests.mini_pipeline import linker, train


def test_what_it_has_learned_it_knows(trained: Language) -> None:
    for seed in range(2):
        for kb_id in GOLDS:
            assert ids(trained(photo(trained, like=kb_id, seed=seed))) == [kb_id]
    # the text was the same each time: it is the picture that tells
    assert len({trained(photo(trained, like=kb_id)).text for kb_id in GOLDS}) == 1


def test_bytes_bring_the_knowledge_base_to_a_pipeline_that_has_none(trained: Language, models: Path) -> None:
    other = spacy.blank("en")
    add_linker(other, models, None)
    with pytest.raises(ValueError, match="nothing is loaded yet"):
        linker(other).kb  # noqa: B018
    other.from_bytes(trained.to_bytes())
    assert [kb_id in linker(other).kb for kb_id in GOLDS] == [True] * len(GOLDS)


def test_it_scores_what_it_has_learned(trained: Language) -> None:
    scores = trained.evaluate(training_data(trained))
    for key in ("nel_micro_p", "nel_micro_r", "nel_micro_f", "nel_macro_p", "nel_macro_r", "nel_macro_f"):
        assert scores[key] == 1, key
    assert scores["nel_f_per_type"] == {"ENT": {"p": 1, "r": 1, "f": 1}}


def test_a_recogniser_and_the_linker_learn_together(models: Path, kb: Path) -> None:
    """The linker learns of the entities that the recogniser finds, which finds more and more of them."""
    spacy.util.fix_random_seed(0)
    nlp = spacy.blank("en")
    recogniser = nlp.add_pipe("ner")
    recogniser.add_label("ENT")  # type: ignore[attr-defined]
    add_linker(nlp, models, kb, use_gold_ents=False)
    data = [example_of(nlp, photo(nlp, kb_id), ents=False) for kb_id in GOLDS]
    optimizer = nlp.initialize(lambda: data)
    optimizer.learn_rate = 0.02
    losses = [nlp.update(data, sgd=optimizer, annotates=["ner"]) for _ in range(100)]
    assert losses[0]["gemel_linker"] == 0  # nothing was found yet
    assert losses[-1]["ner"] < 0.01
    for kb_id in GOLDS:
        doc = nlp.make_doc(photo(nlp, kb_id).text)
        doc.user_data["image"] = photo(nlp, kb_id).user_data["image"]
        doc = nlp(doc)
        assert [(ent.text, ent.label_, ent.kb_id_) for ent in doc.ents] == [("Mercury", "ENT", kb_id)]
    scores = nlp.evaluate(data)
    assert (scores["ents_f"], scores["nel_micro_f"]) == (1, 1)


def test_a_text_alone_is_learned_too(models: Path, kb: Path) -> None:
    """Without any picture the mapper has nothing to learn from, and training says nothing and goes on."""
    nlp = make_nlp(models, kb)
    before = linker(nlp).model.get_param("W").copy()
    data = training_data(nlp)
    for eg in data:
        eg.reference.user_data.clear()
        eg.predicted.user_data.clear()
    assert train(nlp, 1, data)[0] > 0
    assert (linker(nlp).model.get_param("W") == before).all()
