"""Encode the images of a corpus once, to a folder of features that the pipe's `image_features` names."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tqdm import tqdm

from spacy_gemel.images.feature_store import EncoderFingerprint, FeatureWriter, content_key
from spacy_gemel.images.features import encode_each
from spacy_gemel.images.image import ImageError, as_image_error, inside, read_image
from spacy_gemel.utils.files import lock_file, write_whole

if TYPE_CHECKING:
    import torch

    from spacy_gemel.models.vision_encoder import VisionEncoder

FAILED = "failed.jsonl"


class CorpusImage(NamedTuple):
    """The image of a doc, with the doc's and the image's names for messages."""

    doc: str
    image: str
    source: Any


class EncodeFailure(NamedTuple):
    """An image that cannot be used, a line of failed.jsonl."""

    doc: str
    image: str
    reason: str


# an image with its key, and its pixels as the encoder takes them, None if its features are stored
_Loaded: TypeAlias = "tuple[CorpusImage, bytes, torch.Tensor | None] | EncodeFailure"


@dataclass(slots=True)
class EncodeReport:
    """Counts of docs and images. `skipped`: images whose features were in the folder, or that came twice."""

    docs: int = 0
    without_image: int = 0
    with_features: int = 0
    skipped: int = 0
    encoded: int = 0
    failures: list[EncodeFailure] = field(default_factory=list)

    def lines(self, folder: Path) -> list[str]:
        """A few lines for a person."""
        return [
            f"docs: {self.docs} read, {self.without_image} without an image, {self.with_features} with own features",
            f"{folder}: {self.encoded} images encoded, {self.skipped} already there, {len(self.failures)} left out",
            *(f"  {failure.doc}: {failure.reason}" for failure in self.failures[:5]),
            *([f"{folder / FAILED} lists all that were left out"] if self.failures else []),
        ]


def corpus_images(paths: Sequence[Path], report: EncodeReport) -> Iterator[CorpusImage]:
    """The images of the docs of .spacy files or folders; each path once. Raises ValueError for a path without docs."""
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
                report.with_features += 1
            elif source is None:
                report.without_image += 1
            elif not isinstance(source, str) or source not in seen:
                name = source if isinstance(source, str) else type(source).__name__
                seen.add(name)
                yield CorpusImage(f"{path}, {describe(doc, index)}", name, source)


def encode_images(
    images: Sequence[CorpusImage],
    folder: Path,
    encoder: "VisionEncoder",
    fingerprint: EncoderFingerprint,
    report: EncodeReport,
    *,
    batch_size: int = 16,
    threads: int = 2,
    progress: bool = True,
    image_root: str | None = None,
) -> None:
    """Encode the images that are not in the folder yet; whatever ends it, the features made so far are stored.

    An image that cannot be read is counted, listed in failed.jsonl, and left out. `threads` threads read and decode the
    images while the encoder works. Nothing outside `image_root` is opened.

    Raises ValueError if the folder holds another encoder's features, is damaged, or another process writes to it, and
    OSError if it cannot be written.
    """
    busy = f"{folder}: another encode-images is writing there: wait until it has ended, or give another folder"
    with (
        lock_file(folder / ".lock", busy),
        FeatureWriter(folder, fingerprint) as writer,
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(images), desc="encode", unit=" images", disable=not progress) as bar,
    ):

        def load(index: int) -> Iterator[_Loaded]:
            return pool.map(lambda image: _load(image, encoder, writer, image_root), images[index : index + batch_size])

        try:
            upcoming = load(0)
            for index in range(0, len(images), batch_size):
                current, upcoming = list(upcoming), load(index + batch_size)
                _encode(current, encoder, writer, report)
                bar.update(len(current))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            with write_whole(folder / FAILED) as partial:
                text = "".join(json.dumps(failure._asdict()) + "\n" for failure in report.failures)
                partial.write_text(text, encoding="ascii")


def _load(image: CorpusImage, encoder: "VisionEncoder", writer: FeatureWriter, root: str | None) -> _Loaded:
    try:
        source = inside(image.source, root)
        key = content_key(source)
        if key is None:
            read_image(source)  # raises the reason
            raise ImageError("its bytes cannot be read")
        return image, key, None if key in writer else encoder.preprocess(read_image(source))
    except Exception as error:  # whatever one image raises, the others are encoded
        return EncodeFailure(image.doc, image.image, str(as_image_error(error)))


def _encode(batch: Sequence[_Loaded], encoder: "VisionEncoder", writer: FeatureWriter, report: EncodeReport) -> None:
    """Encode a batch, each content once."""
    new: dict[bytes, tuple[CorpusImage, torch.Tensor]] = {}
    for item in batch:
        if isinstance(item, EncodeFailure):
            report.failures.append(item)
            continue
        image, key, pixels = item
        if pixels is None or key in writer or key in new:
            report.skipped += 1
        else:
            new[key] = image, pixels
    rows = encode_each(encoder, [pixels for _, pixels in new.values()])
    for (key, (image, _)), row in zip(new.items(), rows, strict=True):
        if isinstance(row, ImageError):
            report.failures.append(EncodeFailure(image.doc, image.image, str(row)))
        else:
            writer.add(key, row)
            report.encoded += 1
