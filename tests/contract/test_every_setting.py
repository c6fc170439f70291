"""A config with every setting away from its default: saved and loaded, it says and links the same."""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.util import load_model_from_config
from thinc.api import Config
from typer.testing import CliRunner

from spacy_gemel.__main__ import app
from spacy_gemel.pipeline.gemel_linker import DEFAULT_CONFIG, make_gemel_linker
from tests.mini_pipeline import CHANGED, COLOURS, LINKER, assert_same, captions, entity_id, examples

# What no answer shows where images are not looked at, or nearly all is NIL
AS_IN_USE = {"use_image": True, "constrained": True, "threshold": None}


@spacy.registry.misc("tests.three_mercuries.v1")
def three_mercuries() -> Callable[[Any, Any], list[str]]:
    return lambda kb, span: [entity_id(name) for name in COLOURS]


def settings_of(models: Path, features: Path) -> dict[str, Any]:
    """A value for each setting that is not its default."""
    return {
        **CHANGED,
        "labels_discard": list(CHANGED["labels_discard"]),
        "bundle_models": True,
        "image_features": str(features),
        "verify": True,
        "model": {"@architectures": "spacy_gemel.LinearMapper.v1", "prefix_length": 3},
        "language_model": {
            "@misc": "spacy_gemel.CausalLM.v1",
            "name": str(models / "language_model"),
            "revision": "main",
            "device": "cpu",
            "dtype": "bfloat16",
            "bos": True,
            "quantization": None,  # needs bitsandbytes: tests/models/test_quantization.py
        },
        "vision_encoder": {
            "@misc": "spacy_gemel.OpenCLIP.v1",
            "name": str(models / "vision_encoder"),
            "pretrained": None,
            "projection": True,
            "text": True,
            "revision": None,  # open_clip has none: anything else is refused
            "device": "cpu",
            "dtype": "bfloat16",
        },
        "retriever": {
            "@misc": "spacy_gemel.SentenceTransformerRetriever.v1",
            "name": str(models / "sentence_encoder-plain"),
            "revision": "main",
            "device": "cpu",
            "pooling": "cls",
        },
        "features": {**DEFAULT_CONFIG["features"], "length": None},
        "get_candidates": {"@misc": "tests.three_mercuries.v1"},
        "scorer": None,
    }


FACTORY = [name for name in inspect.signature(make_gemel_linker).parameters if name not in ("nlp", "name")]


@pytest.fixture(scope="module")
def features(models: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus's pictures, encoded by the encoder of `settings_of`."""
    folder = tmp_path_factory.mktemp("features")
    block = {"factory": LINKER, "vision_encoder": settings_of(models, folder)["vision_encoder"]}
    Config({"nlp": {"lang": "en"}, "components": {LINKER: block}}).to_disk(folder / "linker.cfg")
    words = ["encode-images", corpus, "--config", folder / "linker.cfg", "--output", folder / "features", "--quiet"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return folder / "features"


def make(settings: dict[str, Any], kb: Path) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe(LINKER, config=settings)
    loader = {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(kb), "verify": True}
    nlp.config["initialize"]["components"][LINKER] = {"kb_loader": loader}
    nlp.initialize(lambda: examples(nlp))
    for _ in range(3):
        nlp.update(examples(nlp))
    return nlp


def test_each_setting_has_a_value_here_that_is_not_its_default(models: Path) -> None:
    changed = settings_of(models, models)
    assert set(DEFAULT_CONFIG) == set(FACTORY)
    for name in FACTORY:
        assert name in changed, f"{name}: add a value that is not its default"
        assert changed[name] != DEFAULT_CONFIG[name], name
    for block in ("language_model", "vision_encoder", "retriever"):
        resolved = spacy.registry.misc.get(changed[block]["@misc"])
        assert set(inspect.signature(resolved).parameters) == set(changed[block]) - {"@misc"}, block


@pytest.mark.parametrize("kept", [{}, AS_IN_USE], ids=["all", "all but the ablations"])
def test_saved_and_loaded_it_is_the_same(
    models: Path, kb: Path, features: Path, tmp_path: Path, kept: dict[str, Any]
) -> None:
    settings = settings_of(models, features) | kept
    nlp = make(settings, kb)
    pipe: Any = nlp.get_pipe(LINKER)
    docs = list(nlp.pipe(captions(nlp, 6)))
    assert pipe.feature_folder == features
    nlp.to_disk(tmp_path / "saved")
    loaded = spacy.load(tmp_path / "saved")
    from_bytes = load_model_from_config(Config().from_str(nlp.config.to_str())).from_bytes(nlp.to_bytes())
    loaded.to_disk(tmp_path / "again")
    for other in (loaded, from_bytes, spacy.load(tmp_path / "again")):
        block = other.config["components"][LINKER]
        assert {name: block[name] for name in settings} == settings
        same: Any = other.get_pipe(LINKER)
        assert dataclasses.asdict(same.settings) == dataclasses.asdict(pipe.settings)
        assert (same.bundle_models, same.feature_folder) == (True, pipe.feature_folder)
        assert [*map(type, same.features)] == [*map(type, pipe.features)]
        assert_same(list(other.pipe(captions(other, 6))), docs)
    answers = {ent.kb_id_ for doc in docs for ent in doc.ents}
    assert all(len(ent._.gemel_candidates) <= 3 for doc in docs for ent in doc.ents)
    if kept:
        assert answers - {"NIL"}
    else:  # where the search says what is no entity, only the prior knows one
        assert answers <= {"NIL", *pipe.linking_model.prior.of("Mercury")}
    assert entity_id("Mercury") in pipe.kb
