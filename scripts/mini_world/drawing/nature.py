"""Pictures of landscapes and plants."""

from __future__ import annotations

import math

from .canvas import Canvas, darker, hsv, lighter, mix
from .grounds import bokeh, day_sky, grass, hills, sea, studio


def _palm(c: Canvas, x: float, y: float, size: float) -> None:
    lean = c.u(-0.08, 0.08)
    top = (x + lean, y - size)
    c.curve([(x, y), (x + lean * 0.3, y - size * 0.5), top], 0.022, (120, 88, 60))
    leaf = hsv(c.u(0.26, 0.38), 0.65, c.u(0.4, 0.65))
    for step in range(7):
        a = math.pi * (0.95 + 1.1 * step / 6) + c.u(-0.1, 0.1)
        end = (top[0] + math.cos(a) * size * 0.55, top[1] + math.sin(a) * size * 0.35 + size * 0.14)
        c.curve(
            [top, ((top[0] + end[0]) / 2, min(top[1], end[1]) - size * 0.1), end],
            0.03,
            mix(leaf, (20, 60, 30), c.u(0, 0.4)),
            True,
        )


def island(c: Canvas) -> None:
    """A small island with sand and palms in the sea."""
    y = c.u(0.45, 0.58)
    day_sky(c, y)
    water = sea(c, y)
    c.pose(0.02, (0.85, 1.1), 0.05)
    base = c.u(0.62, 0.7)
    c.ellipse(0.5, base + 0.02, 0.44, 0.085, lighter(water, 0.45))
    sand = c.pick([(238, 214, 160), (246, 226, 184), (226, 196, 140)])
    c.ellipse(0.5, base, 0.4, 0.075, sand)
    green = hsv(c.u(0.25, 0.38), 0.55, c.u(0.4, 0.6))
    peak = c.u(0.1, 0.28)
    c.shape(
        [(0.2, base), (0.34, base - peak * 0.6), (0.45, base - peak), (0.6, base - peak * 0.55), (0.78, base)], green
    )
    c.shape([(0.45, base - peak), (0.6, base - peak * 0.55), (0.78, base), (0.55, base)], darker(green, 0.25))
    for _ in range(int(c.rng.integers(2, 5))):
        _palm(c, c.u(0.22, 0.78), base + c.u(-0.01, 0.03), c.u(0.2, 0.34))


def river(c: Canvas) -> None:
    """A river that winds through a valley."""
    y = c.u(0.3, 0.42)
    day_sky(c, y + 0.02)
    if c.chance(0.6):
        hills(c, y - 0.02, hsv(c.u(0.5, 0.65), 0.25, c.u(0.5, 0.7)), 0.05)
    meadow = hsv(c.u(0.18, 0.36), c.u(0.35, 0.6), c.u(0.45, 0.7))
    c.gradient(lighter(meadow, 0.15), darker(meadow, 0.2), y + 0.02, 1.0)
    flip = 1 if c.chance(0.5) else -1
    bends = [
        (0.5 + flip * c.u(-0.1, 0.1), y + 0.02, 0.012),
        (0.5 + flip * 0.22, y + 0.1, 0.03),
        (0.5 - flip * 0.18, y + 0.24, 0.07),
    ]
    bends += [(0.5 + flip * 0.12, y + 0.42, 0.14), (0.5 - flip * 0.05, 1.1, 0.26)]
    water = hsv(c.u(0.52, 0.62), c.u(0.4, 0.65), c.u(0.55, 0.8))
    for widen, color in ((1.25, darker(meadow, 0.3)), (1.0, water), (0.5, lighter(water, 0.22))):
        left = [(x - w * widen, yy) for x, yy, w in bends]
        right = [(x + w * widen, yy) for x, yy, w in reversed(bends)]
        c.shape(left + right, color)
    for _ in range(int(c.rng.integers(6, 14))):
        x, ty = c.u(0, 1), c.u(y + 0.05, 0.95)
        if min(abs(x - bx) - w * 1.3 for bx, by, w in bends if abs(by - ty) < 0.2) < 0.06:
            continue
        size = 0.03 + 0.1 * (ty - y)
        tree = hsv(c.u(0.24, 0.4), 0.5, c.u(0.3, 0.5))
        c.rect(x - size * 0.1, ty - size * 0.4, x + size * 0.1, ty, (96, 70, 50))
        c.ellipse(x, ty - size * 0.9, size * 0.55, size * 0.7, tree)
        c.ellipse(x - size * 0.15, ty - size * 1.05, size * 0.3, size * 0.4, lighter(tree, 0.2))


