"""Parquet files and data sets of Hugging Face's `datasets`: a column `text`, and optionally `id` and `image`.

The mentions are in a column `mentions`, a list of {start, end, kb_id, label, text}, all but the offsets optional; or a
row has one mention, in columns `start` and `end` or `mention` (its words), `kb_id` and `label`. `image` holds the bytes
of a picture, a path, or {bytes, path} as `datasets` has it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from spacy_gemel.data.jsonl import JsonRow, parse_row
from spacy_gemel.data.parquet import read_parquet_rows
from spacy_gemel.data.records import Problem, Record, is_text
from spacy_gemel.utils.values import optional_value

_MENTION = ("start", "end", "kb_id", "label")


def read_parquet(path: Path, *, images: Path | None = None) -> Iterator[Record | Problem]:
    """Yield the documents and the problems. Paths of images are relative to `images`, else to the file's folder.

    Raises ValueError and OSError for the files.
    """
    from spacy_gemel.bulk.sources import find_mention

    for location, row in read_parquet_rows(path):
        text, words, mentions = (optional_value(row.get(name)) for name in ("text", "mention", "mentions"))
        if isinstance(mentions, Mapping):  # a Sequence of `datasets`: lists by their names
            mentions = [dict(zip(mentions, values, strict=False)) for values in zip(*mentions.values(), strict=False)]
        if mentions is None and {"mention", "start"} & {*row}:
            mention = {name: row[name] for name in _MENTION if name in row}
            if optional_value(mention.get("start")) is None and is_text(text) and is_text(words):
                start = find_mention(text, words)
                mention |= {"start": start, "end": None if start is None else start + len(words)}
            mentions = [mention | ({"text": words} if is_text(words) else {})]
        value = {"id": row.get("id"), "text": text, "image": row.get("image"), "mentions": mentions}
        folder = images or (path if path.is_dir() else path.parent)
        yield from parse_row(JsonRow(location, value), folder)
