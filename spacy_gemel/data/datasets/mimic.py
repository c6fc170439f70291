"""The cleaned form of WikiDiverse, WikiMEL and RichpediaMEL that MIMIC (Luo et al. 2023) and KGMEL use: an array.

    [{"id": 0, "sentence": "Ada in London", "imgPath": "mention_0.jpg", "mention": ["Ada", "London"],
      "entity": ["Ada Lovelace", "London"], "answer": ["Q7259", "Q84"], "img-url": "https://upload.../Ada.svg"}]

MIMIC's own files have one mention a row, as strings in `mentions` and `answer`. An answer of "nil" is NIL. All pictures
are JPEG files, whatever extension `imgPath` has.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy_gemel.data.datasets.image_folder import Picture, open_folder
from spacy_gemel.data.datasets.mel_rows import read_mel_rows
from spacy_gemel.data.fields import is_name
from spacy_gemel.data.records import Problem, Record
from spacy_gemel.kb.resolve import NIL


def read_mimic(path: Path, *, images: Path | None = None) -> Iterator[Record | Problem]:
    """Yield the documents and what is wrong with rows and mentions. Raises ValueError and OSError for the file."""
    folder = open_folder(images)

    def picture_of(row: dict[str, Any], identity: str | None) -> Picture:
        name, url = row.get("imgPath"), row.get("img-url")
        url = url if is_name(url) and url else None
        if folder is None or not is_name(name) or not name.split("/")[-1]:
            return Picture(url=url)
        file = name.split("/")[-1]
        return folder.picture(f"{Path(file).stem}.jpg", file, url=url)

    return read_mel_rows(path, picture_of, missing=NIL)
