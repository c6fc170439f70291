"""Where a doc's image stands in its user_data."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.tokens import Doc

IMAGE_KEY = "image"
FEATURES_KEY = "image_features"
IMAGE_KEYS = (IMAGE_KEY, FEATURES_KEY)


def has_image(doc: "Doc") -> bool:
    """Whether the doc has an image, or the features of one; whether they can be read nobody has tried."""
    return any(doc.user_data.get(key) is not None for key in IMAGE_KEYS)
