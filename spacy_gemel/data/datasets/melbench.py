"""WikiMEL, RichpediaMEL and WikiDiverse as rows of a sentence, its mentions as strings, and their QIDs.

MELBench (Wang, Wu and Chen 2022) ships WikiMEL (Wikidata-MEL) and RichpediaMEL as an object by id:

    {"17": {"id": "17", "sentence": "Ada with Charles", "mentions": ["Ada"], "entities": ["Ada Lovelace"],
            "answer": ["Q7259"]}}

RichpediaMEL has one mention per sentence, as strings and not lists. The mentions have lost function words and commas.
An image is the file <id>.jpg of the folder given as `images`. These sets have no NIL, so an empty answer is no gold.

MIMIC (Luo et al. 2023) and KGMEL use a cleaned form of all three, an array:

    [{"id": 0, "sentence": "Ada in London", "imgPath": "mention_0.jpg", "mention": ["Ada", "London"],
      "entity": ["Ada Lovelace", "London"], "answer": ["Q7259", "Q84"], "img-url": "https://upload.../Ada.svg"}]

MIMIC's own files have one mention per row, as strings in `mentions` and `answer`. An answer of "nil" is NIL. All images
are JPEG files, whatever extension `imgPath` has.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spacy_gemel.data.datasets.alignment import add_mentions, parse_mention
from spacy_gemel.data.jsonl import read_json_rows
from spacy_gemel.data.records import ImageFolder, Problem, Record, as_list, bad_object, first_id, is_text
from spacy_gemel.kb.resolve import NIL


def read_melbench(path: Path, *, images: Path | None = None) -> Iterator[Record | Problem]:
    """Yield the documents of WikiMEL or RichpediaMEL, and the problems. Raises ValueError and OSError for the file."""
    return _read_rows(path, images, lambda _, doc_id: [] if doc_id is None else [f"{doc_id}.jpg"], empty="")


def read_mimic(path: Path, *, images: Path | None = None) -> Iterator[Record | Problem]:
    """Yield the documents of MIMIC's form, and the problems. Raises ValueError and OSError for the file."""
    return _read_rows(path, images, _mimic_image_names, empty=NIL)


def _mimic_image_names(value: dict[str, Any], _: str | None) -> list[str]:
    name = value.get("imgPath")
    file = name.split("/")[-1] if is_text(name) else ""
    return [f"{Path(file).stem}.jpg", file] if file else []


def _read_rows(
    path: Path, images: Path | None, image_names: Callable[[dict[str, Any], str | None], list[str]], *, empty: str
) -> Iterator[Record | Problem]:
    """Yield documents and problems; `image_names` takes a row and its id, `empty` is what an empty answer means."""
    folder = ImageFolder(images)
    for row in read_json_rows(path):
        if (problem := _bad_row(value := row.value)) is not None:
            yield Problem(row.location, "row", *problem)
            continue
        url = value.get("img-url")
        doc_id = first_id(value.get("id"), row.key)
        record = Record(row.location, value["sentence"], doc_id, image_url=url if is_text(url) and url else None)
        pairs = enumerate(zip(_mentions(value), _answers(value), strict=True), start=1)
        yield from add_mentions(
            folder.add_image(record, *image_names(value, doc_id)),
            [parse_mention(f"{row.location}, mention {n}", surface, gold, empty=empty) for n, (surface, gold) in pairs],
        )


def _bad_row(value: Any) -> tuple[str, str] | None:
    if (problem := bad_object(value, "sentence")) is not None:
        return problem
    if "mentions" not in value and "mention" not in value:
        return "no mentions", "give the field mentions as a string or a list of strings"
    if "answer" not in value:
        return "no answer", "give the field answer: an entity's id, or a list of one for each mention"
    mentions, answers = len(_mentions(value)), len(_answers(value))
    return None if mentions == answers else ("mentions and answers differ in number", f"{mentions} and {answers}")


def _mentions(value: dict[str, Any]) -> list[Any]:
    return as_list(value["mentions"] if "mentions" in value else value.get("mention"))


def _answers(value: dict[str, Any]) -> list[Any]:
    """The answers; null beside one mention is an empty answer, and not a missing one."""
    answer = value["answer"]
    return [None] if answer is None and len(_mentions(value)) == 1 else as_list(answer)
