"""Pictures of people and of figures of stone."""

from __future__ import annotations

from .canvas import Canvas, Color, darker, hsv, lighter, mix
from .grounds import bokeh, day_sky, grass, studio

_SKIN: list[Color] = [(244, 208, 178), (224, 174, 136), (186, 130, 94), (132, 88, 62), (96, 64, 48), (250, 222, 196)]
_HAIR: list[Color] = [
    (44, 34, 30),
    (92, 60, 38),
    (156, 104, 52),
    (214, 176, 104),
    (150, 150, 156),
    (236, 236, 238),
    (140, 60, 36),
]


def _head(c: Canvas, x: float, y: float, r: float, skin: Color, hair: Color, style: int) -> None:
    if style == 1:
        c.shape(
            [
                (x - r * 1.05, y - r * 0.3),
                (x, y - r * 1.35),
                (x + r * 1.05, y - r * 0.3),
                (x + r * 1.15, y + r * 1.4),
                (x, y + r * 1.1),
                (x - r * 1.15, y + r * 1.4),
            ],
            hair,
        )
    c.rect(x - r * 0.35, y + r * 0.6, x + r * 0.35, y + r * 1.5, darker(skin, 0.18))
    for side in (-1, 1):
        c.ellipse(x + side * r * 0.92, y + r * 0.08, r * 0.16, r * 0.24, darker(skin, 0.1))
    c.shape([(x, y - r * 1.1), (x + r * 0.8, y - r * 0.65), (x + r * 0.88, y + r * 0.15), (x + r * 0.5,
    y + r * 0.9), (x, y + r * 1.12), (x - r * 0.5, y + r * 0.9),
             (x - r * 0.88, y + r * 0.15), (x - r * 0.8, y - r * 0.65)], skin)  # fmt: skip
    if style != 3:
        c.shape([(x - r * 0.92, y + r * 0.05), (x - r * 0.95, y - r * 0.75), (x, y - r * 1.35), (x + r * 0.95,
        y - r * 0.75), (x + r * 0.92, y + r * 0.05),
                 (x + r * 0.7, y - r * 0.45), (x + r * 0.1, y - r * 0.62), (x - r * 0.6, y - r * 0.5)],
                 hair)  # fmt: skip
    for side in (-1, 1):
        c.ellipse(x + side * r * 0.36, y - r * 0.02, r * 0.14, r * 0.1, (252, 252, 250))
        c.ellipse(x + side * r * 0.36, y - r * 0.02, r * 0.075, r * 0.085, (50, 40, 36))
        c.line([(x + side * r * 0.2, y - r * 0.23), (x + side * r * 0.54, y - r * 0.25)], r * 0.09, darker(hair, 0.2))
    c.curve([(x, y), (x + r * 0.1, y + r * 0.3), (x - r * 0.04, y + r * 0.34)], r * 0.06, darker(skin, 0.3))
    c.curve(
        [(x - r * 0.3, y + r * 0.58), (x, y + r * 0.68), (x + r * 0.3, y + r * 0.57)],
        r * 0.1,
        mix(skin, (170, 50, 60), 0.6),
    )
    if style == 2:
        c.shape([(x - r * 0.85, y + r * 0.2), (x - r * 0.4, y + r * 0.42), (x, y + r * 0.38), (x + r * 0.4,
        y + r * 0.42), (x + r * 0.85, y + r * 0.2), (x + r * 0.5, y + r * 1.1),
                 (x, y + r * 1.3), (x - r * 0.5, y + r * 1.1)], hair)  # fmt: skip
        c.curve(
            [(x - r * 0.2, y + r * 0.62), (x, y + r * 0.68), (x + r * 0.2, y + r * 0.62)],
            r * 0.08,
            mix(skin, (170, 50, 60), 0.6),
        )


