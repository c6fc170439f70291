"""prior_weight in a pipe: what it changes, and what it leaves alone."""

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc

from spacy_gemel.linking import model as model_module
from spacy_gemel.linking.candidates import Candidate, ScoredName
from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.prior import FLOOR, MAX_KNOWN
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.pipeline.loaded_pipeline import overridden
from spacy_gemel.pipeline.mentions import gather_mentions
from tests.calls import Calls
from tests.mini_pipeline import entity_id, make_doc, make_kb, make_pipeline, picture
from tests.tiny import NAMES

TEXT = "A photo of {} in the evening."


def with_aliases() -> list[dict[str, Any]]:
    """Twelve entities are called Thing, more than the prior is asked for; two names have three bearers each."""
    rows: list[dict[str, Any]] = [{"id": entity_id(name), "name": name} for name in NAMES]
    for row in rows[:12]:
        row["aliases"] = ["Thing"]
    return [
        *rows,
        {"id": "town", "name": "Java", "count": 3},
        {"id": "island", "name": "Java", "count": 9},
        {"id": "ship", "name": "Atlantis", "count": 3, "aliases": ["Twin"]},
        {"id": "myth", "name": "Atlantis", "count": 9, "aliases": ["Twin", "Isle"]},
    ]


@pytest.fixture(scope="module")
def nlp(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Language:
    return make_pipeline(models, make_kb(tmp_path_factory.mktemp("kb"), models, with_aliases()))


@pytest.fixture
def pipe(nlp: Language) -> Iterator[GemelLinker]:
    """Few beams, and settings that each test may change."""
    pipe = nlp.get_pipe("gemel_linker")
    assert isinstance(pipe, GemelLinker)
    pipe.reload()
    with overridden(pipe, **{**vars(pipe.settings), "beam_size": 2, "n_candidates": 2}):
        yield pipe


def docs(nlp: Language, *mentions: str) -> list[Doc]:
    return [make_doc(nlp, TEXT.format(mention), mention, image=picture("Mercury")) for mention in mentions]


def link(nlp: Language, *mentions: str) -> list[list[Candidate]]:
    return [doc.ents[0]._.gemel_candidates for doc in nlp.pipe(docs(nlp, *mentions))]


def names_of(pipe: GemelLinker, mentions: list[Mention], *, with_prior: bool = False) -> list[list[ScoredName]]:
    return [found.names for found in pipe.linking_model.find(mentions, pipe.settings, with_prior=with_prior)]


def best(names: list[ScoredName], prior: dict[str, float], weight: float) -> set[str]:
    """The ids of the highest sum of score and prior; without a weight, of what was searched or bears the name."""
    sums = {
        entity.kb_id: name.score + weight * math.log(prior.get(entity.kb_id, 0.0) + FLOOR)
        for name in names
        for entity in name.entities
        if weight or name.searched or any(bearer.kb_id in prior for bearer in name.entities)
    }
    return {kb_id for kb_id, value in sums.items() if value > max(sums.values()) - 1e-4}


def alike(found: list[Candidate], expected: list[Candidate]) -> None:
    assert [candidate.kb_id for candidate in found] == [candidate.kb_id for candidate in expected]
    assert [c.score for c in found] == pytest.approx([c.score for c in expected], abs=1e-5)
    assert [c.probability for c in found] == pytest.approx([c.probability for c in expected], abs=1e-5)


def test_without_weight_nothing_is_computed(nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("made a prior")

    monkeypatch.setattr("spacy_gemel.linking.model.MentionPrior", never)
    assert pipe.settings.prior_weight == 0.0
    assert all(link(nlp, "Mercury", "Thing"))
    pipe.configure(prior_weight=1.0)
    with pytest.raises(AssertionError, match="made a prior"):
        link(nlp, "Mercury")


def test_a_mention_without_evidence_is_linked_as_before(nlp: Language, pipe: GemelLinker) -> None:
    before = link(nlp, "evening", "Thing")
    pipe.configure(prior_weight=3.0)
    after = link(nlp, "evening", "Thing")
    alike(after[0], before[0])
    assert [c.score for c in after[1]] != [c.score for c in before[1]]


def test_the_known_names_have_the_scores_that_a_wide_search_gives_them(nlp: Language, pipe: GemelLinker) -> None:
    mentions = gather_mentions([doc.ents for doc in docs(nlp, "Thing", "Mercury", "evening")], None, pipe.settings)
    found = names_of(pipe, mentions, with_prior=True)
    assert [sum(name.searched for name in names) for names in found] == [2, 2, 2]
    known = pipe.linking_model.prior.of("Thing")
    assert len(known) == 12 > MAX_KNOWN
    expected = {pipe.kb.entity(pipe.kb.row(kb_id)).name for kb_id in [*known][:MAX_KNOWN]}
    assert {name.name for name in found[0]} >= expected
    assert not [name for name in found[2] if not name.searched]
    pipe.configure(beam_size=40, n_candidates=40)
    for names, all_names in zip(found, names_of(pipe, mentions), strict=True):
        scores = {name.name: name for name in all_names}
        for name in names:
            assert name.score == pytest.approx(scores[name.name].score, abs=1e-4)
            assert list(name.entities) == list(scores[name.name].entities)


def test_a_name_of_several_that_the_prior_alone_brings_in(nlp: Language, pipe: GemelLinker) -> None:
    """It is scored as the search would have, once, with all that bear it; the prior knows some of them, or one."""
    known = ("Twin", "Isle")
    mentions = gather_mentions([doc.ents for doc in docs(nlp, *known)], None, pipe.settings)
    found = names_of(pipe, mentions, with_prior=True)
    pipe.configure(beam_size=40, n_candidates=40)
    wide = names_of(pipe, mentions)
    for mention, names, all_names in zip(known, found, wide, strict=True):
        [brought] = [name for name in names if name.name == "Atlantis"]
        assert not brought.searched
        assert [entity.kb_id for entity in brought.entities] == ["myth", "ship", "Atlantis"]
        [expected] = [name for name in all_names if name.name == "Atlantis"]
        assert brought.score == pytest.approx(expected.score, abs=1e-4)
        assert list(brought.entities) == list(expected.entities)
        prior = pipe.linking_model.prior.of(mention)
        assert set(prior) == ({"myth", "ship"} if mention == "Twin" else {"myth"})


def test_the_best_sum_of_score_and_prior_is_the_answer(nlp: Language, pipe: GemelLinker) -> None:
    """With any weight, whether the search found a name or the prior brought it in, and whoever shares it."""
    mentions = ["Twin", "Isle", "Java", "Atlantis", "Thing", "Mercury", "New York", "evening"]
    for beams in (1, 2):
        pipe.configure(beam_size=beams, n_candidates=beams)
        asked = pipe.mentions_of([doc.ents for doc in docs(nlp, *mentions)])
        found = names_of(pipe, asked, with_prior=True)
        brought = {entity.kb_id for names in found for name in names if not name.searched for entity in name.entities}
        assert brought
        answered: dict[str, set[str]] = {mention: set() for mention in mentions}
        for weight in (0.0, 0.1, 0.5, 1.0, 3.0, 10.0):
            pipe.configure(prior_weight=weight)
            for mention, names, own in zip(mentions, found, link(nlp, *mentions), strict=True):
                assert own[0].kb_id in best(names, pipe.linking_model.prior.of(mention), weight), (mention, weight)
                answered[mention].add(own[0].kb_id)
        pipe.configure(prior_weight=0.0)
        assert "myth" in answered["Isle"] & answered["Twin"] & brought
        assert sum(len(ids) > 1 for ids in answered.values()) > 2  # the weight matters


def test_the_score_is_the_models_and_the_priors(nlp: Language, pipe: GemelLinker) -> None:
    pipe.configure(prior_weight=0.7)
    [found] = link(nlp, "thing's")  # that is no alias, and means what Thing does
    prior = pipe.linking_model.prior.of("thing's")
    assert len(prior) == 12
    pipe.configure(prior_weight=0.0)
    pipe.configure(beam_size=40, n_candidates=40)
    scores = {candidate.kb_id: candidate.score for candidate in link(nlp, "thing's")[0]}
    expected = {kb_id: score + 0.7 * math.log(prior.get(kb_id, 0.0) + FLOOR) for kb_id, score in scores.items()}
    assert {c.kb_id: c.score for c in found} == pytest.approx({c.kb_id: expected[c.kb_id] for c in found}, abs=1e-4)
    assert found[0].score == max(c.score for c in found)
    assert len({c.name for c in found}) == 2  # n_candidates
    assert sum(c.probability for c in found) == pytest.approx(1)


def test_the_bearers_of_the_mention_stay_candidates(nlp: Language, pipe: GemelLinker) -> None:
    """However many names the search was asked for; with a weight and without."""
    for weight in (0.0, 0.7):
        pipe.configure(prior_weight=weight)
        [found] = link(nlp, "Thing")
        bearers = {*NAMES[:12]}
        assert len(bearers & {candidate.name for candidate in found}) >= MAX_KNOWN
        assert len({candidate.name for candidate in found} - bearers) <= 2  # n_candidates


def test_the_threshold_is_on_the_combined_probability(nlp: Language, pipe: GemelLinker) -> None:
    pipe.configure(prior_weight=1e4)
    pipe.configure(threshold=0.5)
    doc = next(nlp.pipe(docs(nlp, "New York")))
    assert doc.ents[0].kb_id_ == "New_York"
    assert doc.ents[0]._.gemel_candidates[0].probability == pytest.approx(1.0)


def test_a_free_search_knows_them_too(nlp: Language, pipe: GemelLinker) -> None:
    pipe.configure(constrained=False)
    assert [doc.ents[0].kb_id_ for doc in nlp.pipe(docs(nlp, "New York"))] == ["NIL"]
    pipe.configure(prior_weight=1e4)
    assert [doc.ents[0].kb_id_ for doc in nlp.pipe(docs(nlp, "New York"))] == ["New_York"]


def test_the_prompts_are_read_once(nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch) -> None:
    prefilled = Calls(monkeypatch, pipe.linking_model.decoder, "prefill")
    pipe.configure(prior_weight=1.0)
    link(nlp, "Thing", "Mercury", "evening")
    assert sum(len(prompts) for prompts in prefilled.seen) == 3


def test_memory_that_runs_out_while_known_names_are_scored(
    nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe.configure(prior_weight=1.0)
    mentions = ["Thing", "Java", "Jaguar", "New York"]
    expected = link(nlp, *mentions)
    scored = model_module.score_names

    def small(state: Any, names: Any, end_id: int) -> Any:
        if len(names) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return scored(state, names, end_id)

    monkeypatch.setattr(model_module, "score_names", small)
    with pytest.warns(UserWarning, match="memory ran out"):
        found = link(nlp, *mentions)
    for own, other in zip(found, expected, strict=True):
        alike(own, other)


def test_scores_that_are_no_numbers_are_no_candidates(
    nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe.configure(prior_weight=1.0)

    def broken(_state: Any, names: Any, *_: Any, **__: Any) -> Any:
        return [[float("nan")] * len(own) for own in names]

    monkeypatch.setattr(model_module, "score_names", broken)
    [found] = link(nlp, "Thing")
    assert found
    assert all(math.isfinite(candidate.score) for candidate in found)


def test_added_entities_and_examples_are_known_and_saved(models: Path, tmp_path: Path) -> None:
    nlp = make_pipeline(models, make_kb(tmp_path, models), prior_weight=1e4, beam_size=2, n_candidates=2)
    pipe = nlp.get_pipe("gemel_linker")
    assert isinstance(pipe, GemelLinker)
    assert link(nlp, "Quirin")[0][0].kb_id != "comet"
    pipe.add_entity("comet", "Comet 1x", aliases=["Quirin"])
    assert link(nlp, "Quirin", "quirin's")[0][0].kb_id == "comet"
    shown = [make_doc(nlp, TEXT.format("Quirin") + str(index), "Quirin", "Jaguar") for index in range(3)]
    assert pipe.add_demonstrations(shown) == 3
    expected = link(nlp, "Quirin", "Mercury")
    assert expected[0][0].kb_id == "Jaguar"
    assert "comet" in {candidate.kb_id for candidate in expected[0]}
    nlp.to_disk(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "meta.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for own, other in zip(link(spacy.load(tmp_path / "saved"), "Quirin", "Mercury"), expected, strict=True):
            alike(own, other)
