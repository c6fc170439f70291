"""A pipe that uses the features that encode-images stored."""

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pytest
import spacy
from PIL import Image
from spacy.language import Language
from spacy.util import load_model_from_config
from thinc.api import Config
from typer.testing import CliRunner

from spacy_gemel.__main__ import app
from spacy_gemel.images.feature_store import FeatureStore, content_key
from spacy_gemel.models import frozen
from spacy_gemel.models.vision_encoder import VisionEncoder
from tests.image_corpus import make_image_corpus
from tests.mini_pipeline import COLOURS, add_linker, entity_id, make_doc, make_pipeline, picture


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["encode-images", *map(str, arguments), "--quiet"])


@pytest.fixture(scope="module")
def world(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, corpus.spacy, linker.cfg, and kb."""
    return make_image_corpus(tmp_path_factory.mktemp("world"), models)


@pytest.fixture(scope="module")
def features(world: Path) -> Path:
    result = call(world / "corpus.spacy", "--config", world / "linker.cfg", "--output", world / "features")
    assert result.exit_code == 0, result.output
    return world / "features"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many images an encoder is given, from now on."""
    # pipes of one process share an encoder and what it has kept: none that another test left alive is taken
    monkeypatch.setattr(frozen, "_LOADED", WeakValueDictionary())
    counted: list[int] = []
    encode = VisionEncoder.encode_pixels

    def counting(self: VisionEncoder, images: Any) -> Any:
        if len(images):
            counted.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(VisionEncoder, "encode_pixels", counting)
    yield counted


def docs_of(nlp: Language, world: Path) -> list[Any]:
    return [
        make_doc(nlp, "A photo of Mercury.", "Mercury", image=str(world / "pictures" / f"{entity_id(name)}-0.png"))
        for name in COLOURS
    ]


def pipeline_on(world: Path, models: Path, **changes: Any) -> Language:
    """Trained on the world's corpus, whose images are files."""
    from spacy_gemel.data.reader import MultimodalCorpus

    nlp = add_linker(spacy.blank("en"), models, world / "kb", **changes)
    corpus = MultimodalCorpus(world / "corpus.spacy", gold_ents=True)
    nlp.initialize(lambda: corpus(nlp))
    return nlp


def test_the_stored_features_are_the_encoders(world: Path, features: Path, models: Path) -> None:
    from spacy_gemel.registry import open_clip_encoder

    encoder = open_clip_encoder(str(models / "vision_encoder")).load("cpu")
    store = FeatureStore(features)
    for path in sorted((world / "pictures").iterdir()):
        with Image.open(path) as image:
            expected = encoder.encode([image.convert("RGB")])[0]
        np.testing.assert_allclose(store.find(content_key(path) or b""), expected, atol=1e-6)


def test_a_pipe_gives_the_same_with_and_without(
    world: Path, features: Path, models: Path, encoded: list[int], tmp_path: Path
) -> None:
    plain = pipeline_on(world, models)
    assert sum(encoded) >= 18
    with_features = pipeline_on(world, models, image_features=str(features))
    pipe, other = with_features.get_pipe("gemel_linker"), plain.get_pipe("gemel_linker")
    encoded.clear()
    np.testing.assert_allclose(pipe.store.features, other.store.features, atol=1e-6)
    for name in ("W", "b"):
        pipe.model.set_param(name, other.model.get_param(name))
    linked, expected = (list(nlp.pipe(docs_of(nlp, world))) for nlp in (with_features, plain))
    for one, two in zip(linked, expected, strict=True):
        assert [token.ent_kb_id_ for token in one] == [token.ent_kb_id_ for token in two]
        rows = [doc.user_data["gemel_candidates"] for doc in (one, two)]
        scores = [np.array([candidate[2] for candidate in row[0][2:]]) for row in rows]
        np.testing.assert_allclose(*scores, atol=1e-4)
    # saved and loaded, from a folder and from bytes: the features are still used
    with_features.to_disk(tmp_path / "pipeline")
    assert Config().from_disk(tmp_path / "pipeline/config.cfg")["components"]["gemel_linker"]["image_features"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = spacy.load(tmp_path / "pipeline")
    encoded.clear()
    list(loaded.pipe(docs_of(loaded, world)))
    assert encoded == []
    copy = load_model_from_config(with_features.config)
    copy.from_bytes(with_features.to_bytes())
    list(copy.pipe(docs_of(copy, world)))
    assert encoded == []
    new = make_doc(loaded, "A photo of Mercury.", "Mercury", image=picture("Mercury", 99))
    loaded(new)
    assert encoded == [1]  # an image that is not there is encoded as ever
    for one, two in zip(loaded.pipe(docs_of(loaded, world), n_process=2, batch_size=1), linked, strict=True):
        assert [token.ent_kb_id_ for token in one] == [token.ent_kb_id_ for token in two]


def test_features_that_went_are_one_warning(
    world: Path, features: Path, models: Path, encoded: list[int], tmp_path: Path
) -> None:
    mine = shutil.copytree(features, tmp_path / "features")
    nlp = pipeline_on(world, models, image_features=str(mine))
    nlp.to_disk(tmp_path / "pipeline")
    expected = [[token.ent_kb_id_ for token in doc] for doc in nlp.pipe(docs_of(nlp, world))]

    def loads(says: str) -> None:
        with pytest.warns(UserWarning, match="image_features are not used") as caught:
            loaded = spacy.load(tmp_path / "pipeline")
        message = [str(item.message) for item in caught if "image_features" in str(item.message)]
        assert len(message) == 1
        assert says in message[0]
        encoded.clear()
        assert [[token.ent_kb_id_ for token in doc] for doc in loaded.pipe(docs_of(loaded, world))] == expected
        assert sum(encoded) == 3

    rows = mine / "00000.rows.npy"
    rows.write_bytes(rows.read_bytes()[:-4])
    loads("is damaged: 00000.rows.npy cannot be read: it has the wrong size")
    shutil.rmtree(mine)
    loads("holds no image features")


def test_training_with_features_that_cannot_be_used_is_an_error(
    world: Path, features: Path, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"image_features: .*none holds no image features.*encode-images"):
        make_pipeline(models, world / "kb", image_features=str(tmp_path / "none"))
    mine = shutil.copytree(features, tmp_path / "features")
    rows = mine / "00000.rows.npy"
    rows.write_bytes(rows.read_bytes()[:-3] + b"\x00\x00\x01")  # the right length, another number
    with pytest.raises(ValueError, match=r"image_features: .*checksum"):
        make_pipeline(models, world / "kb", image_features=str(mine))
    other = {"@misc": "spacy_gemel.OpenCLIP.v1", "name": str(models / "vision_encoder"), "projection": True}
    with pytest.raises(ValueError, match=r"image_features: .*another vision encoder.*set image_features = null"):
        make_pipeline(models, world / "kb", image_features=str(features), vision_encoder=other)


def test_the_benchmark_runs(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from spacy.vocab import Vocab

    from benchmarks import encode_images
    from spacy_gemel.data.reader import read_docs

    docs = list(read_docs(world / "corpus.spacy", Vocab()))
    monkeypatch.setattr(encode_images, "make_docs", lambda folder, images: docs[:images])
    monkeypatch.setattr(encode_images, "large_encoder", encode_images.mini_encoder)
    monkeypatch.setattr(encode_images, "describe_machine", dict)
    encode_images.main(["--images", "8"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["mini"]["docs"] == 8
    assert result["mini"]["largest_difference"] <= 1e-6
    assert result["mini"]["times_faster"] > 0
