"""Makes the drawings: 96 ambiguous names, drawn by seven emoji sets whose npm packages are fetched.

    python scripts/drawings/generate.py data/real [--existing FOLDER]

Writes train.jsonl, dev.jsonl, entities.jsonl, images/SET/ICON.png and sources.json (packages, versions, licences),
whole or not at all, and nothing if they are there already. If another folder is given it is only checked.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[1:3]]  # scripts, and the repository

from PIL import Image
from tqdm import tqdm

from benchmarks.memory import peak_mb
from drawings.packages import Package, fetch
from drawings.rendering import SIDE, fit, svg_renderer, to_png
from drawings.tables import SPLITS, TABLES, Tables
from spacy_gemel.data.jsonl import read_jsonl
from spacy_gemel.data.records import Problem

SOURCES = "sources.json"
FILES = (*(f"{split}.jsonl" for split in SPLITS), "entities.jsonl")


def find_missing(folder: Path) -> str | None:
    """The first thing that a folder of drawings lacks; None if it is whole. Raises OSError."""
    for name in FILES:
        if not (folder / name).is_file():
            return f"{name} is missing"
    for split in SPLITS:
        for record in read_jsonl(folder / f"{split}.jsonl"):
            if isinstance(record, Problem):
                return str(record)
            if record.image is None or not (folder / record.image).is_file():
                return f"the picture {record.image} of {record.location} is missing"
    return None


def generate(out: Path, tables: Tables) -> bool:
    """Make the drawings in `out`, unless they are there. Returns whether they had to be made.

    Raises:
        ValueError: if a package cannot be had or lacks a drawing, or if `out` holds something else.
        ImportError: if the library that renders is not installed.
        OSError: if `out` cannot be written.
    """
    key = {"tables": tables.digest, "side": SIDE}
    if _key_of(out) == key and find_missing(out) is None:
        return False
    foreign = {path.name for path in out.iterdir()} - {*FILES, SOURCES, "images"} if out.is_dir() else set()
    if foreign or out.is_file():
        raise ValueError(f"{out} holds {min(foreign, default='a file')}, which is no drawing: give another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        new = Path(folder) / "new"
        sources = {"key": key, "sources": [asdict(source) for source in tables.sources]}
        _write(new / SOURCES, (json.dumps(sources, indent=2, ensure_ascii=False) + "\n").encode("utf8"))
        for name, content in _pictures(tables):
            _write(new / name, content)
        for split in SPLITS:
            _write(new / f"{split}.jsonl", _lines(tables.captions(split)))
        _write(new / "entities.jsonl", _lines(tables.entities()))
        if out.exists():
            out.rename(Path(folder) / "old")
        new.rename(out)
    return True


def _key_of(folder: Path) -> object:
    """What the drawings in a folder were made of; None if that cannot be read."""
    try:
        return json.loads((folder / SOURCES).read_bytes())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _pictures(tables: Tables) -> Iterator[tuple[str, bytes]]:
    """Path and PNG file of each drawing. All packages are fetched before the first is rendered."""
    render = svg_renderer()
    with tqdm(tables.sources, desc="packages", file=sys.stderr) as bar:
        packages = {source.source: Package(source, fetch(source)) for source in bar}
    drawings = {drawing.image: drawing for drawing in tables.drawings}  # one may have several names
    with tqdm(drawings.items(), desc="drawings", file=sys.stderr, mininterval=1.0) as bar:
        for path, drawing in bar:
            package = packages[drawing.source]
            svg = package.svg(drawing.icon)
            image = fit(Image.open(io.BytesIO(package.webp(drawing.icon)))) if svg is None else render(svg)
            yield path, to_png(image)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _lines(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf8")


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--existing", type=Path, help="drawings to use instead, if it is another folder than OUT")
    options = parser.parse_args(arguments)
    folder = options.existing or options.out
    try:
        if folder.resolve() == options.out.resolve():
            start, is_new = time.perf_counter(), generate(folder, Tables.read(TABLES))
            cost = f"{time.perf_counter() - start:.0f} s, {peak_mb():.0f} MB at most"
            print(
                f"{folder}: the drawings are made ({cost})" if is_new else f"{folder}: the drawings are there already"
            )
        elif problem := find_missing(folder):
            hint = f"name a folder that has the drawings, or leave real_drawings at {options.out} to make them"
            raise ValueError(f"{folder} does not hold the drawings ({problem}): {hint}")
        else:
            print(f"{folder}: the drawings are there, none is made")
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
