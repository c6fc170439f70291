"""What the contract's tests share: a small trained pipeline, the same one saved, and a corpus with pictures on disk."""

from pathlib import Path

import pytest
from spacy.language import Language

from tests.contract.world import train, write_corpus
from tests.pipeline import make_kb, make_pipeline


@pytest.fixture(scope="session")
def kb(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A knowledge base of the names that the small models know."""
    return make_kb(tmp_path_factory.mktemp("contract-kb"), models)


@pytest.fixture(scope="session")
def trained(models: Path, kb: Path) -> Language:
    """Trained until it tells some of its pictures apart; not changed by the tests."""
    nlp = make_pipeline(models, kb)
    train(nlp, 25)
    return nlp


@pytest.fixture(scope="session")
def saved(trained: Language, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the trained pipeline; not changed by the tests."""
    folder = tmp_path_factory.mktemp("contract-saved")
    trained.to_disk(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(trained: Language, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .spacy file of captions with their golds and the paths of their pictures."""
    return write_corpus(tmp_path_factory.mktemp("contract-corpus"), trained)
