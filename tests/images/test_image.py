"""Reading images, good and bad."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import srsly
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from spacy_gemel.images import image as image_module
from spacy_gemel.images.image import (
    ImageError,
    UnknownFormatError,
    data_uri,
    decode,
    encode_png,
    inside,
    read_image,
    register_msgpack_encoder,
)

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
    "is not an image in a format that is read": b"this is text",
    "cannot be decoded": encoded(NOISE, "JPEG")[:700],
    "uint8 of shape": np.zeros((4, 4), dtype=np.uint8),
    "not float64 of shape": np.zeros((4, 4, 3)),
    "no pixels: 4 x 0": np.zeros((0, 4, 3), dtype=np.uint8),
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


# What is judged before it is decoded


def test_no_program_is_run_to_read_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS to Ghostscript, whatever the file is called."""
    (tmp_path / "bin").mkdir()
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo 10.0 || touch {tmp_path / "ran"}\n')
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    picture = tmp_path / "sunset.png"
    picture.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    for source in (str(picture), picture.read_bytes()):
        with pytest.raises(ImageError, match="not an image in a format that is read"):
            read_image(source)
    with pytest.raises(UnknownFormatError):  # as fetch-images reads
        decode(picture.read_bytes(), "it", smallest=True)
    assert data_uri(picture, 100) is None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("size", [(1, 10_000), (4000, 30)])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "PIL", "array"])
def test_a_thin_picture_is_refused(size: tuple[int, int], form: str) -> None:
    image = Image.new("RGB", size)
    sources = {"PIL": image, "array": np.asarray(image)}
    with pytest.raises(ImageError, match="one side is more than 100 times the other"):
        read_image(sources[form] if form in sources else encoded(image, form))
    assert read_image(Image.new("RGB", (20, 2000))).size == (20, 2000)


def test_of_more_pixels_than_are_decoded_only_a_jpeg_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = Image.fromarray(np.tile(np.linspace(0, 255, 640, dtype=np.uint8)[None, :, None], (480, 1, 3)))
    monkeypatch.setattr(image_module, "MAX_PIXELS", 640 * 480 // 4)
    for form in ("PNG", "TIFF", "BMP"):
        with pytest.raises(ImageError, match="640 x 480 pixels, and at most 76800 are read"):
            read_image(encoded(photo, form))
    small = read_image(encoded(photo, "JPEG"))
    assert small.size[0] * small.size[1] <= 76800
    assert abs(np.asarray(small.resize((64, 48))).astype(int) - np.asarray(photo.resize((64, 48)))).mean() < 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "I;16"])
def test_a_large_picture_is_reduced(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "_REDUCED_PIXELS", 1000)
    levels = np.full((90, 80), 40_000, dtype=np.uint16)
    image = Image.fromarray(levels) if mode == "I;16" else Image.new("RGB", (80, 90), "white").convert(mode)
    read = read_image(image)
    assert read.size == (27, 30)
    assert np.asarray(read).min() == (40_000 >> 8 if mode == "I;16" else 255)


def test_a_header_that_lies() -> None:
    small = bytearray(encoded(NOISE, "JPEG"))
    at = small.index(b"\xff\xc0") + 5
    small[at : at + 4] = struct.pack(">HH", 9000, 9000)
    with pytest.raises(ImageError, match="its header says 9000 x 9000 pixels, far more than"):
        read_image(bytes(small))
    white = Image.new("L", (3000, 3000), "white")
    assert read_image(encoded(white, "JPEG")).size == (3000, 3000)


# What stands beside the pixels


def chunk(kind: bytes, data: bytes, *, sound: bool = True) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ (not sound))


def test_what_stands_beside_the_pixels_decides_nothing() -> None:
    text = PngInfo()
    text.add_itxt("prompt", "x" * 3_000_000, zip=True)
    large, profile = io.BytesIO(), io.BytesIO()
    NOISE.save(large, "PNG", pnginfo=text)
    NOISE.save(profile, "PNG", icc_profile=bytes(3_000_000))
    plain = encode_png(NOISE)
    end = plain.rindex(b"IDAT") - 4
    damaged = plain[:end] + chunk(b"tEXt", b"Comment\0hello", sound=False) + plain[end:]
    for source in (large.getvalue(), profile.getvalue(), damaged):
        np.testing.assert_array_equal(np.asarray(read_image(source)), np.asarray(NOISE))
    with pytest.raises(ImageError, match="cannot be decoded"):  # but the pixels do
        read_image(plain[:end] + plain[end:].replace(b"IDAT", b"IDAX"))


