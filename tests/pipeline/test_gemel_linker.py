"""The pipe from outside: links, learns, saves, and what it says of bad input."""

import io
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from PIL import Image
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.linking.candidates import Answer, answer_id, to_candidates
from spacy_gemel.linking.retrievers import Query
from spacy_gemel.models.sentence_encoder import load_sentence_encoder
from spacy_gemel.pipeline.user_data import has_unreadable_image, reasons_in
from tests.mini_pipeline import (
    COLOURS,
    add_linker,
    assert_same,
    doc_of,
    entity_id,
    example,
    examples,
    linker,
    make_config,
    make_doc,
    make_kb,
    make_pipeline,
    picture,
    train,
)
from tests.names import scored

TEXT = "A photo of Mercury number 3."


@pytest.fixture(scope="module")
def nlp(trained: Language) -> Language:
    return trained


def mercury(nlp: Language, image: Any = None) -> Doc:
    return make_doc(nlp, TEXT, "Mercury", image=image)


def results(doc: Doc) -> list[list[Any]]:
    return [[ent.kb_id_, *ent._.gemel_candidates] for ent in doc.ents]


def test_links_and_keeps_plain_candidates(nlp: Language) -> None:
    doc = nlp(mercury(nlp, picture("Mercury", 9)))
    [ent] = doc.ents
    assert ent.kb_id_ in {entity_id(name) for name in COLOURS} | {entity_id(ent._.gemel_candidates[0].name)}
    assert ent.kb_id_ == doc[3].ent_kb_id_ == ent._.gemel_candidates[0].kb_id
    probabilities = [candidate.probability for candidate in ent._.gemel_candidates]
    assert len(probabilities) == 5
    assert sum(probabilities) == pytest.approx(1)
    assert probabilities == sorted(probabilities, reverse=True)
    again = Doc(nlp.vocab).from_bytes(doc.to_bytes())
    assert results(again) == results(doc)
    stored = DocBin(store_user_data=True, docs=[doc]).to_bytes()
    [unpacked] = DocBin().from_bytes(stored).get_docs(nlp.vocab)
    assert results(unpacked) == results(doc)


def test_training_lowers_the_loss_and_changes_the_mapper_alone(models: Path, kb: Path) -> None:
    nlp = make_pipeline(models, kb)
    pipe = nlp.get_pipe("gemel_linker")
    frozen = {
        "language model": pipe.linking_model.language_model.model,
        "vision encoder": pipe._reader.encoder.model,
        "sentence encoder": pipe.retriever._embed.model,
    }
    before = {what: {k: v.clone() for k, v in model.state_dict().items()} for what, model in frozen.items()}
    mapper = pipe.model.get_param("W").copy()
    values = train(nlp, 15)
    assert values[-1] < 0.9 * values[0]
    assert not np.array_equal(mapper, pipe.model.get_param("W"))
    for what, model in frozen.items():
        assert not model.training, what
        for key, value in model.state_dict().items():
            assert torch.equal(before[what][key], value), (what, key)


def test_the_same_seed_gives_the_same_mapper(models: Path, kb: Path) -> None:
    mappers = []
    for _ in range(2):
        spacy.util.fix_random_seed(7)
        nlp = make_pipeline(models, kb)
        train(nlp, 3)
        mappers.append(nlp.get_pipe("gemel_linker").model.get_param("W").copy())
    assert np.array_equal(*mappers)


def test_the_picture_reaches_the_answer(nlp: Language) -> None:
    scores = [
        [c.score for c in nlp(mercury(nlp, image)).ents[0]._.gemel_candidates]
        for image in (None, picture("Mercury"), picture("Mercury (planet)"))
    ]
    assert scores[0] != scores[1] != scores[2]


def test_docs_without_image_without_entities_and_blank(nlp: Language) -> None:
    docs = list(nlp.pipe([nlp.make_doc(""), nlp.make_doc("No entity here."), mercury(nlp), mercury(nlp, picture("x"))]))
    assert [len(doc.ents) for doc in docs] == [0, 0, 1, 1]
    assert all(ent.kb_id_ for doc in docs for ent in doc.ents)
    assert "gemel_candidates" not in docs[1].user_data


