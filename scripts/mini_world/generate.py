"""Writes the mini world: KB, three splits and their pictures.

`python scripts/mini_world/generate.py OUT_DIR [--seed N]`
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tqdm import tqdm

from mini_world.distractors import make_distractors
from mini_world.drawing import draw, to_jpeg
from mini_world.names import DESCRIPTIONS, WORLD_SEED, Reading, load_world, tail_ids
from mini_world.sampling import SPLITS, Mention, figures, sample_split

NUMBERS = {"train": 1600, "dev": 300, "test": 2000}


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _lines(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")


def entity_rows(world: tuple[Reading, ...], seed: int, distractors: int) -> list[dict[str, object]]:
    """The KB's rows: the entities that occur, then the distractors."""
    rows: list[dict[str, object]] = [
        {
            "id": reading.kb_id,
            "name": reading.name,
            "aliases": list(dict.fromkeys(reading.forms)),
            "description": f"{reading.name}: {DESCRIPTIONS[reading.kind]}",
            "count": reading.count,
        }
        for reading in world
    ]
    return rows + make_distractors(world, seed, distractors)


def mention_row(mention: Mention) -> dict[str, object]:
    """One line of a split."""
    return {
        "id": mention.doc_id,
        "text": mention.text,
        "image": f"images/{mention.doc_id}.jpg",
        "mentions": [{"start": mention.start, "end": mention.end, "kb_id": mention.reading.kb_id, "label": "ENT"}],
    }


def picture(mention: Mention) -> bytes:
    """The doc's picture, a JPEG."""
    return to_jpeg(draw(mention.reading.kind, np.random.default_rng(list(mention.rng_key))))


def generate(
    out: Path, seed: int = WORLD_SEED, numbers: dict[str, int] | None = None, distractors: int = 3000, workers: int = 1
) -> dict[str, object]:
    """Write the world to `out` and return its figures. The same arguments give the same bytes."""
    world = load_world(seed)
    tail = tail_ids(world)
    (out / "images").mkdir(parents=True, exist_ok=True)
    write_whole(out / "entities.jsonl", _lines(entity_rows(world, seed, distractors)))
    about: dict[str, object] = {
        "seed": seed,
        "families": len({reading.family for reading in world}),
        "entities": len(world),
        "distractors": distractors,
        "kinds": len({reading.kind for reading in world}),
        "tail_share": 0.2,
        "tail_entities": len(tail),
        "roles": {role: sum(r.role == role for r in world) for role in ("read", "unread", "unseen", "new")},
    }
    split_figures: dict[str, object] = {}
    every: list[Mention] = []
    for split in SPLITS:
        mentions = sample_split(world, split, (numbers or NUMBERS)[split], seed)
        write_whole(out / f"{split}.jsonl", _lines([mention_row(mention) for mention in mentions]))
        split_figures[split] = figures(world, mentions, tail)
        every += mentions
    with contextlib.ExitStack() as stack:
        drawn = (
            stack.enter_context(ProcessPoolExecutor(workers)).map(picture, every, chunksize=32)
            if workers > 1
            else map(picture, every)
        )
        bar = tqdm(zip(every, drawn, strict=True), total=len(every), desc="pictures", file=sys.stderr, mininterval=1.0)
        for mention, data in bar:
            write_whole(out / "images" / f"{mention.doc_id}.jpg", data)
    about["splits"] = split_figures
    write_whole(out / "splits.json", (json.dumps(about, indent=2) + "\n").encode())
    return about


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=WORLD_SEED)
    parser.add_argument("--test", type=int, default=NUMBERS["test"], help="test mentions; the first ones stay the same")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    about = generate(arguments.out, arguments.seed, {**NUMBERS, "test": arguments.test}, workers=arguments.workers)
    sys.stdout.write(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
