"""A small vector canvas over PIL: shapes in unit coordinates, posed by one affine map, drawn large and scaled down."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 112
SCALE = 3

Point = tuple[float, float]
Color = tuple[int, int, int]


def hsv(hue: float, saturation: float, value: float) -> Color:
    """A colour from hue, saturation and value, each 0 to 1 (hue wraps)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(1.0, max(0.0, saturation)), min(1.0, max(0.0, value)))
    return round(red * 255), round(green * 255), round(blue * 255)


def mix(first: Color, second: Color, share: float) -> Color:
    """The colour `share` of the way from `first` to `second`; beyond 0 to 1 it is cut."""
    share = min(1.0, max(0.0, share))
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def lighter(color: Color, share: float = 0.3) -> Color:
    """Towards white."""
    return mix(color, (255, 255, 255), share)


def darker(color: Color, share: float = 0.3) -> Color:
    """Towards a dark blue, which looks more like shade than black does."""
    return mix(color, (12, 14, 30), share)


class Canvas:
    """One picture in the making. x runs right, y down, both 0 to 1."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.px = SIZE * SCALE
        self.image = Image.new("RGB", (self.px, self.px))
        self.draw = ImageDraw.Draw(self.image)
        self.angle, self.zoom, self.flip = 0.0, 1.0, 1.0
        self.shift: Point = (0.0, 0.0)

    # chance

    def u(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        """True in `share` of the cases."""
        return bool(self.rng.random() < share)

    def pick(self, options: Sequence[Color]) -> Color:
        """One of the colours, slightly changed."""
        color = options[int(self.rng.integers(len(options)))]
        return mix(color, hsv(self.u(0, 1), 0.5, 0.7), self.u(0, 0.12))

    def vivid(self) -> Color:
        """A clear colour of any hue."""
        return hsv(self.u(0, 1), self.u(0.6, 0.9), self.u(0.6, 0.95))

    # pose

    def pose(
        self, tilt: float = 0.12, zoom: tuple[float, float] = (0.82, 1.08), shift: float = 0.06, flip: bool = True
    ) -> None:
        """Draw a random pose; what follows is turned, scaled, moved and perhaps mirrored around the middle."""
        self.angle, self.zoom = self.u(-tilt, tilt), self.u(*zoom)
        self.shift = (self.u(-shift, shift), self.u(-shift, shift))
        self.flip = -1.0 if flip and self.chance(0.5) else 1.0

    def unpose(self) -> None:
        """Back to plain coordinates."""
        self.angle, self.zoom, self.flip, self.shift = 0.0, 1.0, 1.0, (0.0, 0.0)

    def at(self, point: Point) -> Point:
        """Pixel position of a point."""
        x, y = (point[0] - 0.5) * self.flip, point[1] - 0.5
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = (x * cos - y * sin) * self.zoom, (x * sin + y * cos) * self.zoom
        return (x + 0.5 + self.shift[0]) * self.px, (y + 0.5 + self.shift[1]) * self.px

    # shapes

    def poly(self, points: Sequence[Point], fill: Color) -> None:
        """A filled polygon."""
        self.draw.polygon([self.at(point) for point in points], fill=fill)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, fill: Color, rotation: float = 0.0, arc: Point = (0.0, 1.0)
    ) -> None:
        """A filled ellipse, or the part of it between two shares of the full turn."""
        cos, sin = math.cos(rotation), math.sin(rotation)
        points = []
        for step in range(49):
            a = 2 * math.pi * (arc[0] + (arc[1] - arc[0]) * step / 48)
            px, py = rx * math.cos(a), ry * math.sin(a)
            points.append((x + px * cos - py * sin, y + px * sin + py * cos))
        self.poly(points, fill)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: Color) -> None:
        """A filled rectangle."""
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)

    def round_rect(self, x0: float, y0: float, x1: float, y1: float, r: float, fill: Color) -> None:
        """A rectangle with round corners of radius r."""
        self.rect(x0 + r, y0, x1 - r, y1, fill)
        self.rect(x0, y0 + r, x1, y1 - r, fill)
        for x in (x0 + r, x1 - r):
            for y in (y0 + r, y1 - r):
                self.ellipse(x, y, r, r, fill)

    def line(self, points: Sequence[Point], width: float, fill: Color) -> None:
        """A line of even width with round joints."""
        pixels = [self.at(point) for point in points]
        thick = max(1, round(width * self.px * self.zoom))
        self.draw.line(pixels, fill=fill, width=thick, joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            self.draw.ellipse([x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2], fill=fill)

    def curve(self, points: Sequence[Point], width: float, fill: Color, taper: bool = False) -> None:
        """A smooth line through the points; with `taper` it runs out thin."""
        smooth = spline(points)
        for index, (start, end) in enumerate(pairwise(smooth)):
            self.line([start, end], width * (1 - 0.85 * index / len(smooth)) if taper else width, fill)

    def shape(self, points: Sequence[Point], fill: Color) -> None:
        """A filled shape with a smooth outline through the points."""
        self.poly(spline([*points, points[0]]), fill)

    # grounds

    def gradient(self, top: Color, bottom: Color, start: float = 0.0, end: float = 1.0) -> None:
        """Fill the band from `start` to `end` of the height with a vertical run of colour."""
        first, last = round(start * self.px), round(end * self.px)
        share = np.linspace(0.0, 1.0, max(1, last - first))[:, None, None]
        band = np.array(top)[None, None] * (1 - share) + np.array(bottom)[None, None] * share
        band = np.broadcast_to(band, (max(1, last - first), self.px, 3)).round().astype(np.uint8)
        self.image.paste(Image.fromarray(np.ascontiguousarray(band)), (0, first))

    def glow(self, x: float, y: float, radius: float, color: Color, strength: float = 0.8) -> None:
        """A soft light around a point, in plain coordinates."""
        axis = (np.arange(self.px) + 0.5) / self.px
        distance = np.hypot(axis[None, :] - x, axis[:, None] - y) / radius
        mask = (np.clip(1 - distance, 0, 1) ** 1.5 * 255 * strength).astype(np.uint8)
        self.image.paste(color, (0, 0, self.px, self.px), Image.fromarray(mask))

    def blur(self, radius: float) -> None:
        """Soften all that has been drawn so far."""
        self.image = self.image.filter(ImageFilter.GaussianBlur(radius * self.px / 100))
        self.draw = ImageDraw.Draw(self.image)

    def finish(self) -> Image.Image:
        """Scale down and add the marks of a camera: light, a vignette, grain."""
        image = self.image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        pixels = np.asarray(image, dtype=np.float64)
        axis = (np.arange(SIZE) + 0.5) / SIZE - 0.5
        corner = (axis[None, :] ** 2 + axis[:, None] ** 2) * self.u(0.1, 0.55)
        pixels = pixels * (1 - corner[:, :, None]) * self.u(0.88, 1.1) + self.u(-8, 8)
        pixels = pixels + self.rng.normal(0, self.u(1.5, 6.0), (SIZE, SIZE, 1))
        pixels = pixels + self.rng.normal(0, 2.0, (SIZE, SIZE, 3))
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def spline(points: Sequence[Point], steps: int = 8) -> list[Point]:
    """Points along a Catmull-Rom curve through the given ones; closed if the last is the first."""
    closed = points[0] == points[-1]
    first = points[-2] if closed else points[0]
    last = points[1] if closed else points[-1]
    padded = [first, *points, last]
    out: list[Point] = []
    for p0, p1, p2, p3 in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        for step in range(steps):
            t = step / steps
            out.append(
                (
                    _catmull(p0[0], p1[0], p2[0], p3[0], t),
                    _catmull(p0[1], p1[1], p2[1], p3[1], t),
                )
            )
    out.append(points[-1])
    return out


def _catmull(a: float, b: float, c: float, d: float, t: float) -> float:
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t**3)
