"""What is learned from which training data: missing links, other tokens, discarded labels, predicted entities."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from tests.entity_linker.world import GOLDS, PLANET, TEXT, add_linker, example_of, make_nlp, photo, training_data
from tests.mini_pipeline import Ent, doc_of, linker, picture, train

BOTH = "Mercury met Hermes."


@pytest.fixture
def nlp(models: Path, kb: Path) -> Language:
    return make_nlp(models, kb)


def loss_of(nlp: Language, *references: Doc) -> float:
    """The loss of some gold docs, without a step."""
    data = [example_of(nlp, reference) for reference in references]
    return float(nlp.get_pipe("gemel_linker").update(data)["gemel_linker"])  # type: ignore[attr-defined]


def both(nlp: Language, first: str, second: str) -> Doc:
    """A doc of two entities with these ids."""
    return doc_of(nlp, BOTH, ("Mercury", "ENT", first), ("Hermes", "ENT", second), image=picture("Mercury"))


@pytest.mark.parametrize("missing", ["", "NIL"])
def test_a_gold_without_a_link_is_not_learned(models: Path, kb: Path, missing: str) -> None:
    nlp = make_nlp(models, kb, n_demonstrations=3)
    partial, whole = both(nlp, PLANET, missing), doc_of(nlp, BOTH, ("Mercury", "ENT", PLANET), image=picture("Mercury"))
    assert loss_of(nlp, partial) == pytest.approx(loss_of(nlp, whole))
    assert loss_of(nlp, both(nlp, PLANET, "Mercury")) > loss_of(nlp, whole)
    nlp.initialize(lambda: [example_of(nlp, partial)])
    assert [shown.mention for shown in linker(nlp).store] == ["Mercury"]


def test_an_entity_of_no_knowledge_base_is_not_learned(nlp: Language) -> None:
    with pytest.warns(UserWarning, match=r"1 of 2 gold entities of these examples are not learned: .*\(Nobody\)"):
        loss = loss_of(nlp, both(nlp, PLANET, "Nobody"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once, not at each step
        assert loss_of(nlp, both(nlp, PLANET, "Nobody")) == loss == pytest.approx(loss_of(nlp, both(nlp, PLANET, "")))


def test_a_blank_doc_among_others_changes_nothing(models: Path, kb: Path) -> None:
    mappers = []
    for extra in (False, True):
        nlp = make_nlp(models, kb)
        data = training_data(nlp)
        if extra:
            data.insert(2, example_of(nlp, nlp.make_doc("The weather is nice today.")))
            data.insert(4, example_of(nlp, nlp.make_doc("")))
        train(nlp, 2, data)
        mappers.append(linker(nlp).model.get_param("W").copy())
    np.testing.assert_allclose(*mappers, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("texts", [[], ["The sky is blue."], ["The sky is blue.", ""]])
def test_training_data_without_an_entity_is_refused(models: Path, kb: Path, texts: list[str]) -> None:
    nlp = spacy.blank("en")
    add_linker(nlp, models, kb)
    data = [example_of(nlp, nlp.make_doc(text)) for text in texts]
    # an empty list is refused by spaCy itself
    with pytest.raises((ValueError, TypeError), match=r"no (usable mention|training data)|E930"):
        nlp.initialize(lambda: data)


def words_of(nlp: Language, *words: str, ent: tuple[int, int, str] | None = None) -> Doc:
    """A doc of these tokens, whatever the tokenizer would make of its text; ent: (start, end, id)."""
    doc = Doc(nlp.vocab, words=list(words), spaces=[word in ("A", "photo", "of") for word in words])
    doc.user_data["image"] = picture("Mercury")
    if ent is not None:
        start, end, kb_id = ent
        doc.set_ents([Span(doc, start, end, label="ENT", kb_id=kb_id)])
    return doc


def test_other_tokens_in_gold_and_prediction_are_learned_alike(nlp: Language) -> None:
    finer = words_of(nlp, "A", "photo", "of", "Mer", "cury", ".", ent=(3, 5, PLANET))
    coarser = words_of(nlp, "A", "photo", "of", "Mercury.")
    losses = []
    for predicted, reference in (
        (photo(nlp, like=PLANET), photo(nlp, PLANET, like="Mercury")),
        (coarser, finer),
        (words_of(nlp, *(token.text for token in finer)), photo(nlp, PLANET, like="Mercury")),
    ):
        losses.append(nlp.get_pipe("gemel_linker").update([Example(predicted, reference)])["gemel_linker"])  # type: ignore[attr-defined]
    assert losses[0] == pytest.approx(losses[1]) == pytest.approx(losses[2])


@pytest.mark.parametrize("in_the_first", [True, False])
def test_an_entity_across_sentences(models: Path, kb: Path, in_the_first: bool) -> None:
    """As spaCy's issue 7065: the entity begins in one sentence and ends in the next."""

    def reference(nlp: Language) -> Doc:
        ents: list[Ent] = [("Symphony No. 8", "WORK", PLANET)]
        if in_the_first:
            ents.append(("Mahler", "PERSON", "Mercury"))
        doc = doc_of(nlp, "Mahler wrote Symphony No. 8 in Vienna.", *ents)
        for token in doc:
            token.is_sent_start = token.i == 0 or token.text == "8"
        return doc

    nlp = make_nlp(models, kb, [example_of(spacy.blank("en"), reference(spacy.blank("en")))], context="sentence")
    data = [example_of(nlp, reference(nlp))]
    assert all(loss > 0 for loss in train(nlp, 2, data))
    doc = nlp(reference(nlp))
    assert len(list(doc.sents)) == 2
    assert [ent.text for ent in doc.ents] == (["Mahler"] if in_the_first else []) + ["Symphony No. 8"]
    assert all(ent.kb_id_ in GOLDS for ent in doc.ents)


