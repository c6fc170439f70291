"""Draws the world's pictures: one function per kind."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from . import animals, emblems, locations, nature, people, space, things, vehicles
from .canvas import SIZE, Canvas

DRAWERS: dict[str, Callable[[Canvas], None]] = {
    "planet": space.planet, "car": vehicles.car, "island": nature.island, "shuttle": space.shuttle,
    "flag": emblems.flag,
    "film": things.film, "player": people.player, "ship": vehicles.ship, "river": nature.river,
    "mountain": nature.mountain,
    "bird": animals.bird, "cat": animals.cat, "snake": animals.snake, "fruit": nature.fruit, "guitar": things.guitar,
    "book": things.book, "parliament": locations.parliament, "coin": emblems.coin, "code": things.code,
    "phone": things.phone,
    "train": vehicles.train, "plane": vehicles.plane, "statue": people.statue, "portrait": people.portrait,
    "skyline": locations.skyline, "badge": emblems.badge, "flower": nature.flower, "fish": animals.fish,
}  # fmt: skip


def draw(kind: str, rng: np.random.Generator) -> Image.Image:
    """An RGB picture of `kind`, SIZE x SIZE pixels; everything about it comes from `rng`."""
    canvas = Canvas(rng)
    DRAWERS[kind](canvas)
    return canvas.finish()


def to_jpeg(image: Image.Image) -> bytes:
    """The picture as a JPEG, without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=84)
    return buffer.getvalue()


__all__ = ["DRAWERS", "SIZE", "draw", "to_jpeg"]
