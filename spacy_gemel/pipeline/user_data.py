"""Where a doc's image stands in its user_data, and what a linker that could not read it leaves there."""

from typing import TYPE_CHECKING, Any

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


def image_in(doc: "Doc", other: "Doc | None" = None) -> dict[str, Any]:
    """A doc's image and features by their keys; those of another doc for a key that it does not have at all."""
    found = {} if other is None else {key: other.user_data.get(key) for key in IMAGE_KEYS}
    return found | {key: doc.user_data[key] for key in IMAGE_KEYS if key in doc.user_data}