@pytest.mark.parametrize("form", ["PNG", "WEBP", "JPEG"])
def test_a_broken_exif_block(form: str) -> None:
    buffer = io.BytesIO()
    RED.save(buffer, form, exif=b"Exif\0\0MM\0*\0\0\xff\xff nonsense")
    assert read_image(buffer.getvalue()).size == RED.size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation: int) -> None:
    corner = Image.new("RGB", (16, 8), "white")
    corner.paste("black", (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    corner.save(buffer, "PNG", exif=exif)
    from PIL import ImageOps

    expected = ImageOps.exif_transpose(Image.open(buffer)).convert("RGB")
    read = read_image(buffer.getvalue())
    assert np.array_equal(np.asarray(read), np.asarray(expected))
    assert np.array_equal(np.asarray(read_image(read)), np.asarray(expected))  # and is not turned once more


RAMP = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)


@pytest.mark.parametrize(
    "levels",
    [
        RAMP,  # fractions
        RAMP * 255,
        (RAMP * 4095).astype(np.uint16),  # 12 bits in 16
        (RAMP * 65535).astype(np.uint16),
        (RAMP.astype(np.float64) * (2**31 - 1)).astype(np.int32),
        (RAMP * 2000 - 1000).astype(np.int32),
        RAMP * 60_000,
    ],
    ids=["fractions", "255", "12 bits", "16 bits", "32 bits", "signed", "large floats"],
)
def test_levels_of_more_than_8_bits_keep_their_order_and_their_range(levels: np.ndarray) -> None:
    read = np.asarray(read_image(encoded(Image.fromarray(levels), "TIFF")))[..., 0].ravel().astype(int)
    assert read[0] == 0 and read[-1] > 120 and (np.diff(read) >= 0).all()
    assert len(np.unique(read)) > 100


def test_levels_that_are_no_numbers() -> None:
    levels = RAMP.copy()
    levels[:2] = np.nan
    levels[2:4] = np.inf
    assert 100 < np.asarray(read_image(Image.fromarray(levels))).mean() < 130


# Paths that are no files, and objects that raise


class Hostile(os.PathLike[str]):
    def __fspath__(self) -> str:
        raise RuntimeError("no path today")


def released() -> memoryview:
    view = memoryview(encode_png(RED))
    view.release()
    return view


FAULTS: dict[str, Any] = {
    "no path today": Hostile,
    "released memoryview": released,
    "no pixels: 0 x 0": lambda: Image.new("RGB", (0, 0)),
    "no pixels: 0 x 5": lambda: Image.new("L", (0, 5)),
    "is no regular file but a pipe or a device": lambda: "/dev/zero",
    "embedded null": lambda: "a\0b.png",
    "File name too long": lambda: "x" * 150 + "/" + "." * 5000,
    "is no path but base64": lambda: "iVBORw0KGgo" * 50,
    "is no path but a URL: fetch-images": lambda: "https://pictures.example.org/red.png",
    "is no path but a data URI": lambda: "data:image/png;base64," + "iVBORw0KGgo" * 50,
    "BytesIO|closed": lambda: closed(),
}


def closed() -> io.BytesIO:
    buffer = io.BytesIO(encode_png(RED))
    buffer.close()
    return buffer


@pytest.mark.parametrize("reason", FAULTS)
def test_every_fault_is_one_short_image_error(reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as raised:
        read_image(FAULTS[reason]())
    assert len(str(raised.value)) < 300


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photo.jpg")
    with pytest.raises(ImageError, match="is no regular file"):
        read_image(tmp_path / "photo.jpg")


def test_a_file_of_too_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.png").write_bytes(encode_png(RED))
    monkeypatch.setattr(image_module, "MAX_BYTES", 50)
    with pytest.raises(ImageError, match="bytes, and at most 50 are read"):
        read_image(tmp_path / "photo.png")


def test_further_forms_of_bytes_and_arrays() -> None:
    png = encode_png(RED)
    for source in (bytearray(png), memoryview(png), memoryview(png[::-1])[::-1], io.BytesIO(png)):
        assert np.array_equal(np.asarray(read_image(source)), np.asarray(RED))
    assert np.array_equal(np.asarray(read_image(torch.from_numpy(np.array(RED)))), np.asarray(RED))


def test_what_an_image_may_be_can_be_serialised(tmp_path: Path) -> None:
    register_msgpack_encoder()
    png = encode_png(RED)
    (tmp_path / "cut.jpg").write_bytes(encoded(NOISE, "JPEG")[:900])
    tensor = torch.ones(3, requires_grad=True)
    values = [io.BytesIO(png), tmp_path, Image.open(tmp_path / "cut.jpg"), Hostile(), closed(), tensor]
    *read, array = srsly.msgpack_loads(srsly.msgpack_dumps(values))
    assert read == [png, str(tmp_path), b"", b"", b""]
    assert array.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(TypeError):  # what is no image is not lost in silence
        srsly.msgpack_dumps([object()])


def test_nothing_is_opened_outside_the_root(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    RED.save(root / "red.png")
    RED.save(tmp_path / "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    assert inside(root / "red.png", str(root)) == str((root / "red.png").resolve())
    assert inside(b"bytes", str(root)) == b"bytes"
    for path in (root / "link.png", root / ".." / "secret.png", tmp_path / "secret.png", tmp_path / "pictures2" / "x"):
        with pytest.raises(ImageError, match="lies outside image_root"):
            inside(str(path), str(root))
        assert inside(str(path), None) == str(path)
