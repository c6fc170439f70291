"""What all tests share: small random models of the real classes, made once per session."""

import os
from pathlib import Path

# Both before any library reads them. No test goes to the network; workers of two threads each would be in the way.
os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tests import tiny


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests as well")
    parser.addoption("--gpu", action="store_true", help="run the tests that need a CUDA device")


def pytest_configure(config: pytest.Config) -> None:
    """Generated cases are the same in every run, so that one that fails was failed by the change; --slow draws anew."""
    settings.register_profile("spacy-gemel", derandomize=not config.getoption("--slow"))
    settings.load_profile("spacy-gemel")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for mark in ("slow", "gpu"):
            if mark in item.keywords and not config.getoption(f"--{mark}"):
                item.add_marker(pytest.mark.skip(reason=f"needs --{mark}"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with language_model, vision_encoder and sentence_encoder."""
    folder = tmp_path_factory.mktemp("models")
    tiny.make_language_model(folder / "language_model")
    tiny.make_vision_encoder(folder / "vision_encoder")
    tiny.make_sentence_encoder(folder / "sentence_encoder")
    return folder
