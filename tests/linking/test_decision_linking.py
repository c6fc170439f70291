"""A decision in a pipe: what it decides, on which candidates, and what goes with it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from spacy.language import Language
from spacy.tokens import Doc, Span

from spacy_gemel.decoding.beam_search import Hypothesis
from spacy_gemel.kb.entity import description_text
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.linking import model as model_module
from spacy_gemel.linking.candidates import Candidate
from spacy_gemel.linking.decision import Decision
from spacy_gemel.linking.features import AgreementFeature, compute
from spacy_gemel.linking.model import NEAREST
from spacy_gemel.linking.retrievers import unit
from spacy_gemel.models.sentence_encoder import SentenceEncoder, load_sentence_encoder
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.pipeline.loaded_pipeline import overridden
from tests.calls import Calls
from tests.mini_pipeline import entity_id, linker, make_doc, make_kb, make_pipeline, picture, reseal
from tests.tiny import NAMES, make_vision_encoder

SCORE = Decision({"score": 3.0})
ROWS: list[dict[str, Any]] = [
    {"id": entity_id(name), "name": name, "count": number, "description": f"what {name} is"}
    for number, name in enumerate(NAMES)
]
TWINS = [{"id": f"twin {number}", "name": "Java", "description": f"number {number}"} for number in range(2)]


@pytest.fixture(scope="module")
def nlp(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Language:
    """With the descriptions' vectors on disk."""
    encoder = load_sentence_encoder(str(models / "sentence_encoder"), device="cpu")
    kb = make_kb(tmp_path_factory.mktemp("kb"), models, [*ROWS, *TWINS], encode=encoder)
    return make_pipeline(models, kb)


@pytest.fixture
def pipe(nlp: Language) -> Iterator[GemelLinker]:
    """Few beams, and a decision and settings that each test may change."""
    pipe = linker(nlp)
    with overridden(pipe, **{**vars(pipe.settings), "beam_size": 2, "n_candidates": 2}):
        yield pipe
        pipe.use_decision(None)


def docs(nlp: Language, *mentions: str) -> list[Doc]:
    return [make_doc(nlp, f"A photo of {each}.", each, image=picture("Mercury")) for each in mentions]


def link(nlp: Language, *mentions: str) -> list[list[Candidate]]:
    return [doc.ents[0]._.gemel_candidates for doc in nlp.pipe(docs(nlp, *mentions))]


def test_the_probabilities_are_over_all_that_a_mention_may_mean(nlp: Language, pipe: GemelLinker) -> None:
    """Not only over the candidates that are told, those of the best names and of the names that the mention bears."""
    mentions = pipe.mentions_of([doc.ents for doc in docs(nlp, "Java", "evening")])
    batch = pipe.linking_model.options(mentions, pipe.settings)
    decision = Decision({"score": 2.0, "name_share": 1.0, "is_name": 1.0}, nil=-2.0)
    values, columns = compute(pipe.features, batch, pipe.linking_model, pipe.settings)
    pipe.use_decision(decision)
    for found, options, rows in zip(link(nlp, "Java", "evening"), batch, values, strict=True):
        utilities = rows @ [decision.weights.get(name, 0.0) for name in columns]
        shares = np.exp(utilities) / (np.exp(utilities).sum() + np.exp(-2.0))
        expected = {
            entity.kb_id: pair
            for entity, pair in zip(options.entities, zip(utilities, shares, strict=True), strict=True)
        }
        assert {c.kb_id: (c.score, c.probability) for c in found} == {
            c.kb_id: pytest.approx(expected[c.kb_id], abs=1e-4) for c in found
        }
        assert found[0].probability == pytest.approx(shares.max(), abs=1e-4)
        assert [c.probability for c in found] == sorted((c.probability for c in found), reverse=True)
        order = np.argsort(-shares, kind="stable").tolist()
        best = [*dict.fromkeys(options.names[index].name for index in order)]
        bearers = {"Java"} & {options.mention.mention}  # are told, however improbable
        assert {c.name for c in found} == {*best[:2], *bearers}  # n_candidates
        assert len(best) > 3
        assert sum(c.probability for c in found) < 1


def test_the_bearers_of_a_name_are_told_apart(nlp: Language, pipe: GemelLinker) -> None:
    """By their share in the name's probability, as without a decision; without it they are equal, in their order."""
    plain = {c.kb_id: c.probability for c in link(nlp, "Java")[0] if c.name == "Java"}
    assert set(plain) == {"Java", "twin 0", "twin 1"}
    pipe.use_decision(Decision({"is_name": 50.0, "name_share": 1.0}))
    found = [c for c in link(nlp, "Java")[0] if c.name == "Java"]
    total = sum(plain.values())
    assert {c.kb_id: c.probability for c in found} == pytest.approx({k: p / total for k, p in plain.items()}, abs=1e-3)
    pipe.use_decision(Decision({"is_name": 50.0}))
    equal = [c for c in link(nlp, "Java")[0] if c.name == "Java"]
    assert [c.kb_id for c in equal] == ["Java", "twin 0", "twin 1"]
    assert [c.probability for c in equal] == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_nil_is_an_answer(nlp: Language, pipe: GemelLinker) -> None:
    pipe.use_decision(SCORE)
    [sure] = link(nlp, "Java")
    for nil, answer in ((sure[0].score + 0.1, "NIL"), (sure[0].score - 0.1, sure[0].kb_id)):
        pipe.use_decision(Decision(SCORE.weights, nil))
        [doc] = nlp.pipe(docs(nlp, "Java"))
        assert doc.ents[0].kb_id_ == answer
        assert doc.ents[0]._.gemel_candidates[0].kb_id == sure[0].kb_id  # still told
    pipe.configure(threshold=1.0)  # counts beside it
    pipe.use_decision(SCORE)
    assert [doc.ents[0].kb_id_ for doc in nlp.pipe(docs(nlp, "Java"))] == ["NIL"]


