"""One knowledge base and one trained pipeline for all of these tests."""

from pathlib import Path

import pytest
from spacy.language import Language

from tests.entity_linker.world import make_nlp, make_world_kb, training_data
from tests.mini_pipeline import train


@pytest.fixture(scope="package")
def kb(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world_kb(tmp_path_factory.mktemp("kb"), models)


@pytest.fixture(scope="package")
def trained(models: Path, kb: Path) -> Language:
    """It has learned its few pictures by heart; no test changes it for good."""
    nlp = make_nlp(models, kb)
    losses = train(nlp, 60, training_data(nlp))
    assert losses[-1] < losses[0] / 4
    return nlp
