"""Pictures of animals."""

from __future__ import annotations

import math

from .canvas import Canvas, darker, hsv, lighter, mix, spline
from .grounds import bokeh, day_sky


def bird(c: Canvas) -> None:
    """A bird on a branch."""
    if c.chance(0.5):
        bokeh(c, c.u(0.2, 0.6))
    else:
        day_sky(c)
    c.curve([(-0.1, c.u(0.72, 0.82)), (0.4, 0.79), (0.7, 0.77), (1.1, c.u(0.66, 0.8))], 0.045, (104, 78, 58))
    for _ in range(4):
        x = c.u(0, 1)
        c.ellipse(x, 0.76 + c.u(-0.06, 0.06), 0.05, 0.022, hsv(c.u(0.22, 0.36), 0.5, 0.55), c.u(-1, 1))
    c.pose(0.1, (0.85, 1.1), 0.04)
    body = c.pick(
        [
            hsv(h, s, v)
            for h, s, v in (
                (0, 0.75, 0.8),
                (0.58, 0.65, 0.75),
                (0.08, 0.5, 0.5),
                (0.12, 0.75, 0.9),
                (0.6, 0.25, 0.25),
                (0.35, 0.5, 0.55),
            )
        ]
    )
    belly = lighter(body, c.u(0.35, 0.75))
    c.poly([(0.3, 0.6), (0.06, 0.8), (0.1, 0.86), (0.38, 0.7)], darker(body, 0.35))
    c.line([(0.47, 0.7), (0.47, 0.79)], 0.016, (120, 90, 50))
    c.line([(0.55, 0.7), (0.55, 0.79)], 0.016, (120, 90, 50))
    c.shape([(0.22, 0.68), (0.32, 0.48), (0.5, 0.36), (0.64, 0.4), (0.7, 0.52), (0.6, 0.68), (0.42, 0.74)], body)
    c.shape([(0.42, 0.74), (0.6, 0.68), (0.7, 0.52), (0.62, 0.46), (0.54, 0.58)], belly)
    c.ellipse(0.66, 0.34, 0.125, 0.12, body)
    if c.chance(0.4):
        c.poly([(0.6, 0.26), (0.62, 0.1), (0.74, 0.24)], darker(body, 0.15))
    c.poly([(0.77, 0.31), (0.92, 0.36), (0.77, 0.39)], c.pick([(240, 170, 50), (90, 80, 70), (250, 200, 90)]))
    c.ellipse(0.7, 0.32, 0.028, 0.028, (250, 250, 245))
    c.ellipse(0.703, 0.32, 0.019, 0.019, (20, 20, 24))
    c.ellipse(0.708, 0.313, 0.006, 0.006, (255, 255, 255))
    c.shape([(0.2, 0.7), (0.34, 0.48), (0.52, 0.46), (0.54, 0.58), (0.4, 0.68)], darker(body, 0.3))
    for step in range(3):
        c.curve(
            [(0.24 + 0.05 * step, 0.68), (0.38 + 0.04 * step, 0.6), (0.5, 0.52 + 0.03 * step)], 0.008, darker(body, 0.5)
        )