def test_a_feature_without_weight_is_not_computed(
    nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = Calls(monkeypatch, AgreementFeature, "values")
    for weight, times in ((0.0, 0), (0.5, 1)):
        pipe.use_decision(Decision({"score": 1.0, "agreement": weight}))
        link(nlp, "Java", "Jaguar")
        assert len(computed.seen) == times


@pytest.mark.parametrize("column", ["text_description", "agreement", "picture"])
def test_docs_without_a_mention_to_link(nlp: Language, pipe: GemelLinker, column: str) -> None:
    pipe.use_decision(Decision({"score": 1.0, column: 1.0}))
    pipe.configure(labels_discard=("DATE",))
    [doc] = docs(nlp, "Java")
    doc.set_ents([Span(doc, ent.start, ent.end, label="DATE") for ent in doc.ents])
    assert nlp(doc).ents[0].kb_id_ == "NIL"
    assert nlp("Nothing here.").ents == ()


def test_what_the_text_describes_is_a_candidate(nlp: Language, pipe: GemelLinker) -> None:
    model = pipe.linking_model
    mentions = pipe.mentions_of([doc.ents for doc in docs(nlp, "evening")])
    assert model.descriptions is not None
    [nearest] = model.descriptions.nearest([(mentions[0].mention, mentions[0].text)], NEAREST)
    [options] = model.options(mentions, pipe.settings)
    assert set(nearest) <= set(options.rows)
    assert len({name.name for name in options.names if not name.searched}) > 2  # whom neither search nor name brings in
    for entity, row, name in zip(options.entities, options.rows, options.names, strict=True):
        assert pipe.kb.entity(row) == entity
        assert name.name == entity.name
        assert name.tokens > 0


def test_options_have_the_demonstrations_of_the_prompt(nlp: Language, pipe: GemelLinker) -> None:
    [doc] = docs(nlp, "Mercury")
    [options] = pipe.linking_model.options(pipe.mentions_of([doc.ents]), pipe.settings)
    assert options.demonstrated == {each.kb_id for each in pipe.demonstrations_for(doc, doc.ents[0])} != set()
    pipe.configure(n_demonstrations=0)
    [options] = pipe.linking_model.options(pipe.mentions_of([doc.ents]), pipe.settings)
    assert options.demonstrated == set()


def test_what_a_free_search_says_that_is_no_entity_is_no_candidate(
    nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = pipe.linking_model.language_model.tokenizer.encode(["a blue thing", "Jaguar"])
    said = [Hypothesis(tuple(ids), score, 0) for ids, score in zip(encoded, (-0.1, -0.2), strict=True)]
    monkeypatch.setattr(model_module, "beam_search", lambda state, *_, **__: [said] * len(state.logits))
    pipe.configure(constrained=False)
    assert [c.kb_id for c in link(nlp, "evening")[0]] == ["NIL", "Jaguar"]
    pipe.use_decision(SCORE)
    [found] = link(nlp, "evening")
    assert found[0].kb_id == "Jaguar"
    assert "NIL" not in {c.kb_id for c in found}


def test_what_does_not_go_together_is_refused_and_changes_nothing(nlp: Language, pipe: GemelLinker) -> None:
    with pytest.raises(ValueError, match=r"gemel_linker: the decision weighs hair, which no feature of \[components"):
        pipe.use_decision(Decision({"score": 1.0, "hair": 0.5}))
    pipe.configure(prior_weight=0.5)
    with pytest.raises(ValueError, match=r"prior_weight = 0\.5 has no place beside a fitted decision.*use_decision\(N"):
        pipe.use_decision(SCORE)
    assert pipe.decision is pipe.linking_model.decision is None
    pipe.configure(prior_weight=0.0)
    pipe.use_decision(Decision({"score": 1.0, "hair": 0.0}))  # without weight it does no harm
    pipe.use_decision(SCORE)
    before = link(nlp, "Java")
    with pytest.raises(ValueError, match="set prior_weight = 0, or drop the decision"):
        pipe.configure(prior_weight=0.5, beam_size=1)
    assert pipe.settings.beam_size == 2
    assert link(nlp, "Java") == before


def test_without_a_decision_it_links_as_before(nlp: Language, pipe: GemelLinker) -> None:
    before = link(nlp, "Java", "evening")
    pipe.use_decision(SCORE)
    assert link(nlp, "Java", "evening") != before
    pipe.use_decision(None)
    assert link(nlp, "Java", "evening") == before


def test_an_added_entity_costs_no_encoding(nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe.use_decision(Decision({"score": 1.0, "text_description": 1.0}))
    link(nlp, "Java")
    before = pipe.kb
    encoded = Calls(monkeypatch, SentenceEncoder, "__call__")
    pipe.add_entity("added", "Java", description="the newest one")
    assert encoded.seen == []
    assert "added" in {c.kb_id for c in link(nlp, "Java")[0]}
    pipe._use_kb(before)


def test_loading_again_compares_by_the_encoder_that_is_loaded(models: Path, tmp_path: Path) -> None:
    """Not by the one until now, whose vectors a knowledge base that was built anew does not have."""
    encoder, saved = shutil.copytree(models / "sentence_encoder", tmp_path / "encoder"), tmp_path / "saved"
    retriever = {"@misc": "spacy_gemel.SentenceTransformerRetriever.v1", "name": str(encoder)}
    (tmp_path / "old").mkdir()
    old = load_sentence_encoder(str(encoder), device="cpu")
    nlp = make_pipeline(models, make_kb(tmp_path / "old", models, ROWS, encode=old), retriever=retriever)
    pipe = linker(nlp)
    pipe.to_disk(saved)
    [weights] = encoder.rglob("*.safetensors")
    noise = {name: value + torch.randn_like(value.float()).to(value) for name, value in load_file(weights).items()}
    save_file(noise, weights, {"format": "pt"})
    new = load_sentence_encoder(str(encoder), device="cpu")
    shutil.rmtree(saved / "kb")
    make_kb(tmp_path, models, ROWS, encode=new).rename(saved / "kb")
    reseal(saved)
    pipe.from_disk(saved)
    assert pipe.linking_model.descriptions is not None
    [[found]] = pipe.linking_model.descriptions.similarity(["a text"], [[1]])
    text, description = unit(new(["a text", description_text(pipe.kb.entity(1))]))
    assert found == pytest.approx(text @ description, abs=1e-3)


def test_a_clip_compares_the_image_with_descriptions(models: Path, tmp_path: Path) -> None:
    """As open_clip itself does, in a pipe whose mapper sees the state before the projection."""
    make_vision_encoder(tmp_path / "clip", vocab_size=49408)
    encoder = {"@misc": "spacy_gemel.OpenCLIP.v1", "name": str(tmp_path / "clip"), "text": True}
    feature = {"image_description": {"@misc": "spacy_gemel.ImageDescriptionFeature.v1"}}
    nlp = make_pipeline(models, make_kb(tmp_path, models, ROWS), vision_encoder=encoder, features=feature)
    pipe = linker(nlp)
    pipe.use_decision(Decision({"score": 0.1, "image_description": 40.0}))
    [doc] = nlp.pipe(docs(nlp, "Mercury"))
    [options] = pipe.linking_model.options(pipe.mentions_of([doc.ents]), pipe.settings)
    clip, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'clip'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'clip'}")
    with torch.no_grad():
        image = clip.eval().encode_image(preprocess(Image.fromarray(picture("Mercury")))[None], normalize=True)
        texts = clip.encode_text(tokenizer([description_text(each) for each in options.entities]), normalize=True)
    cosines = dict(zip((each.kb_id for each in options.entities), (texts @ image[0]).tolist(), strict=True))
    explained = {row["kb_id"]: row["features"] for row in pipe.explain(doc.ents[0])["candidates"]}
    assert {k: row["image_description"] for k, row in explained.items()} == {
        k: pytest.approx(cosines[k], abs=1e-5) for k in explained
    }
    assert {row["has_image"] for row in explained.values()} == {1.0}
    assert np.ptp([*cosines.values()]) > 1e-3


def test_who_bears_a_name_is_looked_up_once(nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pipe.kb
    pipe._use_kb(pipe.kb)  # forgets
    asked = Calls(monkeypatch, pipe.kb, "rows_by_surface")
    link(nlp, "Java", "evening", "Java")
    assert sorted(asked.seen) == ["Java", "evening"]
    pipe.add_entity("added", "Atlantis", aliases=["evening"])
    assert "added" in {c.kb_id for c in link(nlp, "evening")[0]}
    pipe._use_kb(before)


def test_a_knowledge_base_encoded_by_another_encoder_changes_nothing(
    nlp: Language, pipe: GemelLinker, models: Path, tmp_path: Path
) -> None:
    def other(texts: Any) -> Any:
        return np.eye(16, dtype="f")[[len(text) % 16 for text in texts]]

    before, kb = link(nlp, "Java"), pipe.kb
    foreign = make_kb(tmp_path, models, [{"id": "only", "name": "Java", "description": "all there is"}], encode=other)
    with pytest.raises(ValueError, match="descriptions encoded by another sentence encoder than the retriever's"):
        pipe.set_kb(lambda vocab: KnowledgeBase.open(foreign))
    assert pipe.kb is pipe.linking_model.kb is kb
    assert link(nlp, "Java") == before
