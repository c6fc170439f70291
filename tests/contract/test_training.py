"""initialize, update, rehearse and the optimizer's ways through a pipe."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.training import Example
from spacy.vocab import Vocab

from tests.mini_pipeline import (
    LINKER,
    add_linker,
    assert_same,
    captions,
    example,
    examples,
    linker,
    make_pipeline,
    picture,
    train,
)


@pytest.fixture
def nlp(models: Path, kb: Path) -> Language:
    """Initialized, not trained; the test's own."""
    return make_pipeline(models, kb)


def weights(nlp: Language) -> np.ndarray:
    return linker(nlp).model.get_param("W").copy()


def with_loader(models: Path, loader: dict[str, Any] | None) -> Language:
    nlp = add_linker(spacy.blank("en"), models)
    if loader is not None:
        nlp.config["initialize"]["components"][LINKER] = loader
    return nlp


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (None, "no knowledge base"),
        ({"kb_loader": None}, "no knowledge base"),
        ({"kb_loader": {"@misc": "spacy_gemel.KBFromDisk.v1", "path": "./nowhere"}}, "nowhere"),
        ({"kb_loader": {"@misc": "spacy_gemel.KBFromDisk.v1", "path": __file__}}, "test_training.py"),
        ({"kb_loader": {"@misc": "spacy_gemel.KBFromDisk.v9", "path": "kb"}}, "KBFromDisk.v9"),
        ({"kb_loader": {"@misc": "spacy_gemel.KBFromDisk.v1"}}, "path"),
        ({"kb": "here"}, "kb"),
    ],
)
def test_a_loader_that_is_missing_or_wrong_is_one_error(
    models: Path, loader: dict[str, Any] | None, message: str
) -> None:
    nlp = with_loader(models, loader)
    with pytest.raises(ValueError, match=message):
        nlp.initialize(lambda: examples(nlp))


def test_a_loader_is_called_with_the_vocab(models: Path, kb: Path) -> None:
    from spacy_gemel.registry import kb_from_disk

    nlp = with_loader(models, None)
    seen: list[Vocab] = []

    def loader(vocab: Vocab) -> Any:
        seen.append(vocab)
        return kb_from_disk(str(kb))(vocab)

    linker(nlp).initialize(lambda: examples(nlp), nlp=nlp, kb_loader=loader)
    assert seen == [nlp.vocab]
    assert len(linker(nlp).kb) > 0


@pytest.mark.parametrize("given", [None, [], "examples", lambda: None, list, lambda: ["text"]])
def test_initialize_takes_examples_only(models: Path, kb: Path, given: Any) -> None:
    from spacy_gemel.registry import kb_from_disk

    nlp = with_loader(models, None)
    with pytest.raises((TypeError, ValueError)):
        linker(nlp).initialize(given, nlp=nlp, kb_loader=kb_from_disk(str(kb)))


def test_initialized_again_it_begins_anew(nlp: Language) -> None:
    train(nlp, 2)
    trained = weights(nlp)
    nlp.initialize(lambda: examples(nlp)[:6])
    assert len(linker(nlp).store) == 6
    assert not np.array_equal(trained, weights(nlp))
    assert train(nlp, 1)[0] > 0


def test_losses_add_up_under_the_pipes_name(nlp: Language) -> None:
    data = examples(nlp)[:4]
    losses = {"ner": 3.0, LINKER: 1.0}
    assert linker(nlp).update(data, losses=losses) is losses
    assert losses["ner"] == 3.0
    alone = nlp.update(data, sgd=False)[LINKER]
    assert losses[LINKER] == pytest.approx(1.0 + alone, rel=1e-4)
    assert alone > 0


def test_without_an_optimizer_gradients_gather(nlp: Language) -> None:
    """sgd=False and None of the pipe leave the step to finish_update, as spaCy's loop has it."""
    data, pipe = examples(nlp)[:6], linker(nlp)
    before, bias = weights(nlp), pipe.model.get_param("b").copy()
    pipe.update(data, sgd=None)
    pipe.update(data, sgd=False)
    assert np.array_equal(weights(nlp), before)
    twice = pipe.model.get_grad("W").copy()
    optimizer = nlp.create_optimizer()
    pipe.finish_update(optimizer)
    assert not np.array_equal(weights(nlp), before)
    pipe.model.set_param("W", before)
    pipe.model.set_param("b", bias)
    pipe.update(data, sgd=False)
    np.testing.assert_allclose(2 * pipe.model.get_grad("W"), twice, rtol=1e-3, atol=1e-5)


