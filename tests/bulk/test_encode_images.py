"""`encode-images` as a user calls it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from PIL import Image
from spacy.language import Language
from spacy.tokens import DocBin
from thinc.api import Config
from typer.testing import CliRunner

from spacy_gemel.__main__ import app
from spacy_gemel.images.feature_store import FeatureStore
from tests.image_corpus import make_image_corpus
from tests.mini_pipeline import make_config

ROOT = Path(__file__).parents[2]


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


def test_a_corpus_is_encoded_once(world: Path, features: Path) -> None:
    store = FeatureStore(features, verify=True)
    assert len(store) == 18
    again = call(world / "corpus.spacy", world / "corpus.spacy", "-c", world / "linker.cfg", "-o", features)
    assert again.exit_code == 0
    assert "0 images encoded, 18 already there, 0 left out" in again.stdout
    assert (features / "failed.jsonl").read_text() == ""


def test_bad_images_are_left_out_and_listed(world: Path, models: Path, tmp_path: Path) -> None:
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
    assert "docs: 7 read, 1 without an image, 1 with own features" in result.stdout
    assert "2 images encoded, 0 already there, 2 left out" in result.stdout
    bad = [json.loads(line) for line in (tmp_path / "f" / "failed.jsonl").read_text().splitlines()]
    assert [Path(row["image"]).name for row in bad] == ["broken.png", "gone.png"]
    assert "not an image in a format that is read" in bad[0]["reason"]
    assert "does not exist" in bad[1]["reason"]
    assert all("the doc" in row["doc"] and "c.spacy" in row["doc"] for row in bad)


def test_odd_images_cost_only_themselves(world: Path, tmp_path: Path) -> None:
    """Thin, a pipe, outside of the config's image_root: all but these are encoded, now and the next time."""
    config = tmp_path / "rooted.cfg"
    shutil.copyfile(world / "linker.cfg", config)
    (tmp_path / "in").mkdir()
    config.write_text(
        config.read_text().replace("factory =", f'image_root = "{tmp_path / "in"}"\nfactory ='), encoding="utf8"
    )
    good = world / "pictures" / "Mercury-0.png"
    shutil.copyfile(good, tmp_path / "in" / "good.png")
    Image.new("L", (1, 20_000)).save(tmp_path / "in" / "thin.png")
    os.mkfifo(tmp_path / "in" / "fifo.png")
    (tmp_path / "in" / "link.png").symlink_to(good)
    docs = DocBin(store_user_data=True)
    for name in ("good.png", "thin.png", "fifo.png", "link.png", str(good)):
        doc = spacy.blank("en")("Mercury")
        doc.user_data["image"] = name
        docs.add(doc)
    docs.to_disk(tmp_path / "in" / "c.spacy")
    for encoded in ("1 images encoded, 0 already", "0 images encoded, 1 already"):
        result = call(tmp_path / "in" / "c.spacy", "-c", config, "-o", tmp_path / "f")
        assert result.exit_code == 0, result.output
        assert encoded in result.stdout
        bad = [json.loads(line)["reason"] for line in (tmp_path / "f" / "failed.jsonl").read_text().splitlines()]
        reasons = ("more than 100 times", "no regular file", "outside image_root", "outside image_root")
        assert len(bad) == 4 and all(map(str.__contains__, bad, reasons)), bad


def test_errors_are_one_line(world: Path, features: Path, models: Path, tmp_path: Path) -> None:
    def failed(message: str, *arguments: object) -> None:
        result = call(*arguments)
        assert result.exit_code == 1, result.output
        assert message in result.stderr
        assert result.stderr.count("\n") == 1

    corpus, config = world / "corpus.spacy", world / "linker.cfg"
    failed("no such file", tmp_path / "none.spacy", "-c", config, "-o", tmp_path / "f")
    failed("no config there", corpus, "-c", tmp_path, "-o", tmp_path / "f")
    failed("no gemel_linker is called 'x'", corpus, "-c", config, "-o", tmp_path / "f", "--component", "x")
    (tmp_path / "empty.cfg").write_text('[nlp]\nlang = "en"\n')
    failed("there is none in it", corpus, "-c", tmp_path / "empty.cfg", "-o", tmp_path / "f")
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
    assert "18 already there" in result.stdout, result.output  # the same weights in another place
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
    assert "18 already there" in result.stdout, result.output


def test_an_interrupted_run_continues(world: Path, tmp_path: Path) -> None:
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
    while b"encode:" not in seen.rpartition(b"0/1500")[2] and (more := os.read(process.stderr.fileno(), 4096)):
        seen += more  # until the bar moves: images are being encoded
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    message = (seen + rest).decode()
    assert process.returncode == 130, message
    assert "the same command continues" in message
    assert "Traceback" not in message
    stored = len(FeatureStore(tmp_path / "f", verify=True))
    assert 0 < stored < 1500
    result = call(tmp_path / "c.spacy", *options)
    assert f"{1500 - stored} images encoded, {stored} already there" in result.stdout, result.output
    assert len(FeatureStore(tmp_path / "f", verify=True)) == 1500