def test_company_and_batch_size_change_nothing(nlp: Language) -> None:
    def docs() -> list[Doc]:
        return [
            make_doc(nlp, f"{'So far away, ' * index}a photo of Mercury.", "Mercury", image=image)
            for index, image in enumerate([None, picture("a"), picture("Mercury"), None, picture("b", 5)])
        ]

    alone = [nlp(doc) for doc in docs()]
    for size in (2, 100):
        for one, other in zip(alone, nlp.pipe(docs(), batch_size=size), strict=True):
            assert_same(one, other)
    tokens = nlp.get_pipe("gemel_linker").settings.batch_tokens
    try:
        nlp.get_pipe("gemel_linker").configure(batch_tokens=1)
        for one, other in zip(alone, nlp.pipe(docs()), strict=True):
            assert_same(one, other)
    finally:
        nlp.get_pipe("gemel_linker").configure(batch_tokens=tokens)


def test_predict_changes_no_doc(nlp: Language) -> None:
    """Not even one with an image to encode, one that cannot be read, or earlier answers; set_annotations does."""
    pipe: Any = nlp.get_pipe("gemel_linker")
    linked = nlp(mercury(nlp, b"no image"))
    linked._.image = picture("Mercury")
    docs = [mercury(nlp, Image.fromarray(picture("Mercury"))), mercury(nlp, "gone.png"), mercury(nlp), linked]
    before = [doc.to_bytes() for doc in docs]
    user_data = [dict(doc.user_data) for doc in docs]
    predictions = pipe.predict(docs)
    assert [doc.to_bytes() for doc in docs] == before
    assert all(
        doc.user_data[key] is value for doc, old in zip(docs, user_data, strict=True) for key, value in old.items()
    )
    assert [[prediction.unreadable_image for prediction in row] for row in predictions] == [
        [False],
        [True],
        [False],
        [False],
    ]
    pipe.set_annotations(docs, predictions)
    assert all(doc.ents[0].kb_id_ for doc in docs)
    assert [has_unreadable_image(doc) for doc in docs] == [False, True, False, False]


def test_image_forms_give_the_same_result(nlp: Language, tmp_path: Path) -> None:
    array = picture("Mercury", 3)
    path = tmp_path / "picture.png"
    Image.fromarray(array).save(path)
    reference = nlp(mercury(nlp, array))
    for source in (str(path), path.read_bytes(), Image.fromarray(array)):
        doc = nlp(mercury(nlp, source))
        assert_same(reference, doc)
        assert doc.user_data["image"] is doc._.image is source
        again = Doc(nlp.vocab).from_bytes(doc.to_bytes())
        assert isinstance(again.user_data["image"], (str, bytes))
    features = nlp.get_pipe("gemel_linker")._reader.encoder.encode([Image.fromarray(array)])[0]
    doc = mercury(nlp)
    doc.user_data["image_features"] = features
    assert_same(reference, nlp(doc))


def truncated_jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format="JPEG")
    return buffer.getvalue()[:900]


BAD_IMAGES = {
    "does not exist": "nowhere/picture.png",
    "not an image": b"not an image",
    "cannot be decoded": truncated_jpeg(),
    "uint8 of shape": np.zeros((3, 3), dtype=np.uint8),
    "not float32 of shape": np.zeros((3, 3, 3), dtype=np.float32),
    "not dict": {"url": "x"},
}