def cat(c: Canvas) -> None:
    """The face of a big cat: plain, spotted, striped, or with a mane."""
    bokeh(c, c.u(0.1, 0.4))
    c.pose(0.12, (0.85, 1.08), 0.05)
    fur = c.pick([(222, 160, 80), (206, 150, 92), (232, 190, 120), (150, 120, 96), (70, 66, 72), (226, 140, 60)])
    pattern = int(c.rng.integers(4))
    if pattern == 3:
        mane = darker(fur, 0.4)
        for step in range(20):
            a = 2 * math.pi * step / 20
            c.ellipse(
                0.5 + 0.3 * math.cos(a), 0.52 + 0.31 * math.sin(a), 0.13, 0.08, mix(mane, (160, 90, 40), c.u(0, 0.4)), a
            )
    c.shape([(0.3, 0.9), (0.2, 1.1), (0.8, 1.1), (0.7, 0.9), (0.5, 0.85)], darker(fur, 0.15))
    for side in (-1, 1):
        c.ellipse(0.5 + side * 0.24, 0.26, 0.1, 0.11, fur)
        c.ellipse(0.5 + side * 0.24, 0.27, 0.055, 0.065, mix(fur, (60, 36, 40), 0.65))
    c.shape(
        [
            (0.5, 0.2),
            (0.7, 0.26),
            (0.8, 0.46),
            (0.76, 0.66),
            (0.64, 0.82),
            (0.5, 0.88),
            (0.36, 0.82),
            (0.24, 0.66),
            (0.2, 0.46),
            (0.3, 0.26),
        ],
        fur,
    )
    dark = (44, 34, 34) if sum(fur) > 300 else (28, 26, 34)
    if pattern == 0:
        for _ in range(36):
            x, y = c.u(0.23, 0.77), c.u(0.24, 0.8)
            if abs(x - 0.5) > 0.12 or y < 0.36:
                r = c.u(0.012, 0.028)
                c.ellipse(x, y, r, r * 0.8, dark)
    elif pattern == 1:
        for side in (-1, 1):
            for y in (0.3, 0.42, 0.56, 0.68):
                c.curve(
                    [(0.5 + side * 0.28, y), (0.5 + side * 0.2, y + 0.02), (0.5 + side * 0.14, y + 0.015)],
                    0.03,
                    dark,
                    True,
                )
        for x in (0.44, 0.5, 0.56):
            c.curve([(x, 0.21), (0.5 + (x - 0.5) * 0.7, 0.34)], 0.026, dark, True)
    pale = lighter(fur, 0.6)
    for side in (-1, 1):
        c.ellipse(0.5 + side * 0.08, 0.7, 0.1, 0.085, pale)
    c.ellipse(0.5, 0.79, 0.08, 0.055, pale)
    c.shape([(0.43, 0.58), (0.57, 0.58), (0.5, 0.66)], c.pick([(190, 110, 110), (60, 44, 48)]))
    c.curve([(0.5, 0.65), (0.49, 0.71), (0.41, 0.74)], 0.01, dark)
    c.curve([(0.5, 0.65), (0.51, 0.71), (0.59, 0.74)], 0.01, dark)
    iris = c.pick([(206, 190, 60), (120, 180, 90), (230, 170, 50), (110, 170, 190)])
    for side in (-1, 1):
        x = 0.5 + side * 0.135
        c.ellipse(x, 0.46, 0.065, 0.048, dark, side * 0.25)
        c.ellipse(x, 0.46, 0.052, 0.038, iris, side * 0.25)
        c.ellipse(x, 0.46, 0.02, 0.034, (10, 10, 12))
        c.ellipse(x - 0.015, 0.447, 0.01, 0.01, (255, 255, 255))
        for row in range(3):
            c.line(
                [(0.5 + side * 0.1, 0.69 + row * 0.025), (0.5 + side * 0.36, 0.64 + row * 0.05)],
                0.005,
                lighter(fur, 0.8),
            )


def snake(c: Canvas) -> None:
    """A patterned snake in loops on sand or leaves."""
    ground = c.pick([(214, 188, 140), (120, 130, 80), (168, 140, 110), (96, 110, 84)])
    c.gradient(lighter(ground, 0.15), darker(ground, 0.15))
    for _ in range(60):
        c.ellipse(
            c.u(0, 1),
            c.u(0, 1),
            c.u(0.01, 0.04),
            c.u(0.005, 0.02),
            mix(ground, hsv(c.u(0.08, 0.35), 0.4, c.u(0.3, 0.8)), 0.4),
            c.u(0, 3),
        )
    c.pose(0.6, (0.85, 1.05), 0.05)
    skin = c.pick([(96, 140, 60), (180, 140, 60), (60, 70, 60), (200, 90, 50), (130, 100, 70), (50, 120, 110)])
    mark = lighter(skin, 0.55) if c.chance(0.5) else darker(skin, 0.6)
    points = [
        (0.08, 0.86),
        (0.3, 0.92),
        (0.55, 0.86),
        (0.82, 0.78),
        (0.86, 0.6),
        (0.62, 0.56),
        (0.34, 0.62),
        (0.16, 0.5),
        (0.26, 0.34),
        (0.5, 0.38),
    ]
    points += [(0.66, 0.3), (0.62, 0.16)]
    points = [(x + c.u(-0.025, 0.025), y + c.u(-0.025, 0.025)) for x, y in points]
    c.curve([(x + 0.015, y + 0.03) for x, y in points], 0.1, darker(ground, 0.45))
    path = spline(points, 10)
    for layer in ("body", "light", "mark"):
        for index in range(len(path) - 1):
            width = 0.105 * min(1.0, 0.2 + 2.2 * index / len(path))
            (x0, y0), (x1, y1) = path[index], path[index + 1]
            if layer == "body":
                c.line([(x0, y0), (x1, y1)], width, darker(skin, 0.3))
            elif layer == "light":
                c.line([(x0, y0), (x1, y1)], width * 0.66, skin)
            elif index % 7 < 3:
                c.line([(x0, y0), (x1, y1)], width * (0.5 - 0.12 * abs(index % 7 - 1)), mark)
    hx, hy = path[-1]
    c.line([(hx, hy - 0.04), (hx, hy - 0.15)], 0.008, (200, 40, 50))
    c.line([(hx, hy - 0.15), (hx - 0.025, hy - 0.18)], 0.007, (200, 40, 50))
    c.line([(hx, hy - 0.15), (hx + 0.025, hy - 0.18)], 0.007, (200, 40, 50))
    c.shape(
        [
            (hx - 0.05, hy + 0.05),
            (hx - 0.075, hy - 0.01),
            (hx - 0.03, hy - 0.09),
            (hx + 0.03, hy - 0.09),
            (hx + 0.075, hy - 0.01),
            (hx + 0.05, hy + 0.05),
        ],
        darker(skin, 0.1),
    )
    for side in (-1, 1):
        c.ellipse(hx + side * 0.042, hy - 0.03, 0.016, 0.016, (246, 220, 90))
        c.ellipse(hx + side * 0.042, hy - 0.03, 0.006, 0.014, (10, 10, 10))


