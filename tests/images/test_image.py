"""Reading images, good and bad."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spacy_gemel.images.image import ImageError, encode_png, read_image

RED = Image.new("RGB", (8, 6), (255, 0, 0))


def encoded(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format)
    return buffer.getvalue()


def test_the_same_picture_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    path.write_bytes(encode_png(RED))
    for source in (str(path), path, path.read_bytes(), np.asarray(RED), RED):
        image = read_image(source)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), np.asarray(RED))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = RED.convert("L").convert("F").convert(mode) if mode in ("F", "I;16") else RED.convert(mode)
    assert read_image(image).mode == "RGB"


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_greyscale_image_of_16_bits_keeps_its_levels(form: str) -> None:
    """Pillow's own conversion makes all above 255 white, that is nearly all of it."""
    levels = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    read = np.asarray(read_image(encoded(Image.fromarray(levels), form)))
    np.testing.assert_array_equal(read, np.repeat((levels >> 8)[..., None], 3, axis=2))
    of_32_bits = read_image(Image.fromarray(levels.astype(np.int32)))
    np.testing.assert_array_equal(np.asarray(of_32_bits), read)
    eight = levels >> 8  # 8 bits in a file for 16
    np.testing.assert_array_equal(np.asarray(read_image(encoded(Image.fromarray(eight), form))), read)


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert np.asarray(read_image(encoded(clear, "PNG"))).min() == 255


def test_a_rotated_photo_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    buffer = io.BytesIO()
    RED.save(buffer, format="JPEG", exif=exif)
    assert read_image(buffer.getvalue()).size == (6, 8)


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))

BAD = {
    "does not exist": "no/such/picture.jpg",
    "is a folder": ".",
    "is not an image that Pillow can read": b"this is text",
    "cannot be decoded": encoded(NOISE, "JPEG")[:700],
    "uint8 of shape": np.zeros((4, 4), dtype=np.uint8),
    "not float64 of shape": np.zeros((4, 4, 3)),
    "of shape (0, 4, 3)": np.zeros((0, 4, 3), dtype=np.uint8),
    "not list": [1, 2, 3],
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_images_say_why(reason: str) -> None:
    with pytest.raises(ImageError, match=reason.replace("(", r"\(").replace(")", r"\)")):
        read_image(BAD[reason])


def test_every_cut_of_a_jpeg_is_refused_or_read() -> None:
    """Whatever the length, no other error than ImageError."""
    whole = encoded(NOISE, "JPEG")
    for length in range(0, len(whole), 97):
        with pytest.raises(ImageError):
            read_image(whole[:length])


def test_an_image_larger_than_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError):
        read_image(encode_png(NOISE))