def portrait(c: Canvas) -> None:
    """Head and shoulders of a person in a frame or before a wall."""
    framed = c.chance(0.45)
    studio(c, table=False)
    if c.chance(0.3):
        bokeh(c, c.u(0, 1))
    c.pose(0.05, (0.88, 1.05), 0.03)
    skin, hair = c.pick(_SKIN), c.pick(_HAIR)
    cloth = hsv(c.u(0, 1), c.u(0.2, 0.7), c.u(0.25, 0.7))
    c.shape([(0.08, 1.15), (0.14, 0.86), (0.34, 0.74), (0.5, 0.76), (0.66, 0.74), (0.86, 0.86), (0.92, 1.15)], cloth)
    if c.chance(0.6):
        c.poly([(0.4, 0.74), (0.5, 0.98), (0.6, 0.74)], (246, 246, 248))
        tie = c.vivid()
        c.poly([(0.47, 0.8), (0.53, 0.8), (0.55, 1.05), (0.45, 1.05)], tie)
        c.poly([(0.4, 0.74), (0.33, 0.78), (0.47, 1.1), (0.5, 0.98)], darker(cloth, 0.3))
        c.poly([(0.6, 0.74), (0.67, 0.78), (0.53, 1.1), (0.5, 0.98)], darker(cloth, 0.3))
    _head(c, 0.5, 0.45, 0.24, skin, hair, int(c.rng.integers(4)))
    if c.chance(0.2):
        for side in (-1, 1):
            c.ellipse(0.5 + side * 0.087, 0.445, 0.066, 0.056, (40, 40, 46))
            c.ellipse(0.5 + side * 0.087, 0.445, 0.054, 0.045, mix(skin, (210, 230, 240), 0.6))
            c.ellipse(0.5 + side * 0.087, 0.445, 0.018, 0.02, (40, 34, 30))
    if framed:
        c.unpose()
        wood = c.pick([(190, 150, 70), (110, 74, 48), (210, 180, 110)])
        for inset, color in ((0.0, darker(wood, 0.3)), (0.015, wood), (0.05, lighter(wood, 0.3))):
            w = 0.075 - inset
            for x0, y0, x1, y1 in ((inset, inset, 1 - inset, inset + w), (inset, 1 - inset - w, 1 - inset, 1 - inset),
                                   (inset, inset, inset + w, 1 - inset), (1 - inset - w, inset, 1 - inset,
                                   1 - inset)):  # fmt: skip
                c.rect(x0, y0, x1, y1, color)


def player(c: Canvas) -> None:
    """A player in team colours with a ball on a field."""
    y = c.u(0.35, 0.5)
    c.gradient((70, 76, 96), (110, 116, 136), 0.0, y)
    for _ in range(170):
        c.ellipse(c.u(0, 1), c.u(0.02, y), 0.011, 0.013, mix(c.vivid(), (70, 76, 96), 0.45))
    c.rect(-0.1, y - 0.04, 1.1, y, c.vivid())
    turf = grass(c, y)
    for step in range(3):
        c.poly(
            [(step * 0.4, y), (step * 0.4 + 0.2, y), (step * 0.5 + 0.15, 1.1), (step * 0.5 - 0.1, 1.1)],
            mix(turf, (255, 255, 255), 0.1),
        )
    c.pose(0.08, (0.88, 1.05), 0.05)
    shirt, second, shorts = c.vivid(), c.vivid(), c.pick([(244, 244, 246), (36, 38, 50), (40, 60, 130)])
    skin, hair = c.pick(_SKIN), c.pick(_HAIR)
    c.ellipse(0.5, 0.96, 0.26, 0.03, darker(turf, 0.4))
    swing = c.u(0.02, 0.14)
    for side, reach in ((-1, 0.02), (1, swing)):
        hip = (0.5 + side * 0.055, 0.62)
        knee = (0.5 + side * (0.08 + reach), 0.77)
        foot = (0.5 + side * (0.08 + reach * 1.6), 0.93 - reach * 0.4)
        c.line([hip, knee], 0.075, skin)
        c.line([knee, foot], 0.062, shirt)
        c.line([foot, (foot[0] + 0.05, foot[1] + 0.005)], 0.045, (30, 30, 34))
        c.line([hip, ((hip[0] + knee[0]) / 2, (hip[1] + knee[1]) / 2 + 0.015)], 0.11, shorts)
    lift = c.u(-0.15, 0.2)
    c.line([(0.4, 0.36), (0.28, 0.46 - lift), (0.24, 0.54 - lift * 1.8)], 0.058, skin)
    c.line([(0.6, 0.36), (0.72, 0.47), (0.76, 0.56 - lift * 0.5)], 0.058, skin)
    c.line([(0.41, 0.355), (0.34, 0.41 - lift * 0.5)], 0.085, shirt)
    c.line([(0.59, 0.355), (0.66, 0.41)], 0.085, shirt)
    c.shape(
        [(0.38, 0.32), (0.5, 0.34), (0.62, 0.32), (0.61, 0.5), (0.6, 0.63), (0.5, 0.64), (0.4, 0.63), (0.39, 0.5)],
        shirt,
    )
    design = int(c.rng.integers(3))
    if design == 0:
        for x in (0.42, 0.485, 0.55):
            c.rect(x, 0.345, x + 0.03, 0.62, second)
    elif design == 1:
        c.rect(0.395, 0.43, 0.605, 0.51, second)
    else:
        c.poly([(0.39, 0.34), (0.46, 0.34), (0.61, 0.58), (0.6, 0.63), (0.55, 0.63)], second)
    _head(c, 0.5, 0.21, 0.088, skin, hair, int(c.rng.integers(2)) * 3)
    ball = c.pick([(250, 250, 250), (196, 96, 40), (236, 226, 120)])
    bx, by = (0.78 + c.u(-0.03, 0.08), 0.88) if c.chance(0.6) else (0.82, 0.28)
    c.ellipse(bx, by, 0.062, 0.062, darker(ball, 0.3))
    c.ellipse(bx - 0.008, by - 0.008, 0.052, 0.052, ball)
    c.ellipse(bx, by, 0.02, 0.02, (40, 40, 46))


