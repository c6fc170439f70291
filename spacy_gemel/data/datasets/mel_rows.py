"""Rows as MELBench, MIMIC and KGMEL have them: a sentence, its mentions as strings, and their QIDs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spacy_gemel.data.datasets.image_folder import Picture
from spacy_gemel.data.datasets.json_rows import Row, objects_with, read_json_rows
from spacy_gemel.data.datasets.named import pair, records_of
from spacy_gemel.data.fields import as_list, bad_text, id_of
from spacy_gemel.data.records import Problem, Record

PictureOf = Callable[[dict[str, Any], str | None], Picture]
"""From a row and its id to what is known of its picture."""


def read_mel_rows(path: Path, picture_of: PictureOf, *, missing: str) -> Iterator[Record | Problem]:
    """Yield the documents and problems of a JSON array of such rows, or of an object of them by id.

    missing: what an empty answer means, "NIL" or "". Raises ValueError where the file is neither, and OSError where it
    cannot be read.
    """
    for row in read_json_rows(path, objects_with("sentence")):
        if isinstance(row, Problem):
            yield row
        else:
            yield from _parse(row, picture_of, missing)


def _parse(row: Row, picture_of: PictureOf, missing: str) -> Iterator[Record | Problem]:
    value = row.value
    if not isinstance(value, dict):
        yield Problem(row.where, "row", "not an object", type(value).__name__)
        return
    wrong = bad_text(value.get("sentence"), "sentence") or _bad_pairs(value)
    if wrong is not None:
        yield Problem(row.where, "row", *wrong)
        return
    identity = id_of(value.get("id"), row.key)
    picture = picture_of(value, identity)
    record = Record(
        where=row.where,
        text=value["sentence"],
        id=identity,
        image=picture.name,
        folder=picture.folder,
        image_url=picture.url,
    )
    yield from records_of(record, pair(row.where, _mentions(value), _answers(value), missing=missing))


def _mentions(value: dict[str, Any]) -> list[Any]:
    return as_list(value["mentions"] if "mentions" in value else value.get("mention"))


def _answers(value: dict[str, Any]) -> list[Any]:
    """An answer of null beside one mention is an empty answer, and not none."""
    answer = value["answer"]
    return [None] * (len(_mentions(value)) == 1) if answer is None else as_list(answer)


def _bad_pairs(value: dict[str, Any]) -> tuple[str, str] | None:
    if "mentions" not in value and "mention" not in value:
        return "no mentions", "give the field mentions as a string or a list of strings"
    if "answer" not in value:
        return "no answer", "give the field answer: an entity's id, or a list of one for each mention"
    mentions, answers = len(_mentions(value)), len(_answers(value))
    return None if mentions == answers else ("mentions and answers differ in number", f"{mentions} and {answers}")
