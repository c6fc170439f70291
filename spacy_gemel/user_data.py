"""Where a doc's image stands in its user_data, and what a linker that could not read it leaves there."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.tokens import Doc

IMAGE_KEY = "image"
FEATURES_KEY = "image_features"
IMAGE_KEYS = (IMAGE_KEY, FEATURES_KEY)
UNREADABLE_KEY = "gemel_unreadable_image"


def has_image(doc: "Doc") -> bool:
    """Whether the doc has an image, or the features of one; whether they can be read nobody has tried."""
    return any(doc.user_data.get(key) is not None for key in IMAGE_KEYS)


def has_unreadable_image(doc: "Doc") -> bool:
    """Whether a linker that wanted the doc's image could not use it, and so linked its mentions from the text alone."""
    return bool(doc.user_data.get(UNREADABLE_KEY))