def test_nothing_to_learn_from(nlp: Language) -> None:
    before, pipe = weights(nlp), linker(nlp)
    doc = nlp.make_doc("Nothing here.")
    for data in ([], [Example(doc, doc.copy())], [Example(nlp.make_doc(""), nlp.make_doc(""))]):
        assert pipe.update(data, sgd=nlp.create_optimizer()) == {LINKER: 0.0}
        assert pipe.update(data, sgd=nlp.create_optimizer(), losses={LINKER: 2.0}) == {LINKER: 2.0}
    assert np.array_equal(weights(nlp), before)
    with pytest.raises(TypeError):
        pipe.update([doc])


def test_dropout_is_taken_and_changes_nothing(nlp: Language) -> None:
    data = examples(nlp)[:4]
    assert nlp.update(data, drop=0.5, sgd=False) == pytest.approx(nlp.update(data, drop=0.0, sgd=False))


def test_update_changes_no_doc(nlp: Language) -> None:
    data = examples(nlp)[:3]
    golds = [eg.reference.ents[0].kb_id_ for eg in data]
    linker(nlp).update(data, sgd=nlp.create_optimizer())
    assert [eg.reference.ents[0].kb_id_ for eg in data] == golds
    assert [eg.predicted.ents[0].kb_id_ for eg in data] == ["", "", ""]


def test_spacys_own_reader_trains_with_the_images_of_the_gold_docs(nlp: Language) -> None:
    """Predicted docs of the bare text, as spacy.Corpus.v1 makes them."""
    bare = [Example(nlp.make_doc(eg.reference.text), eg.reference) for eg in examples(nlp)[:6]]
    assert nlp.update(bare, sgd=False) == pytest.approx(nlp.update(examples(nlp)[:6], sgd=False), rel=1e-4)


def test_rehearse_is_refused(nlp: Language) -> None:
    with pytest.raises(NotImplementedError, match="gemel_linker: rehearse is not supported; update"):
        linker(nlp).rehearse(examples(nlp), sgd=nlp.create_optimizer(), losses={})
    nlp.resume_training()
    with pytest.raises(NotImplementedError, match="rehearse is not supported"):
        nlp.rehearse(examples(nlp)[:2])


def test_resume_training(nlp: Language) -> None:
    train(nlp, 2)
    expected = list(nlp.pipe(captions(nlp)))
    before = weights(nlp)
    optimizer = nlp.resume_training()
    assert np.array_equal(weights(nlp), before)
    assert_same(list(nlp.pipe(captions(nlp))), expected)
    nlp.update(examples(nlp), sgd=optimizer)
    assert not np.array_equal(weights(nlp), before)


def test_use_params_lends_other_weights(nlp: Language) -> None:
    expected = list(nlp.pipe(captions(nlp)))
    optimizer = nlp.create_optimizer()
    optimizer.averages = {}
    optimizer.learn_rate = 0.05
    for _ in range(3):
        nlp.update(examples(nlp), sgd=optimizer)
    after = list(nlp.pipe(captions(nlp)))
    model = linker(nlp).model
    assert (model.id, "W") in optimizer.averages
    with nlp.use_params(optimizer.averages):
        assert np.array_equal(model.get_param("W"), optimizer.averages[model.id, "W"])
        averaged = list(nlp.pipe(captions(nlp)))
    assert_same(list(nlp.pipe(captions(nlp))), after)
    scores = [[doc.ents[0]._.gemel_candidates[0].score for doc in docs] for docs in (expected, averaged, after)]
    assert scores[0] != scores[1] != scores[2]


def test_labels_and_resizing(nlp: Language) -> None:
    """It has no labels, and says so to whoever asks."""
    pipe = linker(nlp)
    assert pipe.labels == ()
    assert pipe.label_data is None
    assert pipe.is_trainable
    assert not pipe.is_resizable
    with pytest.raises(NotImplementedError):
        pipe.add_label("ENT")


def test_an_annotating_linker_annotates_while_it_learns(nlp: Language) -> None:
    """annotates=: the pipes after it see its answers on the predicted docs."""
    seen: list[str] = []

    @Language.component("contract_witness")
    def witness(doc: Any) -> Any:
        return doc

    class Witness:
        def update(self, examples: list[Example], **_: Any) -> None:
            seen.extend(eg.predicted.ents[0].kb_id_ for eg in examples)

        def __call__(self, doc: Any) -> Any:
            return doc

    nlp.add_pipe("contract_witness", name="witness")
    nlp._components = [(name, Witness() if name == "witness" else pipe) for name, pipe in nlp._components]
    data = [example(nlp, "A photo of Mercury.", "Mercury", "Mercury", picture("Mercury")) for _ in range(3)]
    nlp.update(data)
    assert seen == ["", "", ""]
    seen.clear()
    nlp.update(data, annotates=[LINKER])
    assert len(seen) == 3
    assert all(seen)