def test_discarded_labels_are_not_learned(models: Path, kb: Path) -> None:
    def mixed(nlp: Language) -> Doc:
        return doc_of(nlp, BOTH, ("Mercury", "ENT", PLANET), ("Hermes", "GOD", "Mercury"), image=picture("Mercury"))

    data = [example_of(spacy.blank("en"), mixed(spacy.blank("en")))]
    keen, choosy = make_nlp(models, kb, data), make_nlp(models, kb, data, labels_discard=["GOD", "PLACE"])
    assert [shown.mention for shown in linker(keen).store] == ["Mercury", "Hermes"]
    assert [shown.mention for shown in linker(choosy).store] == ["Mercury"]
    assert loss_of(choosy, mixed(choosy)) == pytest.approx(loss_of(keen, both(keen, PLANET, "")), rel=1e-3)
    only = doc_of(choosy, BOTH, ("Hermes", "GOD", "Mercury"))
    assert loss_of(choosy, only) == 0


def test_nothing_but_discarded_labels_is_refused(models: Path, kb: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"no usable mention in the training data: all entities in 6 docs.*labels_discard names \(GOD, ENT\)",
    ):
        make_nlp(models, kb, labels_discard=["GOD", "ENT"])


RULES: dict[str, tuple[list[dict[str, Any]], int]] = {
    "all are found": ([{"label": "ENT", "pattern": "Mercury"}], 1),
    "one of another label": ([{"label": "PERSON", "pattern": "Mercury"}], 1),
    "one is missed": ([{"label": "ENT", "pattern": "Merkury"}], 0),
    "others are found": ([{"label": "ENT", "pattern": "photo"}, {"label": "ENT", "pattern": "of"}], 0),
    "one is too long": ([{"label": "ENT", "pattern": "of Mercury"}], 0),
}


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("use_gold_ents", [True, False])
def test_entities_of_an_annotating_component(models: Path, kb: Path, rules: str, use_gold_ents: bool) -> None:
    """use_gold_ents = false: what the components before have found, and no more, is learned of."""
    patterns, found = RULES[rules]
    nlp = spacy.blank("en")
    add_linker(nlp, models, kb, use_gold_ents=use_gold_ents)
    data = [example_of(nlp, photo(nlp, PLANET), ents=False)]
    nlp.initialize(lambda: data)
    ruler = nlp.add_pipe("entity_ruler", before="gemel_linker")
    ruler.add_patterns(patterns)  # type: ignore[attr-defined]
    [loss] = train(nlp, 1, data, annotates=["entity_ruler"])
    assert (loss > 0) == (use_gold_ents or bool(found))
    scores = nlp.evaluate(data)  # and what was not found is not scored
    assert scores["nel_f_per_type"].keys() == ({"ENT"} if found else set())


def test_settings_come_from_the_config_and_are_saved_in_it(models: Path, kb: Path, tmp_path: Path) -> None:
    given = {
        "labels_discard": ["DATE", "CARDINAL"],
        "n_sents": 2,
        "use_gold_ents": False,
        "overwrite": False,
        "threshold": 0.5,
    }
    nlp = make_nlp(models, kb, **given)
    nlp.to_disk(tmp_path)
    for settings in (linker(nlp).settings, linker(spacy.load(tmp_path)).settings):
        assert {name: getattr(settings, name) for name in given} == {**given, "labels_discard": ("DATE", "CARDINAL")}
    ours, theirs = spacy.blank("en"), spacy.blank("en")  # the defaults are those of spaCy's own linker
    add_linker(ours, models, None)
    theirs.add_pipe("entity_linker")
    for name in given:
        assert ours.get_pipe_config("gemel_linker")[name] == theirs.get_pipe_config("entity_linker")[name], name


def test_the_text_is_what_the_training_data_say(nlp: Language) -> None:
    assert {shown.text for shown in linker(nlp).store} == {TEXT}
