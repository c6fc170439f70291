"""Backgrounds that the picture kinds share."""

from __future__ import annotations

from .canvas import Canvas, Color, darker, hsv, lighter, mix


def day_sky(c: Canvas, end: float = 1.0) -> None:
    """Blue, grey or evening sky with some clouds."""
    skies: list[tuple[Color, Color]] = [
        ((96, 160, 220), (206, 230, 244)),
        ((134, 180, 214), (236, 236, 226)),
        ((70, 120, 190), (170, 208, 236)),
        ((236, 158, 110), (250, 222, 176)),
        ((150, 140, 190), (248, 202, 180)),
        ((160, 172, 184), (220, 224, 226)),
    ]
    top, bottom = skies[int(c.rng.integers(len(skies)))]
    c.gradient(top, bottom, 0.0, end)
    if c.chance(0.5):
        c.glow(c.u(0.1, 0.9), c.u(0.0, 0.35), c.u(0.15, 0.35), (255, 248, 220), 0.8)
    for _ in range(int(c.rng.integers(4))):
        x, y, size = c.u(0, 1), c.u(0.05, 0.35), c.u(0.05, 0.1)
        for _ in range(4):
            c.ellipse(
                x + c.u(-1.3, 1.3) * size, y + c.u(-0.25, 0.25) * size, size * 0.9, size * 0.45, lighter(bottom, 0.5)
            )
    c.blur(0.6)


def night_sky(c: Canvas) -> None:
    """Dark space with stars and a coloured cloud."""
    hue = c.u(0.55, 0.85)
    c.gradient(hsv(hue, 0.7, c.u(0.05, 0.2)), hsv(hue + 0.08, 0.7, c.u(0.1, 0.3)))
    for _ in range(int(c.rng.integers(1, 4))):
        c.glow(c.u(0, 1), c.u(0, 1), c.u(0.2, 0.5), hsv(hue + c.u(-0.2, 0.2), 0.6, 0.5), 0.4)
    for _ in range(int(c.rng.integers(40, 90))):
        r = c.u(0.001, 0.006)
        c.ellipse(c.u(0, 1), c.u(0, 1), r, r, lighter(hsv(hue, 0.3, 0.9), c.u(0.2, 1)))


def hills(c: Canvas, y: float, color: Color, rough: float = 0.04) -> None:
    """A soft line of hills whose tops lie around y."""
    points = [(-0.1, 1.1)] + [(x / 6, y + c.u(-rough, rough)) for x in range(-1, 8)] + [(1.1, 1.1)]
    c.shape(points, color)


def sea(c: Canvas, y: float) -> Color:
    """Water from y down, with light on the waves. Returns its colour."""
    color = hsv(c.u(0.5, 0.6), c.u(0.45, 0.7), c.u(0.45, 0.75))
    c.gradient(lighter(color, 0.2), darker(color, 0.25), y, 1.0)
    for _ in range(int(c.rng.integers(14, 30))):
        wy = c.u(y + 0.01, 1.0)
        width = c.u(0.02, 0.1) * (0.4 + 1.5 * (wy - y))
        x = c.u(0, 1)
        c.line([(x, wy), (x + width, wy)], 0.006, lighter(color, c.u(0.15, 0.5)))
    return color


def grass(c: Canvas, y: float, end: float = 1.0) -> Color:
    """A meadow from y down. Returns its colour."""
    color = hsv(c.u(0.2, 0.36), c.u(0.4, 0.65), c.u(0.45, 0.7))
    c.gradient(lighter(color, 0.15), darker(color, 0.2), y, end)
    for _ in range(40):
        x, gy = c.u(0, 1), c.u(y, end)
        c.line([(x, gy), (x + c.u(-0.01, 0.01), gy - c.u(0.01, 0.03))], 0.004, mix(color, (240, 240, 150), c.u(0, 0.4)))
    return color


def studio(c: Canvas, table: bool = True) -> None:
    """A plain wall in a soft colour, perhaps with a table."""
    hue, value = c.u(0, 1), c.u(0.55, 0.95)
    wall = hsv(hue, c.u(0.08, 0.4), value)
    c.gradient(lighter(wall, 0.2), darker(wall, 0.1))
    c.glow(c.u(0.2, 0.8), c.u(0.1, 0.5), 0.7, lighter(wall, 0.6), 0.6)
    if table:
        y = c.u(0.68, 0.78)
        wood = hsv(c.u(0.04, 0.12), c.u(0.3, 0.6), c.u(0.4, 0.8)) if c.chance(0.6) else darker(wall, 0.3)
        c.gradient(wood, darker(wood, 0.3), y, 1.0)


def bokeh(c: Canvas, hue: float, spread: float = 0.12) -> None:
    """An out-of-focus garden or room: blurred dots around one hue."""
    c.gradient(hsv(hue, 0.45, c.u(0.4, 0.75)), hsv(hue + 0.05, 0.5, c.u(0.3, 0.55)))
    for _ in range(14):
        r = c.u(0.04, 0.16)
        c.ellipse(c.u(0, 1), c.u(0, 1), r, r, hsv(hue + c.u(-spread, spread), c.u(0.25, 0.55), c.u(0.45, 0.9)))
    c.blur(4)


def shadow(c: Canvas, x: float, y: float, rx: float, ry: float, ground: Color) -> None:
    """A flat shadow under a thing."""
    c.ellipse(x, y, rx, ry, darker(ground, 0.45))
