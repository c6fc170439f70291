"""Images as plain data: what a Doc can be serialised with, and so what another process can be given."""

import os
import sys
from collections.abc import Callable
from typing import Any

import srsly

from spacy_gemel.images.image import ImageError, encode_png, read_image

_ENCODER = "spacy_gemel_images"


def plain(source: Any) -> Any:
    """A path object as a str, a PIL image as encoded bytes; all else as it is, and so an image that is broken."""
    if isinstance(source, os.PathLike):
        return os.fsdecode(source)
    pil = sys.modules.get("PIL.Image")  # where nothing has loaded it there is no such image
    if pil is not None and isinstance(source, pil.Image):
        try:
            return encode_png(read_image(source))
        except ImageError:  # the reader says what is wrong with it
            return source
    return source


def install_encoder() -> None:
    """Let `Doc.to_bytes` and DocBins take path objects and PIL images, once: they are read again as str and bytes.

    It is there for docs that no linker has seen yet: `nlp.pipe(n_process=2)` serialises them before it calls a pipe.
    """
    if _ENCODER not in srsly.msgpack_encoders:
        srsly.msgpack_encoders.register(_ENCODER, func=_encode)


def _encode(thing: Any, chain: Callable[[Any], Any] | None = None) -> Any:
    """What msgpack asks of what it does not know; the same object where it is not known here either."""
    found = plain(thing)
    return chain(thing) if found is thing and chain is not None else found
