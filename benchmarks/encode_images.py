"""How much faster the images of a training epoch are read with features on disk than encoded.

python -m benchmarks.encode_images [--images 1600]
python -m benchmarks.encode_images --model real [--pictures FOLDER] [--models DIR] [--images 192]

Draws the mini world, encodes its training pictures as `encode-images` does, and reads them in batches of four docs, as
configs/mini.cfg trains: once encoding, once from the folder, each by a reader that has seen nothing. The mini world's
own encoder is tiny, so the first 64 are also read with random weights of ViT-B/32's shape.

With --model real: images per second of EfficientNet-Lite0, of `python -m spacy project run real-models`, beside the
rate of a matrix product, with the channels first and last and in batches of several sizes, and the same of ViT-B/32;
the pictures are those below FOLDER (../shared/data/drawings), or else the mini world's. Only a run with the default
number of images writes to benchmarks/results.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.timing import seconds_of, spread
from research.commands import report, run_command
from research.machine import describe_machine, matmul_rate
from research.mini_world import MODELS, ROOT
from spacy_gemel.bulk.encode_images import EncodeReport, corpus_images, encode_images
from spacy_gemel.data.datasets.converters import convert
from spacy_gemel.data.reader import read_docs
from spacy_gemel.images.feature_store import EncoderFingerprint, FeatureStore
from spacy_gemel.images.features import FeatureReader
from spacy_gemel.images.image import read_image
from spacy_gemel.models.open_clip import load_open_clip
from spacy_gemel.models.vision_encoder import VisionEncoder, load_hugging_face_vision
from spacy_gemel.pipeline.mentions import read_features
from spacy_gemel.utils.files import write_json

if TYPE_CHECKING:
    from spacy.tokens import Doc

IMAGES = 1600
LARGE_IMAGES = 64
DOCS_AT_ONCE = 4
REPEATS = 3
REAL_IMAGES, REAL_REPEATS = 192, 7
LARGE_REPEATS = 2  # a round of ViT-B/32 takes a minute and a half
BATCHES = (1, 4, 8, 16, 32)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default size keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encode_images", description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=("mini", "real"), default="mini")
    parser.add_argument("--models", type=Path, help="folder of the real models, by default assets/real")
    parser.add_argument("--pictures", type=Path, help="with --model real: a folder of pictures")
    parser.add_argument("--images", type=int, help=f"by default {IMAGES}, with --model real {REAL_IMAGES}")
    options = parser.parse_args(arguments)
    if options.model == "real":
        result = measure_real(options.models or ROOT / "assets" / "real", options.pictures, options.images)
        if options.images is None:
            write_json(ROOT / "benchmarks" / "results" / "encode-images-real.json", result)
        print(json.dumps(result))
        return
    images = options.images or IMAGES
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


def measure_real(models: Path, pictures: Path | None, count: int | None) -> dict[str, Any]:
    """Images per second of the real vision encoder and of ViT-B/32, both on the same pictures.

    Raises SystemExit if the encoder or the pictures are missing.
    """
    folder = models / "vision_encoder"
    if not folder.is_dir():
        raise SystemExit(f"{folder} does not exist: run `python -m spacy project run real-models` first")
    with tempfile.TemporaryDirectory() as name:
        if pictures is None:
            make_docs(Path(name), count or REAL_IMAGES)
        files = sorted(path for path in (pictures or Path(name)).rglob("*") if path.suffix in (".png", ".jpg", ".jpeg"))
        step = max(1, len(files) // (count or REAL_IMAGES))
        paths = files[::step][: count or REAL_IMAGES]
        if not paths:
            raise SystemExit(f"{pictures}: no .png or .jpg below this folder: give another one")
        encoder = load_hugging_face_vision(str(folder), revision=None, device="cpu", dtype=None)
        return {
            "command": "python -m benchmarks.encode_images --model real" + (" --pictures DIR" if pictures else ""),
            "images": len(paths),
            "real": measure_rates(encoder, paths),
            "vit_b_32_random": measure_rates(large_encoder(), paths[:LARGE_IMAGES], LARGE_REPEATS),
            "machine": describe_machine(),
        }


def measure_rates(encoder: VisionEncoder, paths: Sequence[Path], repeats: int = REAL_REPEATS) -> dict[str, Any]:
    """Images per second of reading, of `preprocess`, of the model by layout and batch, and of `encode`, in turns.

    times_faster: `encode`, beside images that are prepared one by one and encoded by 32 with the channels first.
    """
    seconds: dict[str, list[float]] = defaultdict(list)
    rates: list[float] = []
    images = [read_image(path) for path in paths]
    pixels = [encoder.preprocess(image) for image in images]
    layouts = {"channels_first": torch.contiguous_format, "channels_last": torch.channels_last}

    def run_model(layout: str, batch: int) -> Any:
        rows = [torch.stack(pixels[at : at + batch]) for at in range(0, len(pixels), batch)]
        with torch.no_grad():
            return torch.cat([encoder.forward(row.to(memory_format=layouts[layout])) for row in rows])

    def run_plainly() -> None:
        for image in images:
            encoder.preprocess(image)
        run_model("channels_first", 32)

    actions: dict[str, Callable[[], object]] = {
        "read": lambda: [read_image(path) for path in paths],
        "preprocess": lambda: [encoder.preprocess(image) for image in images],
        **{f"{layout}_{batch}": partial(run_model, layout, batch) for layout in layouts for batch in BATCHES},
        "plain": run_plainly,
        "encode": lambda: encoder.encode(images),
    }
    first, last = (run_model(layout, 16) for layout in layouts)
    for repeat in range(repeats):
        report(f"{len(paths)} images, {type(encoder.model).__name__}: {repeat + 1} of {repeats}")
        rates.append(matmul_rate())
        for name, action in actions.items():
            seconds[name] += seconds_of(action)
    return {
        "images_per_second": {
            name: spread([len(paths) / each for each in times], 1) for name, times in seconds.items()
        },
        "times_faster": spread([a / b for a, b in zip(seconds["plain"], seconds["encode"], strict=True)], 2),
        "fp32_matmul_2048_gflops": spread(rates, 1),
        "largest_difference": float((first - last).abs().max() / first.abs().max()),
    }


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
        rows += read_features(docs[start : start + DOCS_AT_ONCE], reader, image_root=None)
    return np.stack(rows)


def write_corpus(docs: "Sequence[Doc]", path: Path) -> None:
    """Some docs as a .spacy file; their images are absolute paths."""
    from spacy.tokens import DocBin

    DocBin(docs=docs, store_user_data=True).to_disk(path)


if __name__ == "__main__":
    main()
