"""A sheet of 60 pictures with captions and golds: `python scripts/mini_world/contact_sheet.py OUT.jpg [--seed N]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mini_world.drawing import SIZE, draw
from mini_world.names import WORLD_SEED, load_world
from mini_world.sampling import Mention, sample_split

_COLUMNS, _ROWS = 10, 6
_CELL, _TEXT, _GAP = 168, 84, 10


def _wrap(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: float, most: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) == most:
            lines[-1] += "..."
            break
        else:
            lines.append(word)
    return lines


def contact_sheet(seed: int = WORLD_SEED, number: int = _COLUMNS * _ROWS) -> Image.Image:
    """Dev docs of as many kinds as there are, in a grid; the mention's gold stands in colour."""
    mentions = sample_split(load_world(seed), "dev", 300, seed)
    by_kind: dict[str, list[Mention]] = {}
    for mention in mentions:
        by_kind.setdefault(mention.reading.kind, []).append(mention)
    chosen: list[Mention] = []
    while len(chosen) < number:
        for kind in sorted(by_kind):
            if by_kind[kind] and len(chosen) < number:
                chosen.append(by_kind[kind].pop(0))
    small, bold = ImageFont.load_default(12), ImageFont.load_default(12.5)
    sheet = Image.new("RGB", (_GAP + _COLUMNS * (_CELL + _GAP), _GAP + _ROWS * (_CELL + _TEXT + _GAP)), (252, 251, 248))
    pen = ImageDraw.Draw(sheet)
    for index, mention in enumerate(chosen):
        x = _GAP + index % _COLUMNS * (_CELL + _GAP)
        y = _GAP + index // _COLUMNS * (_CELL + _TEXT + _GAP)
        picture = draw(mention.reading.kind, np.random.default_rng(list(mention.rng_key)))
        sheet.paste(picture.resize((_CELL, _CELL * picture.height // SIZE), Image.Resampling.LANCZOS), (x, y))
        lines = _wrap(mention.text, small, _CELL, 3)
        for row, line in enumerate(lines):
            pen.text((x, y + _CELL + 3 + row * 15), line, (60, 60, 66), small)
        for row, line in enumerate(_wrap(mention.reading.name, bold, _CELL, 2)):
            pen.text((x, y + _CELL + 5 + (len(lines) + row) * 15), line, (170, 60, 30), bold)
    return sheet


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=WORLD_SEED)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(arguments.seed).save(arguments.out, quality=88, optimize=True)


if __name__ == "__main__":
    main()