@pytest.mark.parametrize("reason", BAD_IMAGES)
def test_a_bad_image_is_one_warning_and_the_text_still_links(nlp: Language, reason: str) -> None:
    good, text_only = nlp(mercury(nlp, picture("Mercury"))), nlp(mercury(nlp))
    bad = mercury(nlp, BAD_IMAGES[reason])
    bad.user_data["id"] = "row 7"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        docs = list(nlp.pipe([mercury(nlp, picture("Mercury")), bad, mercury(nlp)]))
    messages = [str(w.message) for w in caught if "gemel_linker" in str(w.message)]
    assert len(messages) == 1
    assert "row 7" in messages[0]
    assert reason in messages[0]
    assert "from the text alone" in messages[0]
    for one, other in zip([good, text_only, text_only], docs, strict=True):
        assert_same(one, other)


def test_bad_features_are_a_warning_too(nlp: Language) -> None:
    doc = mercury(nlp)
    doc.user_data["image_features"] = np.zeros(3, dtype=np.float32)
    with pytest.warns(UserWarning, match=r"image_features must be floats of shape \(24,\)"):
        assert_same(nlp(mercury(nlp)), nlp(doc))


def test_saved_and_loaded_elsewhere_in_a_new_process(nlp: Language, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "first")
    (tmp_path / "moved").mkdir()
    (tmp_path / "first").rename(tmp_path / "moved" / "here")
    expected = nlp(mercury(nlp, picture("Mercury", 4)))
    Image.fromarray(picture("Mercury", 4)).save(tmp_path / "picture.png")
    code = """
import json, sys, spacy
nlp = spacy.load(sys.argv[1])
doc = nlp.make_doc("A photo of Mercury number 3.")
doc.ents = [doc.char_span(11, 18, label="ENT")]
doc.user_data["image"] = sys.argv[2]
doc = nlp(doc)
print(json.dumps([doc.ents[0].kb_id_, [c.score for c in doc.ents[0]._.gemel_candidates]]))
"""
    output = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "moved" / "here"), str(tmp_path / "picture.png")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    ).stdout
    kb_id, scores = json.loads(output.splitlines()[-1])
    assert kb_id == expected.ents[0].kb_id_
    np.testing.assert_allclose(scores, [c.score for c in expected.ents[0]._.gemel_candidates], atol=1e-4)
    own = sum(
        file.stat().st_size
        for file in (tmp_path / "moved" / "here" / "gemel_linker").rglob("*")
        if file.is_file()
        and file.relative_to(tmp_path / "moved" / "here" / "gemel_linker").parts[0] in ("cfg", "model")
    )
    assert own < 5_000_000


def test_bundled_models_go_with_the_pipe(models: Path, kb: Path, tmp_path: Path) -> None:
    """Saved with its models, twice to the same place; then the originals go away."""
    copy = tmp_path / "models"
    shutil.copytree(models, copy)
    nlp = make_pipeline(copy, kb, bundle_models=True)
    nlp.to_disk(tmp_path / "pipeline")
    weights = tmp_path / "pipeline" / "gemel_linker" / "models" / "language_model" / "model.safetensors"
    inode = weights.stat().st_ino
    assert inode == (copy / "language_model" / "model.safetensors").stat().st_ino  # linked, not written
    nlp.to_disk(tmp_path / "pipeline")
    assert weights.stat().st_ino == inode
    expected = nlp(mercury(nlp, picture("Mercury")))
    data = nlp.to_bytes()
    shutil.rmtree(copy)
    loaded = spacy.load(tmp_path / "pipeline")
    assert_same(expected, loaded(mercury(loaded, picture("Mercury"))))
    loaded.to_disk(tmp_path / "again")
    again = spacy.load(tmp_path / "again")
    assert_same(expected, again(mercury(again, picture("Mercury"))))
    unpacked = spacy.blank("en")
    unpacked.add_pipe("gemel_linker", config=make_config(copy, bundle_models=True))
    unpacked.from_bytes(data)
    assert_same(expected, unpacked(mercury(unpacked, picture("Mercury"))))


