"""Pictures of things on a table or in the hand."""

from __future__ import annotations

import math

from .canvas import Canvas, darker, hsv, lighter, mix
from .emblems import star
from .grounds import bokeh, studio


def film(c: Canvas) -> None:
    """A clapper, or a reel of film."""
    studio(c)
    c.pose(0.16, (0.85, 1.08), 0.05)
    board = c.pick([(36, 38, 46), (44, 44, 48), (30, 44, 60)])
    c.poly([(0.14, 0.9), (0.88, 0.9), (0.9, 0.94), (0.16, 0.94)], (60, 50, 50))
    c.round_rect(0.12, 0.42, 0.86, 0.88, 0.02, board)
    for y in (0.56, 0.7):
        c.rect(0.15, y, 0.83, y + 0.01, (220, 220, 220))
    c.rect(0.4, 0.71, 0.41, 0.86, (220, 220, 220))
    c.rect(0.62, 0.71, 0.63, 0.86, (220, 220, 220))
    for x, y, w in (
        (0.18, 0.6, 0.2),
        (0.18, 0.64, 0.34),
        (0.2, 0.76, 0.12),
        (0.45, 0.76, 0.1),
        (0.67, 0.76, 0.12),
        (0.6, 0.6, 0.14),
    ):
        c.line(
            [(x, y + 0.02), (x + w * c.u(0.6, 1.1), y + 0.02)],
            0.018,
            c.pick([(240, 240, 236), (250, 210, 90), (140, 200, 240)]),
        )
    for tilt, y in ((0.0, 0.37), (-c.u(0.1, 0.35), 0.29)):
        cos, sin = math.cos(tilt), math.sin(tilt)

        def turned(x: float, yy: float, y: float = y, cos: float = cos, sin: float = sin) -> tuple[float, float]:
            return 0.12 + x * cos - (yy - 0.05) * sin, y + 0.05 + x * sin + (yy - 0.05) * cos

        c.poly([turned(0, 0), turned(0.74, 0), turned(0.74, 0.075), turned(0, 0.075)], (246, 246, 246))
        for step in range(5):
            x = step * 0.155
            c.poly([turned(x, 0), turned(x + 0.075, 0), turned(x + 0.115, 0.075), turned(x + 0.04, 0.075)], board)
    c.ellipse(0.15, 0.38, 0.022, 0.022, (190, 192, 200))
    if c.chance(0.5):
        x, y, r = 0.78, 0.78, 0.17
        c.ellipse(x + 0.015, y + 0.02, r, r, (40, 34, 36))
        c.ellipse(x, y, r, r, (150, 154, 164))
        c.ellipse(x, y, r * 0.9, r * 0.9, (190, 194, 204))
        for step in range(5):
            a = 2 * math.pi * step / 5
            c.ellipse(x + r * 0.52 * math.cos(a), y + r * 0.52 * math.sin(a), r * 0.24, r * 0.24, (60, 62, 72))
        c.ellipse(x, y, r * 0.12, r * 0.12, (60, 62, 72))


