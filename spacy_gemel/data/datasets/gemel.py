"""GEMEL's own preprocessed form (Shi et al. 2024): JSON lines, one mention each, and image features in an HDF5 file.

    {"text": "Ada in London", "mention": "Ada", "golden": "Ada Lovelace", "target": "Ada Lovelace",
     "img_url": "https://upload.../Ada.svg"}

`img_name` stands in place of `img_url` for WikiMEL; the features lie under that value. `golden` is the gold ("NIL" for
none in the knowledge base), `target` where it is not given. Mentions of one text and image are one document.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spacy_gemel.data.datasets.image_folder import ImageFolder, Picture, names_for_url, open_folder
from spacy_gemel.data.datasets.json_rows import Row, read_json_lines
from spacy_gemel.data.datasets.named import Named, named_of, records_of
from spacy_gemel.data.fields import bad_text, id_of, is_name
from spacy_gemel.data.records import Problem, Record

_FeaturesOf = Callable[[str], np.ndarray | str]
"""From an image's name or URL to its features, or to the reason why there are none."""


@dataclass(slots=True)
class _Document:
    where: str
    id: str | None
    url: str | None
    name: str | None
    rows: int = 0
    mentions: list[Named | Problem] = field(default_factory=list)


def read_gemel(path: Path, *, images: Path | None = None, features: Path | None = None) -> Iterator[Record | Problem]:
    """Yield the documents and what is wrong with lines, mentions and features. The whole text is held meanwhile.

    Raises ValueError where the features' file is none, ImportError where it needs a package that is not there, and
    OSError where a file cannot be read.
    """
    folder = open_folder(images)
    documents: dict[tuple[str, str | None], _Document] = {}
    with _open_features(features) as features_of:
        for row in read_json_lines(path):
            wrong = row if isinstance(row, Problem) else _gather(row, documents)
            if wrong is not None:
                yield wrong
        for (text, image), document in documents.items():
            picture = _picture(document, folder)
            record = Record(document.where, text, document.id, picture.name, picture.folder, rows=document.rows)
            record = replace(record, image_url=document.url)
            if features_of is not None and image is not None:
                found = features_of(image)
                if isinstance(found, str):
                    yield Problem(document.where, "features", found, image)
                else:
                    record = replace(record, image_features=found)
            yield from records_of(record, document.mentions)


def _gather(row: Row, documents: dict[tuple[str, str | None], _Document]) -> Problem | None:
    value = row.value
    if not isinstance(value, dict):
        return Problem(row.where, "row", "not an object", type(value).__name__)
    wrong = bad_text(value.get("text"))
    if wrong is None and "mention" not in value:
        wrong = ("no mention", "give the field mention as a string")
    if wrong is None and "golden" not in value and "target" not in value:
        wrong = ("no entity", "give the field golden or target")
    if wrong is not None:
        return Problem(row.where, "row", *wrong)
    name, url = (value[key] if is_name(value.get(key)) and value[key] else None for key in ("img_name", "img_url"))
    document = documents.setdefault(
        (value["text"], name or url), _Document(row.where, id_of(value.get("id")), url, name)
    )
    document.rows += 1
    gold = value["golden"] if value.get("golden") is not None else value.get("target")
    document.mentions.append(named_of(row.where, value["mention"], gold))
    return None


def _picture(document: _Document, folder: ImageFolder | None) -> Picture:
    if folder is None or (document.name or document.url) is None:
        return Picture()
    return folder.picture(*((document.name,) if document.name else names_for_url(document.url or "")))


@contextmanager
def _open_features(path: Path | None) -> Iterator[_FeaturesOf | None]:
    if path is None:
        yield None
        return
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path}: reading HDF5 needs h5py: pip install spacy-gemel[hdf5]") from error
    if not path.is_file():
        raise ValueError(f"{path}: no such file of features")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: no HDF5 file ({error})") from error
    with file:
        yield lambda image: _features(file, image)


def _features(file: Any, image: str) -> np.ndarray | str:
    """One image's vector. h5py reads a slash in a name as a group within a group, when writing and reading alike."""
    try:
        found = np.asarray(file[image][()])
    # h5py has another error for each way in which a name is none of a data set
    except Exception:
        return "no features of this image"
    try:
        vector = found.astype(np.float32).reshape(-1)
    except (TypeError, ValueError):
        return "the features are no numbers"
    if vector.size == 0 or vector.size != max(found.shape, default=1):
        return "the features are no vector"
    return vector if np.isfinite(vector).all() else "the features are not finite"