def fish(c: Canvas) -> None:
    """A fish under water."""
    water = hsv(c.u(0.48, 0.62), c.u(0.5, 0.8), c.u(0.5, 0.85))
    c.gradient(lighter(water, 0.35), darker(water, 0.5))
    for _ in range(3):
        x = c.u(0, 1)
        c.poly(
            [(x, -0.1), (x + 0.08, -0.1), (x + c.u(-0.1, 0.3), 1.1), (x - 0.15, 1.1)], mix(water, (255, 255, 255), 0.22)
        )
    c.blur(3)
    for _ in range(5):
        x = c.u(0, 1)
        weed = hsv(c.u(0.3, 0.45), 0.5, c.u(0.25, 0.5))
        c.curve([(x, 1.05), (x + 0.03, 0.92), (x - 0.02, c.u(0.74, 0.88))], 0.03, weed, True)
    c.pose(0.25, (0.8, 1.1), 0.06)
    body = c.pick([(236, 120, 50), (240, 190, 60), (120, 140, 170), (90, 110, 140), (200, 80, 90), (80, 150, 170)])
    fin = darker(body, 0.3)
    c.shape([(0.24, 0.5), (0.06, 0.32), (0.1, 0.5), (0.06, 0.68)], fin)
    c.shape([(0.36, 0.4), (0.46, 0.2), (0.62, 0.26), (0.66, 0.38)], fin)
    c.shape([(0.42, 0.62), (0.44, 0.76), (0.56, 0.64)], fin)
    c.shape(
        [(0.2, 0.5), (0.38, 0.36), (0.6, 0.32), (0.8, 0.4), (0.92, 0.51), (0.8, 0.6), (0.58, 0.67), (0.36, 0.62)], body
    )
    c.shape(
        [(0.2, 0.51), (0.38, 0.56), (0.6, 0.58), (0.9, 0.53), (0.8, 0.6), (0.58, 0.67), (0.36, 0.62)],
        lighter(body, 0.5),
    )
    if c.chance(0.6):
        stripe = c.pick([(252, 252, 250), (40, 44, 60)])
        for x, h in ((0.4, 0.12), (0.56, 0.145), (0.7, 0.12)):
            c.ellipse(x, 0.49, 0.022, h, stripe)
    c.curve([(0.76, 0.42), (0.73, 0.5), (0.76, 0.58)], 0.01, darker(body, 0.35))
    c.shape([(0.58, 0.52), (0.46, 0.56), (0.5, 0.62), (0.6, 0.56)], fin)
    c.ellipse(0.83, 0.46, 0.03, 0.03, (250, 250, 250))
    c.ellipse(0.837, 0.46, 0.017, 0.017, (16, 16, 20))
    c.unpose()
    for _ in range(6):
        x, y, r = c.u(0.1, 0.9), c.u(0.05, 0.5), c.u(0.008, 0.02)
        c.ellipse(x, y, r, r, lighter(water, 0.75))
        c.ellipse(x, y, r * 0.65, r * 0.65, lighter(water, 0.3))
