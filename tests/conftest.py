"""Fixtures of all tests, made once per session: small random models, a knowledge base, a trained pipeline, a corpus."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Both before any library reads them. No test goes to the network; the models are too small for several threads.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings
from spacy.language import Language
from spacy.util import fix_random_seed

from tests import tiny
from tests.hub import WRITER, Hub, serving
from tests.mini_pipeline import make_kb, make_pipeline, train, write_corpus


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests as well")
    parser.addoption("--gpu", action="store_true", help="run the tests that need a CUDA device")


def pytest_configure(config: pytest.Config) -> None:
    # A job in the background, as a CI server may start it, ignores Ctrl-C, and so would the tests that send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Generated cases are the same in every run, so that one that fails was failed by the change; --slow draws anew.
    # Neither a deadline nor a check of the time that they take to draw: a busy machine misses both.
    settings.register_profile(
        "spacy-gemel",
        derandomize=not config.getoption("--slow"),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
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


@pytest.fixture(scope="session")
def kb(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A knowledge base of the names that the small models know."""
    return make_kb(tmp_path_factory.mktemp("kb"), models)


@pytest.fixture(scope="session")
def trained(models: Path, kb: Path) -> Language:
    """Trained for a few steps, so that its images count. Tests change it only by `overridden`, or take a copy."""
    fix_random_seed(0)
    nlp = make_pipeline(models, kb)
    train(nlp, 10)
    return nlp


@pytest.fixture(scope="session")
def saved(trained: Language, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the trained pipeline; no test changes it."""
    folder = tmp_path_factory.mktemp("saved")
    trained.to_disk(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(trained: Language, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .spacy file of 108 captions with gold ids and the paths of their images."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), trained)


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that huggingface_hub takes for its own in this process, with an empty cache and the writer's token."""
    from huggingface_hub import constants

    home = tmp_path_factory.mktemp("hf_home")
    with serving() as (hub, address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(home / "assets"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield hub
