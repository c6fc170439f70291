"""The mapper against its formula."""

import numpy as np
import pytest
from thinc.api import Model

from spacy_gemel.models.mapper import init_to_embedding_scale, linear_mapper, standardise, standardise_by


def test_the_mapper_is_one_linear_layer() -> None:
    model = linear_mapper(4)
    assert isinstance(model, Model)
    assert model.name == "linear"
    model.set_dim("nI", 5)
    model.set_dim("nO", 4 * 3)
    model.initialize()
    inputs = np.random.default_rng(0).normal(size=(2, 5)).astype("f")
    expected = inputs @ model.get_param("W").T + model.get_param("b")
    np.testing.assert_allclose(model.predict(inputs), expected, atol=1e-6)
    with pytest.raises(ValueError, match="prefix_length"):
        linear_mapper(0)
    init_to_embedding_scale(model, inputs, 0.02)
    assert np.sqrt((model.predict(inputs) ** 2).mean()) == pytest.approx(0.02, rel=1e-4)
    init_to_embedding_scale(model, inputs[:0], 7.0)  # nothing to measure by: nothing changes
    assert np.sqrt((model.predict(inputs) ** 2).mean()) == pytest.approx(0.02, rel=1e-4)


def test_a_new_start_forgets_how_features_were_standardised() -> None:
    model = linear_mapper(2)
    model.set_dim("nI", 3)
    model.set_dim("nO", 4)
    model.initialize()
    features = np.random.default_rng(0).normal(5.0, 2.0, size=(6, 3)).astype("f")
    standardise_by(model, features)
    np.testing.assert_allclose(standardise(model, features).mean(0), 0, atol=1e-5)
    init_to_embedding_scale(model, features, 0.02)
    np.testing.assert_array_equal(standardise(model, features), features)
