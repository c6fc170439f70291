"""encode-images as a user calls it, and a pipe that uses what it wrote."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
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
from spacy.tokens import DocBin
from spacy.util import load_model_from_config
from thinc.api import Config
from typer.testing import CliRunner

from spacy_gemel.__main__ import app
from spacy_gemel.images.feature_store import FeatureStore, content_key
from spacy_gemel.models import frozen
from spacy_gemel.models.vision_encoder import VisionEncoder
from tests.mini_pipeline import COLOURS, entity_id, make_config, make_doc, make_kb, make_pipeline, picture

ROOT = Path(__file__).parents[2]


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["encode-images", *map(str, arguments), "--quiet"])


@pytest.fixture(scope="module")
def world(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, corpus.spacy, linker.cfg, and kb."""
    folder = tmp_path_factory.mktemp("world")
    make_kb(folder, models)
    nlp = spacy.blank("en")
    docs = DocBin(store_user_data=True)
    (folder / "pictures").mkdir()
    for seed in range(6):
        for name in COLOURS:
            path = folder / "pictures" / f"{entity_id(name)}-{seed}.png"
            Image.fromarray(picture(name, seed)).save(path)
            image = path.relative_to(folder).as_posix()
            docs.add(make_doc(nlp, f"A photo of Mercury number {seed}.", "Mercury", entity_id(name), image))
    docs.to_disk(folder / "corpus.spacy")
    block = make_config(models)
    Config({"nlp": {"lang": "en"}, "components": {"linker": {"factory": "gemel_linker", **block}}}).to_disk(
        folder / "linker.cfg"
    )
    return folder


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
    encode = VisionEncoder.encode

    def counting(self: VisionEncoder, images: Any) -> Any:
        if len(images):
            counted.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(VisionEncoder, "encode", counting)
    yield counted


def docs_of(nlp: Language, world: Path) -> list[Any]:
    return [
        make_doc(nlp, "A photo of Mercury.", "Mercury", image=str(world / "pictures" / f"{entity_id(name)}-0.png"))
        for name in COLOURS
    ]


def pipeline_on(world: Path, models: Path, **changes: Any) -> Language:
    """Trained on the world's corpus, whose images are files."""
    from spacy_gemel.data.reader import MultimodalCorpus

    nlp = spacy.blank("en")
    nlp.add_pipe("gemel_linker", config=make_config(models, **changes))
    nlp.config["initialize"]["components"]["gemel_linker"] = {
        "kb_loader": {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(world / "kb")}
    }
    corpus = MultimodalCorpus(world / "corpus.spacy", gold_ents=True)
    nlp.initialize(lambda: corpus(nlp))
    return nlp


def test_a_corpus_is_encoded_once(world: Path, features: Path, encoded: list[int]) -> None:
    store = FeatureStore(features, verify=True)
    assert len(store) == 18
    again = call(world / "corpus.spacy", world / "corpus.spacy", "-c", world / "linker.cfg", "-o", features)
    assert again.exit_code == 0
    assert "0 images encoded now, 18 were there, 0 cannot be used" in again.stdout
    assert (features / "failed.jsonl").read_text() == ""


def test_the_stored_features_are_the_encoders(world: Path, features: Path, models: Path) -> None:
    from spacy_gemel.registry import open_clip_encoder

    encoder = open_clip_encoder(str(models / "vision_encoder")).load("cpu")
    store = FeatureStore(features)
    for path in sorted((world / "pictures").iterdir()):
        with Image.open(path) as image:
            expected = encoder.encode([image.convert("RGB")])[0]
        np.testing.assert_allclose(store.find(content_key(path) or b""), expected, atol=1e-6)


