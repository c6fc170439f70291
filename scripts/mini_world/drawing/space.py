"""Pictures of planets and spacecraft."""

from __future__ import annotations

import math

from .canvas import Canvas, darker, hsv, lighter, mix
from .grounds import day_sky, grass, night_sky


def planet(c: Canvas) -> None:
    """A banded or cratered ball before stars, sometimes with a ring."""
    night_sky(c)
    c.pose(0.5, (0.85, 1.15), 0.07)
    base = hsv(c.u(0, 1), c.u(0.25, 0.7), c.u(0.6, 0.9))
    r = c.u(0.25, 0.32)
    ring = c.chance(0.4)
    if ring:
        c.ellipse(0.5, 0.5, r * 1.75, r * 0.5, lighter(base, 0.25), 0.0, (0.5, 1.0))
        c.ellipse(0.5, 0.5, r * 1.45, r * 0.38, darker(base, 0.75), 0.0, (0.5, 1.0))
    c.ellipse(0.5, 0.5, r, r, base)
    if c.chance(0.6):
        y = -0.9
        while y < 0.9:
            step = c.u(0.12, 0.3)
            half = (1 - min(0.99, abs(y + step / 2)) ** 2) ** 0.5
            c.ellipse(
                0.5,
                0.5 + (y + step / 2) * r,
                half * r,
                step * r * 0.45,
                mix(base, hsv(c.u(0, 1), 0.4, 0.8), c.u(0.1, 0.35)),
            )
            y += step * 1.3
    else:
        for _ in range(12):
            x, y, size = c.u(-0.6, 0.6), c.u(-0.6, 0.6), c.u(0.05, 0.18)
            c.ellipse(0.5 + x * r, 0.5 + y * r, size * r, size * r * 0.85, darker(base, 0.25))
            c.ellipse(0.505 + x * r, 0.507 + y * r, size * r * 0.8, size * r * 0.7, darker(base, 0.12))
    right = [(math.cos(a), math.sin(a)) for a in (math.pi * (step / 24 - 0.5) for step in range(25))]
    for depth, share in ((0.35, 0.22), (0.55, 0.4), (0.75, 0.55)):  # the night side, a crescent that deepens
        inner = [(0.5 + r * x * depth, 0.5 + r * y) for x, y in reversed(right)]
        c.poly([(0.5 + r * x, 0.5 + r * y) for x, y in right] + inner, darker(base, share))
    if ring:
        c.ellipse(0.5, 0.5 + r * 0.12, r * 1.75, r * 0.5, lighter(base, 0.35), 0.0, (0.02, 0.48))
        c.ellipse(0.5, 0.5 + r * 0.08, r * 1.5, r * 0.4, base, 0.0, (0.06, 0.44))


def shuttle(c: Canvas) -> None:
    """A white orbiter or rocket that lifts off on a flame, by day or night."""
    if c.chance(0.5):
        day_sky(c)
    else:
        night_sky(c)
    c.glow(0.5, 0.95, 0.6, (255, 214, 140), 0.8)
    c.pose(0.2, (0.85, 1.05), 0.05)
    smoke = (232, 228, 224)
    for _ in range(22):
        r = c.u(0.05, 0.12)
        c.ellipse(c.u(0.2, 0.8), c.u(0.92, 1.08), r, r * 0.8, mix(smoke, (150, 150, 165), c.u(0, 0.6)))
    tank = c.pick([(200, 110, 50), (190, 96, 60), (214, 130, 70)])
    for x, w in ((0.36, 0.035), (0.64, 0.035), (0.5, 0.05)):
        c.shape([(x - w, 0.74), (x, c.u(0.95, 1.05)), (x + w, 0.74)], (255, 170, 60))
        c.shape([(x - w * 0.5, 0.74), (x, c.u(0.86, 0.93)), (x + w * 0.5, 0.74)], (255, 244, 190))
    c.shape([(0.43, 0.72), (0.43, 0.25), (0.46, 0.14), (0.5, 0.08), (0.54, 0.14), (0.57, 0.25), (0.57, 0.72)], tank)
    for x in (0.36, 0.64):
        c.round_rect(x - 0.035, 0.24, x + 0.035, 0.76, 0.03, (238, 238, 240))
        c.poly([(x - 0.035, 0.27), (x, 0.16), (x + 0.035, 0.27)], (225, 226, 230))
        c.rect(x - 0.035, 0.34, x + 0.035, 0.37, (60, 60, 70))
    c.poly([(0.5, 0.45), (0.3, 0.74), (0.32, 0.78), (0.68, 0.78), (0.7, 0.74)], (246, 246, 248))
    c.poly([(0.32, 0.755), (0.31, 0.78), (0.69, 0.78), (0.68, 0.755)], (40, 42, 52))
    c.shape([(0.455, 0.78), (0.45, 0.4), (0.5, 0.27), (0.55, 0.4), (0.545, 0.78)], (252, 252, 252))
    c.shape([(0.47, 0.36), (0.5, 0.29), (0.53, 0.36), (0.5, 0.38)], (44, 48, 60))
    c.poly([(0.49, 0.6), (0.5, 0.55), (0.51, 0.6), (0.515, 0.8), (0.485, 0.8)], (50, 52, 62))
    c.rect(0.52, 0.5, 0.54, 0.56, c.vivid())
    if c.chance(0.4):
        c.unpose()
        side = 0.08 if c.chance(0.5) else 0.9
        for y in range(12):
            c.line([(side, 0.3 + y * 0.06), (side + 0.07, 0.36 + y * 0.06)], 0.008, (90, 92, 100))
        c.line([(side, 0.25), (side, 1.0)], 0.012, (110, 112, 120))
        c.line([(side + 0.07, 0.25), (side + 0.07, 1.0)], 0.012, (110, 112, 120))
        grass(c, 0.97)
