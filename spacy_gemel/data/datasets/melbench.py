"""WikiMEL (Wikidata-MEL) and RichpediaMEL as MELBench ships them (Wang, Wu and Chen 2022): an object by id.

    {"17": {"id": "17", "sentence": "Ada with Charles", "mentions": ["Ada"], "entities": ["Ada Lovelace"],
            "answer": ["Q7259"]}}

RichpediaMEL has one mention a sentence, as strings in place of lists. The mentions have lost small words and commas on
the way. A picture is the file <id>.jpg of the folder given as `images`. There is no NIL in these sets, so an empty
answer is no gold.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_gemel.data.datasets.image_folder import Picture, open_folder
from spacy_gemel.data.datasets.mel_rows import read_mel_rows
from spacy_gemel.data.records import Problem, Record


def read_wikimel(path: Path, *, images: Path | None = None) -> Iterator[Record | Problem]:
    """Yield the documents, and what is wrong with rows and mentions. Raises ValueError and OSError for the file."""
    folder = open_folder(images)

    def picture_of(row: dict[str, Any], identity: str | None) -> Picture:
        return Picture() if folder is None or identity is None else folder.picture(f"{identity}.jpg")

    return read_mel_rows(path, picture_of, missing="")


def read_richpediamel(path: Path, *, images: Path | None = None) -> Iterator[Record | Problem]:
    """Yield RichpediaMEL's documents, as `read_wikimel` does WikiMEL's: the rows differ in strings for lists alone."""
    return read_wikimel(path, images=images)