def test_bad_images_are_told_and_left_out(world: Path, models: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    docs = DocBin(store_user_data=True)
    (tmp_path / "broken.png").write_bytes(b"no image")
    good = (world / "pictures" / "Mercury-0.png").read_bytes()
    for image in ["broken.png", "gone.png", good, None, np.zeros((4, 4, 3), np.uint8), "broken.png"]:
        doc = nlp("Mercury rises")
        doc.user_data["id"] = "the doc"
        if image is not None:
            doc.user_data["image"] = image
        docs.add(doc)
    doc = nlp("Given")
    doc.user_data["image_features"] = np.zeros(24, np.float32)
    docs.add(doc)
    docs.to_disk(tmp_path / "c.spacy")
    result = call(tmp_path / "c.spacy", "-c", world / "linker.cfg", "-o", tmp_path / "f")
    assert result.exit_code == 0, result.output
    assert "docs: 7 read, 1 without an image, 1 with features of their own" in result.stdout
    assert "2 images encoded now, 0 were there, 2 cannot be used" in result.stdout
    bad = [json.loads(line) for line in (tmp_path / "f" / "failed.jsonl").read_text().splitlines()]
    assert [Path(row["image"]).name for row in bad] == ["broken.png", "gone.png"]
    assert "not an image that Pillow can read" in bad[0]["reason"]
    assert "does not exist" in bad[1]["reason"]
    assert all("the doc" in row["doc"] and "c.spacy" in row["doc"] for row in bad)


def test_errors_are_one_line(world: Path, features: Path, models: Path, tmp_path: Path) -> None:
    def failed(says: str, *arguments: object) -> None:
        result = call(*arguments)
        assert result.exit_code == 1, result.output
        assert says in result.stderr
        assert result.stderr.count("\n") == 1

    corpus, config = world / "corpus.spacy", world / "linker.cfg"
    failed("no such file", tmp_path / "none.spacy", "-c", config, "-o", tmp_path / "f")
    failed("no config there", corpus, "-c", tmp_path, "-o", tmp_path / "f")
    failed("no gemel_linker is called 'x'", corpus, "-c", config, "-o", tmp_path / "f", "--component", "x")
    (tmp_path / "empty.cfg").write_text('[nlp]\nlang = "en"\n')
    failed("there is none among its components", corpus, "-c", tmp_path / "empty.cfg", "-o", tmp_path / "f")
    other = Config().from_disk(config)
    other["components"]["linker"]["vision_encoder"]["projection"] = True
    other.to_disk(tmp_path / "other.cfg")
    failed("another vision encoder", corpus, "-c", tmp_path / "other.cfg", "-o", features)
    docs = DocBin(docs=[spacy.blank("en")("no image here")], store_user_data=True)
    docs.to_disk(tmp_path / "text.spacy")
    failed("no doc has an image", tmp_path / "text.spacy", "-c", config, "-o", tmp_path / "f")


def test_a_path_beside_the_config_and_a_bundle(world: Path, models: Path, features: Path, tmp_path: Path) -> None:
    config = Config().from_disk(world / "linker.cfg")
    config["components"]["linker"]["vision_encoder"]["name"] = "encoder"
    config.to_disk(tmp_path / "linker.cfg")
    shutil.copytree(models / "vision_encoder", tmp_path / "encoder")
    copied = shutil.copytree(features, tmp_path / "features")
    result = call(world / "corpus.spacy", "-c", tmp_path / "linker.cfg", "-o", copied)
    assert "18 were there" in result.stdout, result.output  # the same weights in another place
    # a bundle is what is used, though nothing lies where its config's name points
    nlp = pipeline_on(world, models, bundle_models=True)
    nlp.to_disk(tmp_path / "pipeline")
    saved = Config().from_disk(tmp_path / "pipeline" / "config.cfg")
    gone = str(tmp_path / "gone")
    saved["components"]["gemel_linker"]["vision_encoder"]["name"] = gone
    saved.to_disk(tmp_path / "pipeline" / "config.cfg")
    marker = tmp_path / "pipeline" / "gemel_linker" / "models" / "vision_encoder" / "bundle.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "name": gone}))
    result = call(world / "corpus.spacy", "-c", tmp_path / "pipeline", "-o", copied)
    assert "18 were there" in result.stdout, result.output


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
    loads("is damaged: 00000.rows.npy has the wrong size")
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


def test_an_interrupted_run_goes_on(world: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    docs = DocBin(store_user_data=True)
    for seed in range(1500):
        doc = nlp("Mercury")
        doc.user_data["image"] = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        docs.add(doc)
    docs.to_disk(tmp_path / "c.spacy")
    command = [sys.executable, "-m", "spacy_gemel", "encode-images", str(tmp_path / "c.spacy")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    options = ["-c", str(world / "linker.cfg"), "-o", str(tmp_path / "f"), "--batch-size", "4"]
    process = subprocess.Popen([*command, *options], env=environment, stderr=subprocess.PIPE, text=False)
    assert process.stderr is not None
    seen = b""
    end = time.monotonic() + 120
    while b"encode:" not in seen.rpartition(b"0/1500")[2] and time.monotonic() < end:
        seen += os.read(process.stderr.fileno(), 4096)  # the bar moves: images are being encoded
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    said = (seen + rest).decode()
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    kept = len(FeatureStore(tmp_path / "f", verify=True))
    assert 0 < kept < 1500
    result = call(tmp_path / "c.spacy", *options)
    assert f"{1500 - kept} images encoded now, {kept} were there" in result.stdout, result.output
    assert len(FeatureStore(tmp_path / "f", verify=True)) == 1500


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
    assert result["mini"]["times_faster"] > 1
