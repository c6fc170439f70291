"""Altered copies of training images, so that a mapper learns what stays the same in a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.images.features import FeatureReader, encode_each
from spacy_gemel.images.image import ImageError, as_image_error, read_image

if TYPE_CHECKING:
    import torch


class AlteredReader:
    """Reads images as a FeatureReader does, but cropped, turned and coloured at random; nothing is cached."""

    def __init__(self, reader: FeatureReader) -> None:
        from torchvision.transforms import v2

        self.encoder = reader.encoder
        self._alter: Any = v2.Compose(
            [
                v2.RandomResizedCrop(224, scale=(0.6, 1.0), ratio=(0.8, 1.25)),
                v2.RandomHorizontalFlip(0.3),
                v2.RandomRotation(12, fill=255),
                v2.ColorJitter(0.4, 0.3, 0.4, 0.05),
                v2.RandomGrayscale(0.1),
            ]
        )

    def read(self, sources: Sequence[Any]) -> list[NDArray[np.float32] | ImageError | None]:
        """See FeatureReader.read. The randomness is torch's."""
        results: list[NDArray[np.float32] | ImageError | None] = [None] * len(sources)
        pixels: dict[int, torch.Tensor] = {}
        for index, source in enumerate(sources):
            try:
                if source is not None:
                    pixels[index] = self.encoder.preprocess(self._alter(read_image(source)))
            except Exception as error:
                results[index] = as_image_error(error)
        for index, row in zip(pixels, encode_each(self.encoder, [*pixels.values()]), strict=True):
            results[index] = row
        return results
