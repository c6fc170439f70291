"""Pictures of flags, badges and coins."""

from __future__ import annotations

import math

from .canvas import Canvas, Color, darker, hsv, lighter, mix
from .grounds import day_sky, studio


def star(c: Canvas, x: float, y: float, r: float, color: Color) -> None:
    """A star of five points."""
    points = []
    for step in range(10):
        a, size = math.pi * (step / 5 - 0.5), r if step % 2 == 0 else r * 0.4
        points.append((x + size * math.cos(a), y + size * math.sin(a)))
    c.poly(points, color)


def flag(c: Canvas) -> None:
    """A flag that waves on a pole."""
    day_sky(c)
    c.pose(0.08, (0.85, 1.05), 0.04)
    c.line([(0.16, 0.1), (0.16, 1.15)], 0.026, (168, 170, 178))
    c.ellipse(0.16, 0.09, 0.028, 0.028, (230, 200, 90))
    colors = [c.vivid(), c.pick([(246, 246, 246), (246, 246, 246), (30, 34, 60)]), c.vivid()]
    design, phase, swing = int(c.rng.integers(5)), c.u(0, 6.3), c.u(0.02, 0.045)
    number = 36

    def edge(x: float, share: float) -> float:
        return 0.17 + 0.46 * share + swing * math.sin(phase + x * 7.5) * (0.3 + x) + 0.03 * x

    for step in range(number):
        x0, x1 = step / number, (step + 1.25) / number
        bands: list[tuple[float, float, Color]]
        if design == 0:
            bands = [(0, 1 / 3, colors[0]), (1 / 3, 2 / 3, colors[1]), (2 / 3, 1, colors[2])]
        elif design == 1:
            bands = [(0, 1, colors[min(2, int(x0 * 3))])]
        elif design == 2:
            bands = [(i / 7, (i + 1) / 7, colors[0] if i % 2 == 0 else (246, 246, 246)) for i in range(7)]
        elif design == 3:
            bands = [(0, 0.5, colors[0]), (0.5, 1, colors[2])]
        else:
            bands = [(0, 1, colors[0])]
            bands += [(0.38, 0.62, colors[1])] if not 0.28 < x0 < 0.44 else [(0, 1, colors[1])]
        for low, high, color in bands:
            light = 0.5 + 0.5 * math.sin(phase + 0.9 + x0 * 7.5)
            shade = mix(darker(color, 0.22), lighter(color, 0.12), light)
            c.poly([(0.17 + 0.74 * x, edge(x, s)) for x, s in ((x0, low), (x1, low), (x1, high), (x0, high))], shade)
    if design == 2:
        for step in range(15):
            x0, x1 = step / number, (step + 1.25) / number
            c.poly(
                [(0.17 + 0.74 * x, edge(x, s)) for x, s in ((x0, 0), (x1, 0), (x1, 0.55), (x0, 0.55))], (40, 50, 120)
            )
        for _ in range(5):
            x, s = c.u(0.05, 0.36), c.u(0.08, 0.45)
            star(c, 0.17 + 0.74 * x, edge(x, s), 0.03, (250, 250, 250))
    elif design == 3:
        number = 14
        for step in range(number):
            x = step / number * 0.4
            half = 0.5 * (1 - step / number)
            c.poly(
                [
                    (0.17 + 0.74 * xx, edge(xx, s))
                    for xx, s in ((x, 0.5 - half), (x + 0.035, 0.5 - half), (x + 0.035, 0.5 + half), (x, 0.5 + half))
                ],
                colors[1],
            )
        star(c, 0.26, edge(0.12, 0.5), 0.05, (250, 220, 90))
    elif design == 0 and c.chance(0.5):
        star(c, 0.54, edge(0.5, 0.5), 0.07, colors[0])