def test_vectors_of_descriptions_go_with_the_pipe(models: Path, tmp_path: Path) -> None:
    encoder = load_sentence_encoder(str(models / "sentence_encoder"), device="cpu")
    kb = make_kb(tmp_path, models, encode=encoder)
    vectors = KnowledgeBase.open(kb).description_vectors
    nlp = make_pipeline(models, kb)
    nlp.to_disk(tmp_path / "pipeline")
    unpacked = spacy.blank("en")
    unpacked.add_pipe("gemel_linker", config=make_config(models))
    unpacked.from_bytes(nlp.to_bytes())
    for loaded in (spacy.load(tmp_path / "pipeline"), unpacked):
        assert np.array_equal(linker(loaded).kb.description_vectors, vectors)


def test_no_pickle_is_written(nlp: Language, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path)
    pipe = tmp_path / "gemel_linker"
    names = ["added", "cfg", "decision", "demonstrations", "kb", "model", "sums"]
    assert sorted(path.name for path in pipe.iterdir()) == names
    for file in pipe.rglob("*"):
        assert file.is_dir() or not file.read_bytes().startswith(b"\x80\x04"), file


def test_nil_when_the_best_is_not_sure_enough(nlp: Language) -> None:
    pipe: Any = nlp.get_pipe("gemel_linker")
    best = nlp(mercury(nlp)).ents[0]._.gemel_candidates[0]
    try:
        pipe.threshold = best.probability + 1e-6
        assert nlp(mercury(nlp)).ents[0].kb_id_ == "NIL"
        pipe.threshold = best.probability - 1e-6
        assert nlp(mercury(nlp)).ents[0].kb_id_ == best.kb_id
    finally:
        pipe.threshold = None


def test_entities_that_share_a_name_share_its_probability(models: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "Q1", "name": "Mercury", "count": 1},
        {"id": "Q2", "name": "Mercury", "count": 3},
        {"id": "Q3", "name": "Java"},
        {"id": "Mercury_(planet)", "name": "Mercury (planet)"},
    ]
    nlp = make_pipeline(models, make_kb(tmp_path, models, rows))
    candidates = nlp(mercury(nlp)).ents[0]._.gemel_candidates
    by_id = {candidate.kb_id: candidate for candidate in candidates}
    assert set(by_id) == {"Q1", "Q2", "Q3", "Mercury_(planet)"}
    assert by_id["Q2"].probability == pytest.approx(3 * by_id["Q1"].probability)
    assert by_id["Q1"].score == by_id["Q2"].score


def test_candidates_by_hand() -> None:
    found = [scored("A", -1.0, ("a", 1), ("b", 0)), scored("B", -2.0, ("c", 0), ("d", 0))]
    share = 1 / (1 + np.exp(-1.0))
    candidates = to_candidates(found)
    assert [c.kb_id for c in candidates] == ["a", "b", "c", "d"]
    assert [c.probability for c in candidates] == pytest.approx([share, 0, (1 - share) / 2, (1 - share) / 2])
    assert answer_id(Answer(candidates), None) == "a"
    assert answer_id(Answer(candidates), 0.99) == "NIL"
    assert answer_id(Answer(), None) == "NIL"


def test_unconstrained_says_nil_for_what_is_no_name(nlp: Language) -> None:
    pipe = nlp.get_pipe("gemel_linker")
    try:
        pipe.configure(constrained=False)
        doc = nlp(mercury(nlp))
    finally:
        pipe.configure(constrained=True)
    for candidate in doc.ents[0]._.gemel_candidates:
        assert (candidate.kb_id == "NIL") == (entity_id(candidate.name) not in pipe.kb)


def test_golds_that_are_nil_or_unknown_are_skipped(models: Path, kb: Path) -> None:
    nlp = make_pipeline(models, kb)
    data = [
        example(nlp, "A photo of Mercury.", "Mercury", "NIL"),
        example(nlp, "A photo of Java.", "Java", "Nowhere"),
        example(nlp, "A photo of Atlantis.", "Atlantis", "Atlantis", picture("Atlantis")),
    ]
    with pytest.warns(UserWarning, match=r"1 of 3 mentions of the training data are skipped.*Nowhere"):
        nlp.initialize(lambda: data)
    assert nlp.get_pipe("gemel_linker").training_gold_ids == {"Atlantis"}
    losses: dict[str, float] = {}
    nlp.update(data[:2], losses=losses)
    assert losses == {"gemel_linker": 0.0}
    nlp.update([], losses=losses)


