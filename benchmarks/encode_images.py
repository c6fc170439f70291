"""How much faster the images of a training epoch are read with features on disk than encoded.

python -m benchmarks.encode_images [--images 1600]

Draws the mini world, encodes its training pictures as `encode-images` does, and reads them in batches of four docs, as
configs/mini.cfg trains: once encoding, once from the folder, each by a reader that has seen nothing. The mini world's
own encoder is tiny, so the first 64 are also read with random weights of ViT-B/32's shape. Only a run with the default
number of images writes to benchmarks/results.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.timing import seconds_of, spread
from research.commands import report, run_command
from research.machine import describe_machine
from research.mini_world import MODELS, ROOT
from spacy_gemel.bulk.encode_images import EncodeReport, corpus_images, encode_images
from spacy_gemel.data.datasets.converters import convert
from spacy_gemel.data.reader import read_docs
from spacy_gemel.images.feature_store import EncoderFingerprint, FeatureStore
from spacy_gemel.images.features import FeatureReader
from spacy_gemel.models.open_clip import load_open_clip
from spacy_gemel.models.vision_encoder import VisionEncoder
from spacy_gemel.pipeline.mentions import read_features
from spacy_gemel.utils.files import write_json

if TYPE_CHECKING:
    from spacy.tokens import Doc

IMAGES = 1600
LARGE_IMAGES = 64
DOCS_AT_ONCE = 4
REPEATS = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default size keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encode_images", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=IMAGES)
    images = parser.parse_args(arguments).images
    with tempfile.TemporaryDirectory() as name:
        docs = make_docs(Path(name), images)
        result = {
            "images": len(docs),
            "mini": compare(docs, mini_encoder(), Path(name) / "mini"),
            "vit_b_32_random": compare(docs[:LARGE_IMAGES], large_encoder(), Path(name) / "large"),
            "machine": describe_machine(),
        }
    if images == IMAGES:
        write_json(ROOT / "benchmarks" / "results" / "encode-images.json", result)
    print(json.dumps(result))


def make_docs(folder: Path, images: int) -> "list[Doc]":
    """The first training docs of the mini world, drawn into a folder."""
    from spacy.vocab import Vocab

    report("drawing the mini world")
    run_command(ROOT, "scripts/mini_world/generate.py", str(folder / "world"), "--test", "20")
    lines = (folder / "world" / "train.jsonl").read_text(encoding="utf8").splitlines(keepends=True)[:images]
    (folder / "world" / "some.jsonl").write_text("".join(lines), encoding="utf8")
    convert("jsonl", folder / "world" / "some.jsonl", folder / "some.spacy", progress=False)
    return list(read_docs(folder / "some.spacy", Vocab()))


def mini_encoder() -> VisionEncoder:
    """The mini world's."""
    folder = str(ROOT / MODELS / "vision_encoder")
    return load_open_clip(folder, None, projection=False, device="cpu", dtype=None)


def large_encoder() -> VisionEncoder:
    """ViT-B/32 with random weights, which take as long as trained ones."""
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None)
    model.visual.proj = None
    return VisionEncoder(model.visual, preprocess, model.visual)


def compare(docs: "Sequence[Doc]", encoder: VisionEncoder, folder: Path) -> dict[str, Any]:
    """Seconds of one epoch's images, encoded and from disk, and how far the features lie apart."""
    corpus = folder.with_suffix(".spacy")
    write_corpus(docs, corpus)
    report = EncodeReport()
    fingerprint = EncoderFingerprint.of(encoder, "benchmark")
    images = list(corpus_images([corpus], report))
    once = seconds_of(lambda: encode_images(images, folder, encoder, fingerprint, report, progress=False))[0]
    encoded = seconds_of(lambda: epoch(docs, FeatureReader(encoder)), REPEATS)
    from_disk = seconds_of(lambda: epoch(docs, FeatureReader(encoder, store=FeatureStore(folder))), REPEATS)
    one, other = epoch(docs, FeatureReader(encoder)), epoch(docs, FeatureReader(encoder, store=FeatureStore(folder)))
    return {
        "docs": len(docs),
        "encode_images_seconds": round(once, 3),
        "epoch_encoding_seconds": spread(encoded),
        "epoch_from_disk_seconds": spread(from_disk),
        "times_faster": round(spread(encoded)["median"] / spread(from_disk)["median"], 1),
        "largest_difference": float(np.abs(one - other).max()),
    }


def epoch(docs: "Sequence[Doc]", reader: FeatureReader) -> Any:
    """The features of all docs' images, (docs, d_v), read as training reads them."""
    rows: list[Any] = []
    for start in range(0, len(docs), DOCS_AT_ONCE):
        rows += read_features(docs[start : start + DOCS_AT_ONCE], reader)
    return np.stack(rows)


def write_corpus(docs: "Sequence[Doc]", path: Path) -> None:
    """Some docs as a .spacy file; their images are absolute paths."""
    from spacy.tokens import DocBin

    DocBin(docs=docs, store_user_data=True).to_disk(path)


if __name__ == "__main__":
    main()
