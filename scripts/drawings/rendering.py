"""A drawing as a small picture on white."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image

SIDE = 72
_LARGE = 4 * SIDE  # rendered so, then reduced


def svg_renderer() -> Callable[[str], Image.Image]:
    """A function that renders an SVG document, the same on every machine.

    Raises:
        ImportError: with the remedy, if resvg is not installed.
    """
    try:
        import resvg_py
    except ImportError:
        raise ImportError("resvg-py, which renders the drawings, is not installed: pip install -e .[real]") from None

    def render(svg: str) -> Image.Image:
        png = resvg_py.svg_to_bytes(
            svg_string=svg, width=_LARGE, height=_LARGE, background="white", skip_system_fonts=True
        )
        return fit(Image.open(io.BytesIO(png)))

    return render


def fit(image: Image.Image) -> Image.Image:
    """A picture on white, reduced to fit into SIDE x SIDE pixels, in the middle."""
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    white.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    canvas.paste(white.convert("RGB"), ((SIDE - white.width) // 2, (SIDE - white.height) // 2))
    return canvas


def to_png(image: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