def test_golds_whose_name_cannot_be_said_are_skipped(models: Path, tmp_path: Path) -> None:
    rows = [{"id": "long", "name": "Mercury " * 40}, {"id": "Java", "name": "Java"}]
    nlp = add_linker(spacy.blank("en"), models, make_kb(tmp_path, models, rows))
    data = [example(nlp, "A photo of Java.", "Java", "Java"), example(nlp, "Mercury.", "Mercury", "long")]
    with pytest.warns(UserWarning, match="1 of 2 mentions of the training data are skipped"):
        nlp.initialize(lambda: data)
    assert nlp.get_pipe("gemel_linker").training_gold_ids == {"Java"}


def test_a_batch_is_learned_as_its_parts(models: Path, kb: Path) -> None:
    """batch_tokens bounds the memory of a step and changes nothing else."""
    gradients = []
    for tokens in (100_000, 1):
        spacy.util.fix_random_seed(1)
        nlp = make_pipeline(models, kb, batch_tokens=tokens)
        losses: dict[str, float] = {}
        nlp.update(examples(nlp)[:6], sgd=False, losses=losses)
        gradients.append((losses["gemel_linker"], nlp.get_pipe("gemel_linker").model.get_grad("W")))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-4)
    np.testing.assert_allclose(gradients[0][1], gradients[1][1], rtol=1e-2, atol=1e-5)


def test_a_rebuilt_model_is_bundled_anew(models: Path, kb: Path, tmp_path: Path) -> None:
    from tests import tiny

    shutil.copytree(models, tmp_path / "models")
    nlp = make_pipeline(tmp_path / "models", kb, bundle_models=True)
    nlp.to_disk(tmp_path / "pipeline")
    shutil.rmtree(tmp_path / "models" / "language_model")
    tiny.make_language_model(tmp_path / "models" / "language_model", seed=5)
    with pytest.raises(ValueError, match="no longer holds the model that was loaded"):
        nlp.to_disk(tmp_path / "pipeline")  # its mapper was trained on the old one
    anew = make_pipeline(tmp_path / "models", kb, bundle_models=True)
    models_of = [pipeline.get_pipe("gemel_linker").linking_model.language_model for pipeline in (nlp, anew)]
    assert models_of[0] is not models_of[1]
    anew.to_disk(tmp_path / "pipeline")
    indices = [tmp_path / "models", tmp_path / "pipeline" / "gemel_linker" / "models"]
    assert len({(index / "language_model" / "model.safetensors").read_bytes() for index in indices}) == 1


def test_a_doc_without_mentions_still_loses_its_pil_image(nlp: Language) -> None:
    doc = nlp.make_doc("No entity here.")
    doc.user_data["image"] = Image.fromarray(picture("Mercury"))
    nlp(doc).to_bytes()


def test_an_item_never_sees_itself_in_training(nlp: Language) -> None:
    pipe = nlp.get_pipe("gemel_linker")
    for index, shown in enumerate(pipe.store):
        query = Query(shown.mention, shown.text)
        in_training = pipe.linking_model.rank_demonstrations(query, pipe.settings, training=True)
        assert all(pipe.store[other].text != shown.text for other in in_training)
        assert len(in_training) == 3
        assert index in pipe.linking_model.rank_demonstrations(query, pipe.settings) or shown.mention == "Mercury"


def test_fewer_demonstrations_while_learning(models: Path, kb: Path) -> None:
    pipe = make_pipeline(models, kb, n_training_demonstrations=1).get_pipe("gemel_linker")
    query = Query("Mercury", "A text.")
    whole = pipe.linking_model.rank_demonstrations(query, pipe.settings)
    assert len(whole) == 3
    assert pipe.linking_model.rank_demonstrations(query, pipe.settings, training=True) == whole[:1]


