"""What the contract's tests share: a small trained pipeline, the same one saved, and a corpus with pictures on disk."""

from pathlib import Path

import pytest
from spacy.language import Language
from spacy.util import fix_random_seed

from tests.contract.world import train, write_corpus
from tests.mini_pipeline import make_kb, make_pipeline


@pytest.fixture(scope="session")
def kb(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A knowledge base of the names that the small models know."""
    return make_kb(tmp_path_factory.mktemp("contract-kb"), models)


@pytest.fixture(scope="session")
def trained(models: Path, kb: Path) -> Language:
    """Trained for a few steps, so that its pictures count; not changed by the tests."""
    fix_random_seed(0)
    nlp = make_pipeline(models, kb)
    train(nlp, 10)
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
