"""WikiDiverse as released (Wang et al. 2022), in either of its two forms.

One list a sentence (the annotated data):

    ["Ada in London", "https://upload.../Ada.svg", "technology",
     [["Ada", "Person", 0, 3, "https://en.wikipedia.org/wiki/Ada_Lovelace"], ...]]

One list a mention (with ten candidates, which are left to the knowledge base here):

    ["Ada in London", "https://upload.../Ada.svg", "Ada", "Person", [], ["in", "London"],
     "https://en.wikipedia.org/wiki/Ada_Lovelace", ["https://...", ...], "technology", 0, 3]

Mentions of one sentence and image are one document. Golds are titles, those of "nil" and empty ones NIL. The pictures
are files named by the MD5 of the last part of their URL.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spacy_gemel.data.datasets.image_folder import ImageFolder, Picture, names_for_url, open_folder
from spacy_gemel.data.datasets.json_rows import STRING, Row, RowShape, read_json_rows
from spacy_gemel.data.datasets.named import Named, named_of, records_of
from spacy_gemel.data.fields import bad_text, is_name
from spacy_gemel.data.records import Problem, Record

_PER_SENTENCE, _PER_MENTION, _MENTION = 4, 11, 5
_LEFT, _RIGHT = 4, 5

# a sentence, its image's URL and a string, then a list of mentions, or one string more and a list of words; a row whose
# beginning is damaged too is known by the end of the one before it
_SHAPE = RowShape(
    rf"(?P<row>\[\s*+{STRING}\s*+,\s*+(?:{STRING}|null)\s*+,\s*+{STRING}\s*+,\s*+(?:{STRING}\s*+,\s*+)?+\[)"
    r"|[\]\d]\s*+\]\s*+,\s*+(?P<next>\[\s*+\")",
    lambda value: _is_row(value),
)


@dataclass(slots=True)
class _Sentence:
    """What the rows of one sentence and image have said so far."""

    where: str
    rows: int = 0
    mentions: list[Named | Problem] = field(default_factory=list)


def read_wikidiverse(path: Path, *, images: Path | None = None) -> Iterator[Record | Problem]:
    """Yield the documents and what is wrong with rows and mentions; those of the form by mention come last.

    Raises ValueError where the file is no JSON array or object, and OSError where it cannot be read.
    """
    folder = open_folder(images)
    sentences: dict[tuple[str, str | None], _Sentence] = {}
    for row in read_json_rows(path, _SHAPE):
        if isinstance(row, Problem):
            yield row
            continue
        wrong = _bad_shape(row.value)
        if wrong is not None:
            yield Problem(row.where, "row", *wrong)
        elif isinstance(row.value[3], list):
            mentions = [_mention(f"{row.where}, mention {n}", m) for n, m in enumerate(row.value[3], start=1)]
            yield from records_of(_record(row.where, row.value[0], _url(row), folder), mentions)
        else:
            sentence = sentences.setdefault((row.value[0], _url(row)), _Sentence(row.where))
            sentence.rows += 1
            surface, kind, gold, start, end = (row.value[index] for index in (2, 3, 6, 9, 10))
            sentence.mentions.append(named_of(row.where, surface, gold, label=kind, start=start, end=end))
    for (text, url), sentence in sentences.items():
        yield from records_of(_record(sentence.where, text, url, folder, sentence.rows), sentence.mentions)


def _bad_shape(value: Any) -> tuple[str, str] | None:
    if not isinstance(value, list):
        return "not a list", type(value).__name__
    by_sentence = len(value) >= _PER_SENTENCE and isinstance(value[3], list)
    if not by_sentence and len(value) < _PER_MENTION:
        return (
            "neither of the two known forms",
            f"{len(value)} items; [sentence, image, topic, mentions] has 4, and a row for each mention 11",
        )
    return bad_text(value[0], "sentence")


def _is_row(value: Any) -> bool:
    """Whether a list is a row, and not one of those within a row: mentions, candidates, words."""
    if not isinstance(value, list) or _bad_shape(value) is not None:
        return False
    return isinstance(value[3], list) or (isinstance(value[_LEFT], list) and isinstance(value[_RIGHT], list))


def _mention(where: str, value: Any) -> Named | Problem:
    if not isinstance(value, list) or len(value) < _MENTION:
        return Problem(where, "mention", "not [mention, type, start, end, entity]", repr(value)[:80])
    surface, kind, start, end, gold = value[:_MENTION]
    return named_of(where, surface, gold, label=kind, start=start, end=end)


def _url(row: Row) -> str | None:
    url = row.value[1]
    return url.strip() if is_name(url) and url.strip() else None


def _record(where: str, text: str, url: str | None, folder: ImageFolder | None, rows: int = 1) -> Record:
    picture = Picture(url=url) if folder is None or url is None else folder.picture(*names_for_url(url), url=url)
    return Record(where, text, image=picture.name, folder=picture.folder, image_url=url, rows=rows)
