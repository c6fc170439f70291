"""The tables in assets/drawings: which drawings there are, what each is called and what it shows.

`sources.tsv` has a row per emoji set: its npm package at one version and with one checksum, and its licence;
`readings.tsv` one per reading of an ambiguous name; `drawings.tsv` one per drawing and name, in the order of the
captions; `sentences.txt` a neutral sentence a line.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

TABLES = Path(__file__).resolve().parents[2] / "assets" / "drawings"
SPLITS = ("train", "dev")


@dataclass(frozen=True)
class Source:
    """An emoji set; `integrity` is the checksum of its package as npm writes it: `sha512-` and base64."""

    source: str
    split: str
    package: str
    version: str
    integrity: str
    licence: str
    author: str


@dataclass(frozen=True)
class Reading:
    """What a name may mean: a title of Wikipedia, which is the entity's id as well, and the emoji that show it."""

    name: str
    title: str
    codepoints: str


@dataclass(frozen=True)
class Drawing:
    """A drawing of a set under one of its names; `sentence` is a line of sentences.txt, from 1."""

    source: str
    icon: str
    name: str
    title: str
    sentence: str

    @property
    def image(self) -> str:
        """Where the picture lies in the data set."""
        return f"images/{self.source}/{self.icon}.png"


_Row = TypeVar("_Row", Source, Reading, Drawing)


@dataclass(frozen=True)
class Tables:
    """All four, and the SHA-256 of their files, in hex."""

    sources: list[Source]
    readings: list[Reading]
    drawings: list[Drawing]
    sentences: list[str]
    digest: str

    @classmethod
    def read(cls, folder: Path = TABLES) -> Tables:
        """Raises ValueError for a table with other columns, OSError for one that is missing."""
        sources, readings, drawings = (folder / f"{name}.tsv" for name in ("sources", "readings", "drawings"))
        sentences = folder / "sentences.txt"
        contents = [path.read_bytes() for path in (sources, readings, drawings, sentences)]
        return cls(
            _read(sources, Source),
            _read(readings, Reading),
            _read(drawings, Drawing),
            sentences.read_text(encoding="utf8").splitlines(),
            hashlib.sha256(b"\0".join(contents)).hexdigest(),
        )

    def entities(self) -> list[dict[str, Any]]:
        """The knowledge base's rows: each title once, with the names that may mean it."""
        names: dict[str, list[str]] = {}
        for reading in self.readings:
            names.setdefault(reading.title, []).append(reading.name)
        return [{"id": title, "name": title, "aliases": aliases} for title, aliases in names.items()]

    def captions(self, split: str) -> list[dict[str, Any]]:
        """The rows of a split, in the project's form of JSON lines."""
        sources = {source.source for source in self.sources if source.split == split}
        return [self._caption(drawing) for drawing in self.drawings if drawing.source in sources]

    def _caption(self, drawing: Drawing) -> dict[str, Any]:
        text = self.sentences[int(drawing.sentence) - 1].format(drawing.name)
        # The first place, as in the data set that this makes again: for one hat it is inside "What".
        start = text.index(drawing.name)
        return {
            "id": f"{drawing.source}:{drawing.icon}:{drawing.name}",
            "text": text,
            "image": drawing.image,
            "mentions": [{"start": start, "end": start + len(drawing.name), "kb_id": drawing.title}],
        }


def _read(path: Path, kind: type[_Row]) -> list[_Row]:
    """The rows of a table with exactly the fields of a class as its columns."""
    with path.open(encoding="utf8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if reader.fieldnames != [field.name for field in fields(kind)]:
            raise ValueError(f"{path} has other columns than {', '.join(field.name for field in fields(kind))}")
        return [kind(**row) for row in reader]
