"""Pictures of towns and great buildings."""

from __future__ import annotations

from .canvas import Canvas, darker, hsv, lighter, mix
from .grounds import day_sky, grass, night_sky, sea, shadow


def skyline(c: Canvas) -> None:
    """Rows of houses and towers by day, in the evening or by night."""
    night = c.chance(0.35)
    if night:
        night_sky(c)
        c.glow(0.5, 0.8, 0.7, (250, 190, 120), 0.4)
    else:
        day_sky(c)
    tone = hsv(c.u(0.5, 0.75), c.u(0.1, 0.4), 0.3 if night else c.u(0.4, 0.7))
    for layer in range(3):
        x = -0.05
        color = mix(tone, (30, 34, 56) if night else (236, 236, 240), 0.5 - 0.25 * layer)
        while x < 1.05:
            w = c.u(0.07, 0.16)
            top = c.u(0.2, 0.55) + 0.1 * layer
            wall = mix(color, hsv(c.u(0, 1), 0.35, 0.35 if night else 0.7), 0.3 if layer else 0.1)
            c.rect(x, top, x + w, 1.0, wall)
            c.rect(x + w * 0.72, top, x + w, 1.0, darker(wall, 0.2))
            crown = int(c.rng.integers(5))
            if crown == 0:
                c.poly([(x, top), (x + w / 2, top - c.u(0.05, 0.12)), (x + w, top)], darker(wall, 0.1))
            elif crown == 1:
                c.line([(x + w / 2, top), (x + w / 2, top - c.u(0.06, 0.14))], 0.008, darker(wall, 0.2))
            elif crown == 2:
                c.rect(x + w * 0.2, top - 0.04, x + w * 0.8, top, wall)
            if layer:
                rows, columns = int((0.95 - top) / 0.05), max(2, int(w / 0.035))
                for row in range(rows):
                    for column in range(columns):
                        lit = c.chance(0.6 if night else 0.5)
                        wx, wy = x + w * (column + 0.3) / columns, top + 0.025 + row * 0.05
                        glass = (
                            ((250, 216, 130) if lit else darker(wall, 0.3))
                            if night
                            else (lighter(wall, 0.4) if lit else darker(wall, 0.35))
                        )
                        c.rect(wx, wy, wx + w * 0.42 / columns, wy + 0.024, glass)
            x += w + c.u(-0.01, 0.02)
    if c.chance(0.4):
        sea(c, 0.86)
    else:
        c.gradient((90, 92, 100), (70, 72, 82), 0.92, 1.0)


def parliament(c: Canvas) -> None:
    """A building of columns with a pediment, and a dome or a clock tower."""
    day_sky(c)
    grass(c, 0.82)
    c.pose(0.02, (0.88, 1.05), 0.03)
    stone = c.pick([(240, 234, 220), (226, 214, 190), (214, 208, 200), (236, 220, 200)])
    dark = darker(stone, 0.3)
    shadow(c, 0.5, 0.86, 0.48, 0.03, (90, 110, 70))
    if c.chance(0.65):
        dome = c.pick([stone, (120, 160, 150), (196, 160, 90), stone])
        c.rect(0.36, 0.34, 0.64, 0.48, stone)
        for step in range(7):
            c.rect(0.38 + step * 0.036, 0.36, 0.392 + step * 0.036, 0.46, dark)
        c.ellipse(0.5, 0.35, 0.15, 0.19, dome, 0.0, (0.5, 1.0))
        c.ellipse(0.55, 0.35, 0.09, 0.17, darker(dome, 0.15), 0.0, (0.5, 1.0))
        c.rect(0.485, 0.1, 0.515, 0.18, stone)
        c.line([(0.5, 0.1), (0.5, 0.03)], 0.01, dark)
        c.poly([(0.5, 0.03), (0.58, 0.05), (0.5, 0.075)], c.vivid())
    else:
        x = 0.14 if c.chance(0.5) else 0.86
        c.rect(x - 0.065, 0.18, x + 0.065, 0.84, mix(stone, (190, 160, 110), 0.35))
        c.rect(x + 0.02, 0.18, x + 0.065, 0.84, mix(dark, (150, 120, 80), 0.35))
        c.poly([(x - 0.08, 0.18), (x, 0.02), (x + 0.08, 0.18)], (90, 100, 110))
        c.ellipse(x, 0.27, 0.05, 0.05, (60, 60, 66))
        c.ellipse(x, 0.27, 0.042, 0.042, (250, 248, 240))
        c.line([(x, 0.27), (x, 0.24)], 0.008, (40, 40, 46))
        c.line([(x, 0.27), (x + 0.02, 0.28)], 0.008, (40, 40, 46))
    c.rect(0.06, 0.54, 0.94, 0.84, darker(stone, 0.08))
    c.rect(0.04, 0.515, 0.96, 0.55, stone)
    for x in (0.1, 0.18, 0.76, 0.84):
        for y in (0.59, 0.71):
            c.rect(x, y, x + 0.045, y + 0.075, (90, 104, 124))
            c.rect(x, y, x + 0.045, y + 0.015, (60, 72, 92))
    c.rect(0.28, 0.52, 0.72, 0.84, dark)
    c.poly([(0.25, 0.52), (0.5, 0.4), (0.75, 0.52)], stone)
    c.poly([(0.32, 0.508), (0.5, 0.425), (0.68, 0.508)], darker(stone, 0.18))
    c.rect(0.26, 0.515, 0.74, 0.555, lighter(stone, 0.2))
    for step in range(6):
        x = 0.29 + step * 0.078
        c.rect(x, 0.555, x + 0.036, 0.82, stone)
        c.rect(x + 0.024, 0.555, x + 0.036, 0.82, darker(stone, 0.14))
        c.rect(x - 0.006, 0.81, x + 0.042, 0.83, lighter(stone, 0.2))
    for step in range(3):
        c.rect(
            0.27 - step * 0.02, 0.83 + step * 0.02, 0.73 + step * 0.02, 0.855 + step * 0.02, darker(stone, 0.06 * step)
        )
