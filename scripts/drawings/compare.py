"""Compares two folders of drawings: their rows must be equal, their pictures may be rendered differently.

    python scripts/drawings/compare.py data/real OTHER

Prints the mean absolute difference of the pictures' pixels (0 to 255), and the pictures that differ most.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from drawings.generate import FILES
from drawings.tables import SPLITS

_WORST = 10


def compare(first: Path, second: Path) -> dict[str, object]:
    """The numbers of rows and the differences of the pictures.

    Raises:
        ValueError: if the rows are not the same in the same order, or if two pictures differ in size.
        OSError: if a file is missing or is no picture.
    """
    for name in FILES:
        rows, second_rows = ([json.loads(line) for line in _lines(folder / name)] for folder in (first, second))
        for number, (row, other) in enumerate(zip(rows, second_rows, strict=False), start=1):
            if row != other:
                raise ValueError(f"{name}:{number} differs: {row} and {other}")
        if len(rows) != len(second_rows):
            raise ValueError(f"{name} has {len(rows)} rows in {first} and {len(second_rows)} in {second}")
    captions = {split: [json.loads(line) for line in _lines(first / f"{split}.jsonl")] for split in SPLITS}
    images = sorted({row["image"] for rows in captions.values() for row in rows})
    differences = {image: picture_difference(first / image, second / image) for image in images}
    worst = sorted(images, key=lambda image: -differences[image])[:_WORST]
    values = np.array(list(differences.values()))
    return {
        "rows": {split: len(rows) for split, rows in captions.items()},
        "pictures": len(images),
        "mean": round(float(values.mean()), 2),
        "median": round(float(np.median(values)), 2),
        "worst": {image: round(differences[image], 2) for image in worst},
    }


def picture_difference(first: Path, second: Path) -> float:
    """Mean absolute difference of two pictures' RGB values, from 0 to 255. Raises ValueError for unlike sizes."""
    pixels, second_pixels = (np.asarray(Image.open(path).convert("RGB"), dtype=np.int16) for path in (first, second))
    if pixels.shape != second_pixels.shape:
        raise ValueError(f"{first} and {second} differ in size: {pixels.shape} and {second_pixels.shape}")
    return float(np.abs(pixels - second_pixels).mean())


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(compare(options.first, options.second), indent=2))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
