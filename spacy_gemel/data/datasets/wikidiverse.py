"""WikiDiverse as released (Wang et al. 2022), in either of its two forms.

One list per sentence (the annotated data):

    ["Ada in London", "https://upload.../Ada.svg", "technology",
     [["Ada", "Person", 0, 3, "https://en.wikipedia.org/wiki/Ada_Lovelace"], ...]]

One list per mention (with ten candidates, which are not read: candidates come from the knowledge base):

    ["Ada in London", "https://upload.../Ada.svg", "Ada", "Person", [], ["in", "London"],
     "https://en.wikipedia.org/wiki/Ada_Lovelace", ["https://...", ...], "technology", 0, 3]

Mentions of one sentence and image are one document. Golds are titles; "nil" and empty ones are NIL. The images are
files named by the MD5 of the last part of their URL.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from spacy_gemel.data.datasets.alignment import NamedMention, add_mentions, parse_mention
from spacy_gemel.data.jsonl import read_json_rows
from spacy_gemel.data.records import ImageFolder, Problem, Record, bad_text, is_text, names_for_url

_SENTENCE_ITEMS, _ROW_ITEMS, _MENTION_ITEMS = 4, 11, 5


def read_wikidiverse(path: Path, *, images: Path | None = None) -> Iterator[Record | Problem]:
    """Yield the documents and the problems; documents of the form by mention come last.

    Raises ValueError and OSError for the file.
    """
    folder = ImageFolder(images)
    documents: dict[tuple[str, str | None], tuple[Record, list[NamedMention | Problem]]] = {}
    for row in read_json_rows(path):
        if (problem := _bad_row(value := row.value)) is not None:
            yield Problem(row.location, "row", *problem)
            continue
        url = value[1].strip() if is_text(value[1]) and value[1].strip() else None
        record = Record(row.location, value[0], image_url=url)
        if url is not None:
            record = folder.add_image(record, *names_for_url(url))
        if isinstance(value[3], list):
            mentions = [
                _parse_mention(f"{row.location}, mention {n}", item) for n, item in enumerate(value[3], start=1)
            ]
            yield from add_mentions(record, mentions)
        else:
            surface, label, gold, start, end = (value[index] for index in (2, 3, 6, 9, 10))
            mention = parse_mention(row.location, surface, gold, label=label, start=start, end=end)
            documents.setdefault((record.text, url), (record, []))[1].append(mention)
    for record, mentions in documents.values():
        yield from add_mentions(replace(record, rows=len(mentions)), mentions)


def _bad_row(value: Any) -> tuple[str, str] | None:
    if not isinstance(value, list):
        return "not a list", type(value).__name__
    is_sentence = len(value) >= _SENTENCE_ITEMS and isinstance(value[3], list)
    if not is_sentence and len(value) < _ROW_ITEMS:
        forms = "[sentence, image, topic, mentions] has 4, and a row for each mention 11"
        return "neither of the two known forms", f"{len(value)} items; {forms}"
    return bad_text(value[0], "sentence")


def _parse_mention(location: str, value: Any) -> NamedMention | Problem:
    if not isinstance(value, list) or len(value) < _MENTION_ITEMS:
        return Problem(location, "mention", "not [mention, type, start, end, entity]", repr(value)[:80])
    surface, label, start, end, gold = value[:_MENTION_ITEMS]
    return parse_mention(location, surface, gold, label=label, start=start, end=end)
