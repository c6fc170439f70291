"""Encoding the images of a corpus once, to a folder of features that the pipe's `image_features` names."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from spacy_gemel.images.feature_store import EncoderFingerprint, FeatureWriter, content_key
from spacy_gemel.images.image import ImageError, read_image
from spacy_gemel.utils.files import lock_file, write_whole

if TYPE_CHECKING:
    import torch

    from spacy_gemel.models.vision_encoder import VisionEncoder

FAILED = "failed.jsonl"


@dataclass(frozen=True, slots=True)
class ImageOf:
    """A doc's image as the doc holds it, and how to name both in a message."""

    doc: str
    image: str
    source: Any


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that was left out."""

    doc: str
    image: str
    reason: str


@dataclass(slots=True)
class EncodeReport:
    """What was encoded. before: images whose features were in the folder, or that came twice."""

    docs: int = 0
    without: int = 0
    given: int = 0
    before: int = 0
    encoded: int = 0
    bad: list[BadImage] = field(default_factory=list)

    def lines(self, folder: Path) -> list[str]:
        """A few lines for a person."""
        return [
            f"docs: {self.docs} read, {self.without} without an image, {self.given} with features of their own",
            f"{folder}: {self.encoded} images encoded now, {self.before} were there, {len(self.bad)} cannot be used",
            *(f"  {bad.doc}: {bad.reason}" for bad in self.bad[:5]),
            *([f"all that cannot be used are in {folder / FAILED}"] if self.bad else []),
        ]


def corpus_images(paths: Sequence[Path], report: EncodeReport) -> Iterator[ImageOf]:
    """The images of the docs of some .spacy files or folders of them; each path once.

    Raises ValueError for a path that holds no docs.
    """
    from spacy.vocab import Vocab

    from spacy_gemel.data.reader import read_docs
    from spacy_gemel.pipeline.mentions import describe
    from spacy_gemel.pipeline.user_data import FEATURES_KEY, IMAGE_KEY

    seen: set[str] = set()
    for path in paths:
        for index, doc in enumerate(read_docs(path, Vocab())):
            report.docs += 1
            source = doc.user_data.get(IMAGE_KEY)
            if doc.user_data.get(FEATURES_KEY) is not None:
                report.given += 1
            elif source is None:
                report.without += 1
            elif not isinstance(source, str) or source not in seen:
                if isinstance(source, str):
                    seen.add(source)
                image = source if isinstance(source, str) else type(source).__name__
                yield ImageOf(f"{path}, {describe(doc, index)}", image, source)


def encode_images(
    images: Sequence[ImageOf],
    folder: Path,
    encoder: "VisionEncoder",
    fingerprint: EncoderFingerprint,
    report: EncodeReport,
    *,
    batch_size: int = 32,
    threads: int = 2,
    progress: bool = True,
) -> None:
    """Encode the images that are not in the folder yet. What was encoded is kept whatever ends it, an interrupt too.

    threads: that read and decode while the encoder works.
    An image that cannot be read is counted, listed in failed.jsonl, and left out. Raises ValueError where the folder
    holds another encoder's features, is damaged or is being written by another process, OSError where it cannot be
    written.
    """
    busy = f"{folder}: another encode-images is writing there: wait until it has ended, or give another folder"
    with (
        lock_file(folder / ".lock", busy),
        FeatureWriter(folder, fingerprint) as writer,
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(images), desc="encode", unit=" images", disable=not progress) as bar,
    ):

        def start(index: int) -> Iterator[_Loaded | BadImage]:
            return pool.map(lambda image: _load(image, encoder, writer), images[index : index + batch_size])

        try:
            upcoming = start(0)
            for index in range(0, len(images), batch_size):
                # the next batch is decoded while this one is encoded
                current, upcoming = list(upcoming), start(index + batch_size)
                _encode(current, encoder, writer, report)
                bar.update(len(current))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            with write_whole(folder / FAILED) as partial:
                text = "".join(json.dumps(asdict(bad), ensure_ascii=True) + "\n" for bad in report.bad)
                partial.write_text(text, encoding="ascii")


@dataclass(frozen=True, slots=True)
class _Loaded:
    """An image's key, and its pixels as the encoder takes them; None where its features are there."""

    image: ImageOf
    key: bytes
    pixels: "torch.Tensor | None"


def _load(image: ImageOf, encoder: "VisionEncoder", writer: FeatureWriter) -> "_Loaded | BadImage":
    try:
        key = content_key(image.source)
        if key is None:
            read_image(image.source)  # says what is wrong with it
            raise ImageError("its bytes cannot be read")
        return _Loaded(image, key, None if key in writer else encoder.preprocess(read_image(image.source)))
    except ImageError as error:
        return BadImage(image.doc, image.image, str(error))


def _encode(
    loaded: "list[_Loaded | BadImage]", encoder: "VisionEncoder", writer: FeatureWriter, report: EncodeReport
) -> None:
    """Encode a batch, each content once."""
    new: dict[bytes, _Loaded] = {}
    for item in loaded:
        if isinstance(item, BadImage):
            report.bad.append(item)
        elif item.key in writer or item.key in new:
            report.before += 1
        else:
            new[item.key] = item
    if not new:
        return
    rows = encoder.encode_pixels([item.pixels for item in new.values() if item.pixels is not None])
    for item, row in zip(new.values(), rows, strict=True):
        if np.isfinite(row).all():
            writer.add(item.key, row)
            report.encoded += 1
        else:
            report.bad.append(BadImage(item.image.doc, item.image.image, "the encoder gives no finite numbers for it"))