@pytest.mark.parametrize("retriever", ["NoRetriever", "RandomRetriever", "BM25Retriever"])
def test_other_retrievers(models: Path, kb: Path, retriever: str) -> None:
    nlp = make_pipeline(models, kb, retriever={"@misc": f"spacy_gemel.{retriever}.v1"})
    doc = nlp(mercury(nlp, picture("Mercury")))
    shown = nlp.get_pipe("gemel_linker").demonstrations_for(doc, doc.ents[0])
    assert len(shown) == (0 if retriever == "NoRetriever" else 3)


def test_a_long_prompt_drops_demonstrations_and_says_so_once(models: Path, kb: Path, tmp_path: Path) -> None:
    from tests import tiny

    tiny.make_language_model(tmp_path / "short", max_position_embeddings=200)
    small = {"@misc": "spacy_gemel.CausalLM.v1", "name": str(tmp_path / "short")}
    nlp = make_pipeline(models, kb, language_model=small, n_demonstrations=16)
    with pytest.warns(UserWarning, match="least similar demonstrations are left out") as caught:
        docs = list(nlp.pipe([mercury(nlp), mercury(nlp)]))
    assert len([w for w in caught if "left out" in str(w.message)]) == 1
    assert all(doc.ents[0].kb_id_ != "NIL" for doc in docs)
    shown = nlp.get_pipe("gemel_linker").demonstrations_for(docs[0], docs[0].ents[0])
    assert 0 < len(shown) < 16  # those that are in the prompt
    with pytest.raises(ValueError, match="not among the doc's entities"):
        nlp.get_pipe("gemel_linker").demonstrations_for(docs[0], docs[0][0:1])
    long = make_doc(nlp, "word " * 300 + "Mercury", "Mercury")
    with pytest.warns(UserWarning, match="text is too long for the language model"):
        docs = list(nlp.pipe([mercury(nlp), long]))
    assert [doc.ents[0].kb_id_ == "NIL" for doc in docs] == [False, True]
    assert [reasons_in(doc) for doc in docs] == [{}, {(1500, 1507): "its text is too long for the language model"}]
    twice = doc_of(nlp, "word " * 300 + "Mercury Java", ("Mercury", "ENT", ""), ("Java", "ENT", ""))
    with pytest.warns(UserWarning, match="'Mercury' and 1 more mentions in .* are linked to 'NIL'") as caught:
        doc = nlp(twice)
    assert len(caught) == 1
    assert len(reasons_in(doc)) == 2
    nlp.get_pipe("gemel_linker").configure(labels_discard=["ENT"])
    assert {*reasons_in(nlp(doc)).values()} == {"its label is in labels_discard"}


def test_names_end_with_eos_where_asked(models: Path, kb: Path) -> None:
    nlp = make_pipeline(models, kb, name_end="eos")
    pipe = nlp.get_pipe("gemel_linker")
    assert pipe.linking_model.end_id(pipe.settings) == 1
    assert nlp(mercury(nlp)).ents[0].kb_id_


# One clear error each, before any long work


def test_a_knowledge_base_without_entities(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="entit"):
        make_kb(tmp_path, models, [{"nothing": 1}])


@pytest.mark.parametrize("block", ["language_model", "vision_encoder", "retriever"])
def test_a_model_that_is_not_there(models: Path, kb: Path, block: str) -> None:
    config = {**make_config(models)[block], "name": "./models/nowhere"}
    with pytest.raises(ValueError, match=r"'\./models/nowhere' does not exist"):
        make_pipeline(models, kb, **{block: config})


def test_training_data_without_one_usable_mention(models: Path, kb: Path) -> None:
    nlp = add_linker(spacy.blank("en"), models, kb)
    for gold in ("NIL", "Nowhere"):
        with pytest.raises(ValueError, match="no usable mention"):
            nlp.initialize(lambda: [example(nlp, "A photo of Mercury.", "Mercury", gold)])  # noqa: B023