def mountain(c: Canvas) -> None:
    """Snowy peaks."""
    day_sky(c)
    hills(c, c.u(0.5, 0.6), hsv(c.u(0.55, 0.68), 0.25, c.u(0.6, 0.75)), 0.08)
    c.pose(0.0, (0.95, 1.1), 0.03)
    rock = hsv(c.u(0.5, 0.75), c.u(0.1, 0.3), c.u(0.35, 0.55))
    x, top = c.u(0.42, 0.58), c.u(0.12, 0.24)
    c.poly([(x, top), (x + 0.62, 1.05), (x - 0.62, 1.05)], rock)
    c.poly([(x, top), (x + 0.06, 0.4), (x - 0.02, 0.62), (x + 0.1, 1.05), (x + 0.62, 1.05)], darker(rock, 0.35))
    depth = c.u(0.14, 0.28)
    k = 0.62 / (1.05 - top)
    snow = [
        (x, top),
        (x + k * depth, top + depth),
        (x + k * depth * 0.5, top + depth * 0.75),
        (x + k * depth * 0.2, top + depth * 1.2),
    ]
    snow += [
        (x - k * depth * 0.2, top + depth * 0.8),
        (x - k * depth * 0.6, top + depth * 1.15),
        (x - k * depth, top + depth),
    ]
    c.poly(snow, (250, 251, 255))
    c.poly(
        [
            (x, top),
            (x + k * depth, top + depth),
            (x + k * depth * 0.5, top + depth * 0.75),
            (x + 0.02, top + depth * 0.7),
        ],
        (206, 214, 232),
    )
    side = x + (0.38 if c.chance(0.5) else -0.38)
    c.poly([(side, top + 0.26), (side + 0.4, 1.05), (side - 0.4, 1.05)], darker(rock, 0.15))
    c.poly(
        [(side, top + 0.26), (side + 0.05, top + 0.4), (side, top + 0.36), (side - 0.06, top + 0.4)], (240, 243, 250)
    )
    c.unpose()
    ground = c.u(0.8, 0.88)
    grass(c, ground)
    for _ in range(int(c.rng.integers(4, 12))):
        px, size, py = c.u(0, 1), c.u(0.06, 0.13), c.u(ground, 0.97)
        for level in range(3):
            w = size * (0.5 - 0.1 * level)
            c.poly(
                [
                    (px - w, py - size * 0.5 * level),
                    (px + w, py - size * 0.5 * level),
                    (px, py - size * (0.5 * level + 0.8)),
                ],
                (34, 74 + 8 * level, 56),
            )


def flower(c: Canvas) -> None:
    """One blossom close up before a soft garden."""
    bokeh(c, c.u(0.24, 0.4))
    c.pose(0.25, (0.85, 1.1), 0.06)
    petal = c.pick([hsv(h, 0.7, 0.92) for h in (0.0, 0.93, 0.85, 0.78, 0.13, 0.72)] + [(250, 244, 246)])
    c.curve([(0.5, 0.5), (0.52, 0.75), (0.48, 1.1)], 0.03, (70, 130, 60))
    for side in (-1, 1):
        c.shape(
            [(0.5, 0.85), (0.5 + side * 0.12, 0.76), (0.5 + side * 0.24, 0.74), (0.5 + side * 0.14, 0.86)],
            (84, 148, 70),
        )
    number = int(c.rng.integers(5, 13))
    for layer, size in ((0, 1.0), (1, 0.62)):
        for step in range(number):
            a = 2 * math.pi * (step + layer * 0.5) / number
            r = 0.19 * size
            width = min(0.1, 0.55 / number) * (1.15 if layer == 0 else 0.8)
            color = mix(darker(petal, 0.25 * (1 - layer) * abs(math.sin(a * 1.5 + 1))), (255, 255, 255), 0.16 * layer)
            c.ellipse(0.5 + r * math.cos(a), 0.42 + r * math.sin(a), r * 0.75, width, color, a)
    heart = c.pick([(244, 200, 60), (120, 70, 30), (250, 224, 130)])
    c.ellipse(0.5, 0.42, 0.07, 0.07, darker(heart, 0.2))
    c.ellipse(0.495, 0.415, 0.055, 0.055, heart)
    for _ in range(14):
        a, r = c.u(0, 6.3), c.u(0, 0.05)
        c.ellipse(0.5 + r * math.cos(a), 0.42 + r * math.sin(a), 0.007, 0.007, lighter(heart, 0.4))


def fruit(c: Canvas) -> None:
    """One to three round fruits with a leaf on a table."""
    studio(c)
    c.pose(0.08, (0.85, 1.1), 0.05)
    skin = c.pick([(206, 48, 44), (240, 150, 40), (150, 190, 60), (236, 200, 70), (160, 50, 90), (226, 110, 60)])
    for index in range(int(c.rng.integers(1, 4))):
        x, y, r = ((0.5, 0.58, 0.25), (0.24, 0.68, 0.16), (0.78, 0.69, 0.15))[index]
        tint = mix(skin, hsv(c.u(0, 0.2), 0.7, 0.85), c.u(0, 0.2))
        c.ellipse(x + 0.02, y + r * 0.92, r * 1.05, r * 0.22, (70, 50, 44))
        c.shape([(x, y - r * 0.82), (x + r * 0.6, y - r * 0.9), (x + r, y - r * 0.1), (x + r * 0.6,
        y + r * 0.85), (x, y + r * 0.95),
                 (x - r * 0.6, y + r * 0.85), (x - r, y - r * 0.1), (x - r * 0.6, y - r * 0.9)], darker(tint,
                 0.25))  # fmt: skip
        c.ellipse(x - r * 0.08, y - r * 0.02, r * 0.82, r * 0.8, tint)
        c.ellipse(x - r * 0.28, y - r * 0.3, r * 0.42, r * 0.36, lighter(tint, 0.18))
        c.ellipse(x - r * 0.36, y - r * 0.4, r * 0.16, r * 0.12, lighter(tint, 0.65), -0.6)
        c.curve([(x, y - r * 0.75), (x + r * 0.04, y - r), (x + r * 0.14, y - r * 1.22)], 0.022, (92, 62, 40))
        c.shape(
            [
                (x + r * 0.08, y - r),
                (x + r * 0.4, y - r * 1.3),
                (x + r * 0.85, y - r * 1.2),
                (x + r * 0.5, y - r * 0.95),
            ],
            (86, 150, 66),
        )