def guitar(c: Canvas) -> None:
    """A guitar on a stage or against a wall."""
    if c.chance(0.5):
        base = hsv(c.u(0.6, 1.0), 0.6, c.u(0.12, 0.3))
        c.gradient(base, darker(base, 0.4))
        for _ in range(3):
            c.glow(c.u(0, 1), c.u(0, 0.3), c.u(0.3, 0.6), hsv(c.u(0, 1), 0.6, 0.9), 0.6)
    else:
        studio(c)
    c.pose(0.5, (0.82, 1.0), 0.04)
    wood = c.pick([(206, 130, 60), (170, 60, 40), (226, 176, 100), (40, 40, 48), (60, 110, 160), (230, 226, 214)])
    side = darker(wood, 0.4)
    outline = [
        (0.5, 0.48),
        (0.62, 0.48),
        (0.66, 0.56),
        (0.62, 0.64),
        (0.7, 0.76),
        (0.66, 0.9),
        (0.5, 0.95),
        (0.34, 0.9),
        (0.3, 0.76),
        (0.38, 0.64),
        (0.34, 0.56),
        (0.38, 0.48),
    ]
    if c.chance(0.45):
        outline = [
            (0.46, 0.58),
            (0.36, 0.44),
            (0.3, 0.52),
            (0.36, 0.66),
            (0.3, 0.8),
            (0.38, 0.93),
            (0.54, 0.95),
            (0.68, 0.88),
            (0.68, 0.74),
            (0.63, 0.65),
            (0.7, 0.52),
            (0.64, 0.48),
            (0.54, 0.58),
        ]
        c.shape([(0.5 + (x - 0.5) * 1.08, y + 0.008) for x, y in outline], side)
        c.shape(outline, wood)
        c.shape(
            [(0.44, 0.62), (0.56, 0.62), (0.64, 0.74), (0.6, 0.86), (0.48, 0.88), (0.46, 0.76)],
            c.pick([(248, 246, 240), (34, 34, 38)]),
        )
        for y in (0.7, 0.77):
            c.rect(0.45, y, 0.55, y + 0.025, (60, 60, 66))
    else:
        c.shape([(0.5 + (x - 0.5) * 1.08, y + 0.008) for x, y in outline], side)
        c.shape(outline, wood)
        c.ellipse(0.5, 0.66, 0.085, 0.085, lighter(wood, 0.4))
        c.ellipse(0.5, 0.66, 0.068, 0.068, (34, 24, 22))
    c.rect(0.43, 0.835, 0.57, 0.86, (50, 34, 28))
    c.rect(0.472, 0.14, 0.528, 0.64, (72, 46, 34))
    for step in range(9):
        y = 0.18 + step * 0.05
        c.rect(0.472, y, 0.528, y + 0.006, (206, 200, 190))
    c.poly([(0.455, 0.02), (0.545, 0.02), (0.535, 0.15), (0.465, 0.15)], side)
    for y in (0.045, 0.08, 0.115):
        for x in (0.44, 0.56):
            c.ellipse(x, y, 0.015, 0.011, (224, 224, 228))
    for x in (0.482, 0.494, 0.506, 0.518):
        c.line([(x, 0.1), (x, 0.84)], 0.0035, (236, 236, 230))


def book(c: Canvas) -> None:
    """A book: closed and upright, or open."""
    studio(c)
    if c.chance(0.55):
        c.pose(0.12, (0.85, 1.05), 0.05)
        cover = hsv(c.u(0, 1), c.u(0.4, 0.8), c.u(0.3, 0.8))
        c.poly([(0.26, 0.9), (0.84, 0.9), (0.88, 0.94), (0.28, 0.95)], (60, 48, 46))
        c.poly([(0.76, 0.14), (0.83, 0.18), (0.83, 0.9), (0.76, 0.9)], (246, 240, 224))
        for x in (0.775, 0.79, 0.805, 0.82):
            c.line([(x, 0.17), (x, 0.89)], 0.003, (206, 196, 176))
        c.rect(0.22, 0.12, 0.77, 0.91, cover)
        c.rect(0.22, 0.12, 0.28, 0.91, darker(cover, 0.35))
        trim = c.pick([(240, 210, 120), (250, 246, 236), (236, 236, 240)])
        c.rect(0.33, 0.2, 0.72, 0.215, trim)
        c.rect(0.33, 0.82, 0.72, 0.835, trim)
        for y, w in ((0.3, 0.28), (0.36, 0.2)):
            c.line([(0.525 - w / 2, y), (0.525 + w / 2, y)], 0.026, trim)
        if c.chance(0.5):
            c.ellipse(0.525, 0.6, 0.11, 0.11, lighter(cover, 0.35))
            star(c, 0.525, 0.6, 0.09, trim)
        else:
            c.poly([(0.4, 0.72), (0.5, 0.48), (0.56, 0.6), (0.6, 0.54), (0.67, 0.72)], lighter(cover, 0.4))
    else:
        c.pose(0.1, (0.88, 1.08), 0.04)
        cover = hsv(c.u(0, 1), 0.6, c.u(0.3, 0.6))
        c.poly([(0.04, 0.4), (0.5, 0.46), (0.96, 0.4), (0.98, 0.86), (0.5, 0.92), (0.02, 0.86)], cover)
        for sign in (-1, 1):
            page = [
                (0.5, 0.44),
                (0.5 + sign * 0.15, 0.36),
                (0.5 + sign * 0.43, 0.37),
                (0.5 + sign * 0.45, 0.82),
                (0.5 + sign * 0.16, 0.8),
                (0.5, 0.87),
            ]
            c.poly(page, (252, 248, 236) if sign > 0 else (240, 234, 220))
            for row in range(9):
                y = 0.44 + row * 0.042
                c.line(
                    [(0.5 + sign * 0.06, y + 0.025), (0.5 + sign * 0.17, y - 0.005), (0.5 + sign * c.u(0.3, 0.4), y)],
                    0.009,
                    (130, 124, 120),
                )
        c.line([(0.5, 0.44), (0.5, 0.88)], 0.008, (180, 170, 156))
        if c.chance(0.5):
            c.poly([(0.6, 0.36), (0.64, 0.36), (0.65, 0.98), (0.63, 0.95), (0.61, 0.98)], (200, 50, 60))


