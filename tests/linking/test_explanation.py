"""What `explain` says of a mention, beside what the pipe does."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from spacy.language import Language

from spacy_gemel.kb.resolve import NIL
from spacy_gemel.linking.decision import Decision
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.pipeline.loaded_pipeline import overridden
from tests.calls import Calls
from tests.mini_pipeline import doc_of, linker, make_doc, make_kb, make_pipeline, picture

approximately = partial(pytest.approx, abs=1e-4)
TEXT = "A photo of Mercury in the evening."


@pytest.fixture(scope="module")
def nlp(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Language:
    return make_pipeline(models, make_kb(tmp_path_factory.mktemp("kb"), models), n_demonstrations=2)


@pytest.fixture
def pipe(nlp: Language) -> Any:
    pipe = linker(nlp)
    yield pipe
    pipe.use_decision(None)
    pipe.configure(labels_discard=[])


def test_it_is_what_was_decided(nlp: Language, pipe: GemelLinker) -> None:
    pipe.use_decision(Decision({"score": 2.0, "is_name": 1.5, "tokens": -0.1}, nil=-3.0))
    doc = nlp(make_doc(nlp, TEXT, "Mercury", image=picture("Mercury")))
    told = pipe.explain(doc.ents[0])
    assert told["answer"] == doc.ents[0].kb_id_
    found = doc.ents[0]._.gemel_candidates
    assert [(row["kb_id"], row["name"]) for row in told["candidates"]] == [(c.kb_id, c.name) for c in found]
    for row, candidate in zip(told["candidates"], found, strict=True):
        assert row["probability"] == pytest.approx(candidate.probability, abs=1e-5)
        assert sum(row["parts"].values()) == pytest.approx(candidate.score, abs=1e-4)
        assert row["parts"].keys() <= {"score", "is_name", "tokens"} <= row["features"].keys()
    total = sum(row["probability"] for row in told["candidates"]) + told["nil"]
    assert 0 < told["nil"] < total <= 1 + 1e-6


@pytest.mark.parametrize("changes", [{}, {"prior_weight": 0.7}, {"constrained": False}, {"candidates": "aliases"}])
def test_it_is_what_is_linked_without_a_decision(nlp: Language, pipe: GemelLinker, changes: dict[str, Any]) -> None:
    """Although all that a decision would weigh is scored too."""
    with overridden(pipe, **{**vars(pipe.settings), "beam_size": 2, "n_candidates": 2, **changes}):
        doc = nlp(doc_of(nlp, TEXT, ("Mercury", "ENT", ""), ("evening", "ENT", ""), image=picture("Mercury")))
        for ent in doc.ents:
            told = pipe.explain(ent)
            assert told["answer"] == ent.kb_id_
            found = [(row["kb_id"], row["name"], row["score"], row["probability"]) for row in told["candidates"]]
            assert found == [(k, n, *map(approximately, rest)) for k, n, *rest in ent._.gemel_candidates]


def test_it_searches_once_with_the_image_and_once_without(
    nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    doc, blind = make_doc(nlp, TEXT, "Mercury", image=picture("Mercury")), make_doc(nlp, TEXT, "Mercury")
    prefilled = Calls(monkeypatch, pipe.linking_model.decoder, "prefill")
    for decision in (None, Decision({"score": 2.0})):
        pipe.use_decision(decision)
        prefilled.seen.clear()
        pipe.explain(blind.ents[0])
        assert len(prefilled.seen) == 1
        pipe.explain(doc.ents[0])
        assert len(prefilled.seen) == 3


def test_the_prompt_and_its_demonstrations(nlp: Language, pipe: GemelLinker) -> None:
    doc = nlp(make_doc(nlp, TEXT, "Mercury", image=picture("Mercury")))
    told = pipe.explain(doc.ents[0])
    demonstrations = pipe.demonstrations_for(doc, doc.ents[0])
    assert [row["text"] for row in told["demonstrations"]] == [each.text for each in demonstrations]
    similarities = [row["similarity"] for row in told["demonstrations"]]
    assert similarities == sorted(similarities) and similarities[-1] == pytest.approx(1.0, abs=1e-4)
    assert told["prompt"].endswith(
        f"[Text]{TEXT}\n[Question]What does Mercury mentioned in the text refer to?\n[Answer]"
    )
    assert told["prompt"].count("<image>") == 1 + sum(each.image >= 0 for each in demonstrations)
    assert all(row["parts"] == {} for row in told["candidates"])  # nothing was fitted


def test_the_answer_without_the_image(nlp: Language, pipe: GemelLinker) -> None:
    doc = nlp(make_doc(nlp, TEXT, "Mercury", image=picture("Mercury")))
    blind = nlp(make_doc(nlp, TEXT, "Mercury"))
    assert pipe.explain(doc.ents[0])["answer_without_image"] == blind.ents[0].kb_id_ != NIL
    assert pipe.explain(blind.ents[0])["answer_without_image"] is None


def test_what_is_not_linked_cannot_be_explained(nlp: Language, pipe: GemelLinker) -> None:
    doc = nlp(make_doc(nlp, TEXT, "Mercury"))
    with pytest.raises(ValueError, match="'evening' is not among the doc's entities"):
        pipe.explain(doc[6:7])
    pipe.configure(labels_discard=["ENT"])
    with pytest.raises(ValueError, match="'Mercury' is not linked: its label ENT is in labels_discard"):
        pipe.explain(doc.ents[0])