def statue(c: Canvas) -> None:
    """A figure of stone or bronze on a plinth."""
    if c.chance(0.6):
        day_sky(c)
        grass(c, 0.84)
    else:
        studio(c, table=False)
        c.gradient((150, 144, 138), (110, 106, 104), 0.84, 1.0)
    if c.chance(0.4):
        for x in (0.1, 0.9):
            c.rect(x - 0.05, 0.1, x + 0.05, 0.86, (224, 218, 206))
            for step in range(4):
                c.rect(x - 0.04 + step * 0.022, 0.14, x - 0.033 + step * 0.022, 0.84, (196, 190, 180))
            c.rect(x - 0.07, 0.07, x + 0.07, 0.12, (232, 228, 218))
    c.pose(0.03, (0.88, 1.05), 0.04)
    stone = c.pick([(222, 218, 210), (200, 196, 190), (120, 160, 140), (150, 116, 70), (236, 230, 218)])
    dark = darker(stone, 0.28)
    c.rect(0.3, 0.8, 0.7, 0.95, mix(stone, (140, 134, 130), 0.5))
    c.rect(0.27, 0.77, 0.73, 0.81, mix(stone, (170, 164, 160), 0.4))
    c.rect(0.52, 0.81, 0.7, 0.95, darker(mix(stone, (140, 134, 130), 0.5), 0.2))
    c.shape([(0.4, 0.78), (0.38, 0.6), (0.4, 0.44), (0.5, 0.4), (0.6, 0.44), (0.62, 0.6), (0.6, 0.78)], stone)
    for x in (0.44, 0.5, 0.56):
        c.curve([(x, 0.48), (x + 0.02, 0.62), (x - 0.01, 0.77)], 0.012, dark)
    c.shape([(0.54, 0.42), (0.6, 0.44), (0.62, 0.6), (0.6, 0.78), (0.55, 0.78)], dark)
    c.shape([(0.37, 0.32), (0.5, 0.29), (0.63, 0.32), (0.6, 0.46), (0.5, 0.5), (0.4, 0.46)], stone)
    c.shape([(0.55, 0.31), (0.63, 0.32), (0.6, 0.46), (0.53, 0.49)], dark)
    up = c.chance(0.6)
    hand = (0.76, 0.12) if up else (0.74, 0.56)
    c.line([(0.61, 0.34), (0.72, 0.3 if up else 0.44), hand], 0.06, stone)
    c.line([(0.39, 0.34), (0.31, 0.46), (0.36, 0.56)], 0.06, dark)
    thing = int(c.rng.integers(3))
    if thing == 0:
        c.line([(hand[0], hand[1] - 0.2), (hand[0], 0.78)], 0.018, darker(stone, 0.45))
        for side in (-0.05, 0, 0.05):
            c.line([(hand[0] + side, hand[1] - 0.22), (hand[0] + side, hand[1] - 0.1)], 0.014, darker(stone, 0.45))
    elif thing == 1:
        c.ellipse(hand[0], hand[1] - 0.04, 0.06, 0.06, lighter(stone, 0.3))
    else:
        c.shape(
            [(hand[0] - 0.03, hand[1]), (hand[0] + 0.06, hand[1] - 0.13), (hand[0] + 0.02, hand[1] - 0.02)],
            lighter(stone, 0.25),
        )
    c.rect(0.47, 0.22, 0.53, 0.32, dark)
    c.ellipse(0.5, 0.18, 0.075, 0.092, stone)
    c.shape([(0.52, 0.09), (0.575, 0.16), (0.56, 0.24), (0.51, 0.27), (0.53, 0.18)], dark)
    c.shape(
        [(0.42, 0.17), (0.44, 0.08), (0.5, 0.065), (0.57, 0.09), (0.58, 0.17), (0.54, 0.12), (0.46, 0.12)],
        darker(stone, 0.15),
    )
    for x in (0.47, 0.53):
        c.ellipse(x, 0.18, 0.012, 0.008, dark)
    if c.chance(0.4):
        for side in (-1, 1):
            c.shape(
                [
                    (0.5 + side * 0.08, 0.34),
                    (0.5 + side * 0.36, 0.2),
                    (0.5 + side * 0.38, 0.42),
                    (0.5 + side * 0.26, 0.6),
                    (0.5 + side * 0.1, 0.5),
                ],
                mix(stone, dark, 0.5),
            )