def code(c: Canvas) -> None:
    """A screen full of program text."""
    studio(c)
    c.pose(0.06, (0.88, 1.06), 0.04)
    c.poly([(0.42, 0.76), (0.58, 0.76), (0.62, 0.9), (0.38, 0.9)], (110, 114, 122))
    c.ellipse(0.5, 0.9, 0.2, 0.025, (90, 94, 102))
    c.round_rect(0.06, 0.14, 0.94, 0.8, 0.03, (46, 48, 54))
    dark = c.chance(0.75)
    screen = hsv(c.u(0.5, 0.8), 0.4, c.u(0.1, 0.2)) if dark else (250, 250, 246)
    c.rect(0.09, 0.17, 0.91, 0.76, screen)
    c.rect(0.09, 0.17, 0.91, 0.205, lighter(screen, 0.2) if dark else (220, 222, 228))
    for step, color in enumerate(((240, 100, 90), (240, 190, 80), (100, 200, 110))):
        c.ellipse(0.115 + step * 0.03, 0.188, 0.01, 0.01, color)
    c.rect(0.09, 0.205, 0.145, 0.76, mix(screen, (128, 128, 140), 0.15))
    palette = [hsv(h, 0.6 if dark else 0.85, 0.95 if dark else 0.6) for h in (0.08, 0.35, 0.52, 0.62, 0.85, 0.13)] + [
        (200, 204, 210) if dark else (70, 74, 84)
    ]
    indent = 0
    for row in range(13):
        y = 0.235 + row * 0.04
        c.line([(0.108, y), (0.126, y)], 0.01, mix(screen, (150, 150, 160), 0.6))
        x = 0.165 + indent * 0.05
        for _ in range(int(c.rng.integers(1, 5))):
            w = c.u(0.03, 0.14)
            if x + w > 0.88:
                break
            c.line([(x, y), (x + w, y)], 0.015, palette[int(c.rng.integers(len(palette)))])
            x += w + 0.035
        indent = min(4, max(0, indent + int(c.rng.integers(-1, 2))))


def phone(c: Canvas) -> None:
    """A telephone with a screen of icons."""
    if c.chance(0.5):
        studio(c)
    else:
        bokeh(c, c.u(0.5, 0.9))
    c.pose(0.3, (0.85, 1.05), 0.05)
    body = c.pick([(30, 32, 38), (226, 228, 232), (60, 70, 110), (200, 160, 140)])
    c.round_rect(0.31, 0.08, 0.73, 0.96, 0.06, darker(body, 0.4))
    c.round_rect(0.29, 0.06, 0.71, 0.94, 0.06, body)
    top, low = hsv(c.u(0, 1), 0.5, 0.9), hsv(c.u(0, 1), 0.6, 0.5)
    keys = c.chance(0.35)
    bottom = 0.52 if keys else 0.86
    for step in range(20):
        y0, y1 = 0.13 + (bottom - 0.13) * step / 20, 0.13 + (bottom - 0.13) * (step + 1) / 20 + 0.004
        c.rect(0.315, y0, 0.685, y1, mix(top, low, step / 20))
    c.line([(0.46, 0.095), (0.54, 0.095)], 0.012, darker(body, 0.5))
    for row in range(2 if keys else 4):
        for column in range(4):
            x, y = 0.335 + column * 0.087, 0.24 + row * 0.125
            c.round_rect(x, y, x + 0.066, y + 0.066, 0.014, lighter(c.vivid(), 0.15))
    c.rect(0.36, 0.155, 0.54, 0.185, lighter(top, 0.7))
    if keys:
        for row in range(4):
            for column in range(3):
                x, y = 0.33 + column * 0.122, 0.57 + row * 0.085
                c.round_rect(
                    x, y, x + 0.098, y + 0.055, 0.014, lighter(body, 0.35) if sum(body) < 400 else darker(body, 0.25)
                )
    else:
        c.ellipse(0.5, 0.9, 0.022, 0.022, lighter(body, 0.3) if sum(body) < 400 else darker(body, 0.2))
