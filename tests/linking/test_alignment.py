"""The mapper's first stage: what it learns, from where it starts, and what it leaves alone."""

from pathlib import Path

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.util import fix_random_seed

from spacy_gemel.linking.alignment import Alignment
from spacy_gemel.models.mapper import fit_to_embeddings, linear_mapper, standardise, standardise_by
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from tests.mini_pipeline import COLOURS, LINKER, add_linker, entity_id, examples, make_doc, make_pipeline, picture


def aligned(models: Path, kb: Path, **alignment: float) -> Language:
    nlp = add_linker(spacy.blank("en"), models, kb, n_demonstrations=0)
    block = {"@misc": "spacy_gemel.Alignment.v1", "copies": 1, "batch_size": 6, **alignment}
    nlp.config["initialize"]["components"][LINKER]["alignment"] = block
    fix_random_seed(0)
    nlp.initialize(lambda: examples(nlp))
    return nlp


def test_it_learns_names_from_pictures_alone(models: Path, kb: Path) -> None:
    nlp = aligned(models, kb, passes=30, rate=0.03, noise=0.1)
    docs = [make_doc(nlp, "A photo of Mercury number 9.", "Mercury", image=picture(name, 9)) for name in COLOURS]
    assert [doc.ents[0].kb_id_ for doc in nlp.pipe(docs)] == [entity_id(name) for name in COLOURS]


def test_the_same_seed_gives_the_same_mapper_and_it_is_saved_with_the_pipe(
    models: Path, kb: Path, tmp_path: Path
) -> None:
    first, second = (aligned(models, kb, passes=1).get_pipe(LINKER) for _ in range(2))
    np.testing.assert_array_equal(first.model.get_param("W"), second.model.get_param("W"))
    first.to_disk(tmp_path)
    loaded = make_pipeline(models, kb, n_demonstrations=0).get_pipe(LINKER)
    assert isinstance(loaded, GemelLinker)
    loaded.from_disk(tmp_path)
    features = first.store.features
    np.testing.assert_array_equal(standardise(loaded.model, features), standardise(first.model, features))
    np.testing.assert_array_equal(loaded.model.get_param("W"), first.model.get_param("W"))


def test_the_start_is_a_ridge_regression() -> None:
    """Where features tell the names' embeddings apart, each soft token starts near the name's, at their scale."""
    rng = np.random.default_rng(0)
    features = rng.normal(3.0, 7.0, size=(400, 5)).astype("f")
    standardised = (features - features.mean(0)) / features.std(0)
    targets = standardised @ rng.normal(size=(5, 8)).astype("f") + 2.0
    model = linear_mapper(3)
    model.set_dim("nI", 5)
    model.set_dim("nO", 24)
    model.initialize()
    standardise_by(model, features)
    fit_to_embeddings(model, features, targets, float(np.sqrt(np.square(targets - targets.mean(0)).mean())))
    soft = model.predict(standardise(model, features)).reshape(400, 3, 8)
    for token in range(3):
        assert np.corrcoef(soft[:, token].ravel(), targets.ravel())[0, 1] > 0.99
        assert np.square(soft[:, token]).mean() == pytest.approx(np.square(targets).mean(), rel=0.05)


@pytest.mark.parametrize("wrong", [{"passes": 0}, {"batch_size": 0}, {"rate": 0.0}, {"copies": -1}, {"noise": -0.1}])
def test_values_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="alignment: passes and batch_size must be at least 1"):
        Alignment(**wrong)