def coin(c: Canvas) -> None:
    """A coin or a few, of gold, silver or copper."""
    studio(c)
    c.pose(0.3, (0.8, 1.05), 0.05)
    metal = c.pick([(222, 178, 70), (196, 200, 208), (190, 118, 70), (232, 196, 100)])
    for index in range(int(c.rng.integers(1, 4))):
        x, y, r = ((0.5, 0.52, 0.31), (0.2, 0.8, 0.16), (0.82, 0.79, 0.17))[index]
        c.ellipse(x + 0.02, y + 0.035, r, r, (60, 50, 48))
        c.ellipse(x, y + 0.012, r, r, darker(metal, 0.45))
        c.ellipse(x, y, r, r, metal)
        for step in range(44):
            a = 2 * math.pi * step / 44
            c.line(
                [
                    (x + r * 0.93 * math.cos(a), y + r * 0.93 * math.sin(a)),
                    (x + r * 0.99 * math.cos(a), y + r * 0.99 * math.sin(a)),
                ],
                0.005,
                darker(metal, 0.35),
            )
        c.ellipse(x, y, r * 0.86, r * 0.86, darker(metal, 0.25))
        c.ellipse(x + 0.005, y + 0.005, r * 0.83, r * 0.83, lighter(metal, 0.15))
        relief, low = darker(metal, 0.32), darker(metal, 0.12)
        if index == 0 and c.chance(0.7):
            c.shape([(x - 0.02, y - r * 0.5), (x + r * 0.3, y - r * 0.3), (x + r * 0.42, y), (x + r * 0.3,
            y + r * 0.12), (x + r * 0.24, y + r * 0.35), (x, y + r * 0.34),
                     (x + r * 0.05, y + r * 0.6), (x - r * 0.4, y + r * 0.58), (x - r * 0.3, y + r * 0.1),
                     (x - r * 0.34, y - r * 0.3)], relief)  # fmt: skip
            c.shape(
                [
                    (x - 0.02, y - r * 0.52),
                    (x + r * 0.2, y - r * 0.4),
                    (x - r * 0.05, y - r * 0.1),
                    (x - r * 0.2, y + r * 0.3),
                    (x - r * 0.4, y),
                    (x - r * 0.34, y - r * 0.34),
                ],
                low,
            )
        else:
            star(c, x, y, r * 0.5, relief)
        c.ellipse(x - r * 0.35, y - r * 0.45, r * 0.2, r * 0.09, lighter(metal, 0.65), -0.7)


def badge(c: Canvas) -> None:
    """The badge of a club on cloth: a shield or a roundel."""
    cloth = hsv(c.u(0, 1), c.u(0.3, 0.8), c.u(0.3, 0.85))
    c.gradient(lighter(cloth, 0.1), darker(cloth, 0.25))
    for step in range(28):
        c.line([(step / 14 - 1, 0), (step / 14, 1)], 0.006, mix(cloth, (255, 255, 255), 0.1))
    c.pose(0.1, (0.85, 1.08), 0.04)
    first, second, trim = c.vivid(), c.vivid(), c.pick([(248, 246, 240), (240, 206, 100), (30, 32, 50)])
    if c.chance(0.6):
        for size, color in ((1.1, darker(cloth, 0.5)), (1.04, trim), (0.95, first)):
            k = size

            def s(x: float, y: float, k: float = k) -> tuple[float, float]:
                return 0.5 + (x - 0.5) * k, 0.48 + (y - 0.48) * k

            c.shape(
                [
                    s(0.22, 0.16),
                    s(0.5, 0.12),
                    s(0.78, 0.16),
                    s(0.8, 0.45),
                    s(0.7, 0.72),
                    s(0.5, 0.9),
                    s(0.3, 0.72),
                    s(0.2, 0.45),
                ],
                color,
            )
        if c.chance(0.5):
            for x in (0.32, 0.47, 0.62):
                c.rect(x, 0.24, x + 0.07, 0.66, second)
        else:
            c.poly([(0.5, 0.16), (0.765, 0.2), (0.77, 0.45), (0.67, 0.69), (0.5, 0.84)], second)
    else:
        for r, color in ((0.4, darker(cloth, 0.5)), (0.38, trim), (0.35, first), (0.24, trim), (0.225, second)):
            c.ellipse(0.5, 0.5, r, r, color)
        for step in range(16):
            a = 2 * math.pi * step / 16
            c.ellipse(0.5 + 0.295 * math.cos(a), 0.5 + 0.295 * math.sin(a), 0.014, 0.014, trim)
    emblem = int(c.rng.integers(4))
    if emblem == 0:
        c.ellipse(0.5, 0.48, 0.12, 0.12, (248, 248, 248))
        for step in range(5):
            a = 2 * math.pi * step / 5 - 1.57
            c.ellipse(0.5 + 0.085 * math.cos(a), 0.48 + 0.085 * math.sin(a), 0.03, 0.03, (40, 42, 50))
        c.ellipse(0.5, 0.48, 0.034, 0.034, (40, 42, 50))
    elif emblem == 1:
        star(c, 0.5, 0.48, 0.15, trim)
    elif emblem == 2:
        c.shape(
            [(0.36, 0.56), (0.4, 0.4), (0.5, 0.34), (0.62, 0.4), (0.66, 0.48), (0.56, 0.5), (0.56, 0.62), (0.44, 0.62)],
            trim,
        )
        c.ellipse(0.53, 0.43, 0.015, 0.015, first)
    else:
        c.poly([(0.36, 0.56), (0.34, 0.4), (0.43, 0.48), (0.5, 0.36), (0.57, 0.48), (0.66, 0.4), (0.64, 0.56)], trim)
        c.rect(0.36, 0.57, 0.64, 0.61, trim)
    c.round_rect(0.3, 0.68, 0.7, 0.755, 0.02, trim)
    for x in range(6):
        c.rect(0.34 + x * 0.055, 0.7, 0.375 + x * 0.055, 0.735, darker(first, 0.2))
