"""GEMEL's own preprocessed form (Shi et al. 2024): JSON lines of one mention each, and image features in HDF5.

    {"text": "Ada in London", "mention": "Ada", "golden": "Ada Lovelace", "target": "Ada Lovelace",
     "img_url": "https://upload.../Ada.svg"}

WikiMEL has `img_name` and not `img_url`; the features have the same key. `golden` is the gold ("NIL" if the knowledge
base has none), `target` is the gold if there is no `golden`. Mentions of one text and image are one document.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_gemel.data.datasets.alignment import NamedMention, add_mentions, parse_mention
from spacy_gemel.data.jsonl import read_json_lines
from spacy_gemel.data.records import ImageFolder, Problem, Record, bad_object, first_id, is_text, names_for_url

if TYPE_CHECKING:
    import numpy as np


def read_gemel(path: Path, *, images: Path | None = None, features: Path | None = None) -> Iterator[Record | Problem]:
    """Yield the documents, and the problems of lines, mentions and features. Holds the whole text in memory.

    Raises ValueError if `features` is not an HDF5 file, ImportError without h5py, and OSError for the files.
    """
    folder = ImageFolder(images)
    documents: dict[tuple[str, str | None], tuple[Record, list[NamedMention | Problem]]] = {}
    with nullcontext() if features is None else _open_hdf5(features) as file:
        for row in read_json_lines(path):
            if isinstance(row, Problem):
                yield row
                continue
            if (problem := _bad_row(value := row.value)) is not None:
                yield Problem(row.location, "row", *problem)
                continue
            name, url = (value[k] if is_text(value.get(k)) and value[k] else None for k in ("img_name", "img_url"))
            record = Record(row.location, value["text"], first_id(value.get("id")), image_url=url)
            record = folder.add_image(record, *([name] if name else names_for_url(url) if url else []))
            gold = value["golden"] if value.get("golden") is not None else value.get("target")
            mention = parse_mention(row.location, value["mention"], gold)
            documents.setdefault((record.text, name or url), (record, []))[1].append(mention)
        for (_, image), (record, mentions) in documents.items():
            record = replace(record, rows=len(mentions))
            if file is not None and image is not None:
                vector = _read_features(file, image)
                if isinstance(vector, str):
                    yield Problem(record.location, "features", vector, image)
                else:
                    record = replace(record, image_features=vector)
            yield from add_mentions(record, mentions)


def _bad_row(value: Any) -> tuple[str, str] | None:
    if (problem := bad_object(value)) is not None:
        return problem
    if "mention" not in value:
        return "no mention", "give the field mention as a string"
    return None if "golden" in value or "target" in value else ("no entity", "give the field golden or target")


def _open_hdf5(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path}: reading HDF5 needs h5py: pip install spacy-gemel[hdf5]") from error
    if not path.is_file():
        raise ValueError(f"{path}: no such file of features")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not an HDF5 file ({error})") from error


def _read_features(file: Any, image: str) -> "np.ndarray | str":
    """One image's vector (d_v,), float32, or why there is none. In h5py a slash in a name means a group."""
    import numpy as np

    try:
        array = np.asarray(file[image][()])
    # h5py has a different error for each way in which a name is not that of a data set
    except Exception:
        return "no features of this image"
    try:
        vector = array.astype(np.float32).reshape(-1)
    except (TypeError, ValueError):
        return "the features are not numbers"
    if vector.size == 0 or vector.size != max(array.shape, default=1):
        return "the features are not a vector"
    return vector if np.isfinite(vector).all() else "the features are not finite"
