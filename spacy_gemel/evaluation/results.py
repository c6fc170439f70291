"""One evaluated mention, and the file of them."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from spacy_gemel.utils.files import write_whole


@dataclass(frozen=True, slots=True)
class MentionResult:
    """What a pipeline said about one gold mention.

    doc: the doc's id, or its number in the data. start, end: characters. gold: "" where not annotated.
    predicted: None where a NER did not find the mention. probability: of the prediction, None for NIL.
    seen: the gold entity occurs in the training set. tail: None for a gold that the KB never counted, or
    does not hold. image: the doc has one, and no linker has tried to read it and failed. unreadable_image: it has one,
    and a linker has: the prediction is of the text alone. candidates: best first, with kb_id, name, score, probability.
    demonstrations: as the prompt had them, the most similar last, with text, mention, name, kb_id.
    image_path: absolute; in a file, relative to the file's folder.
    """

    doc: str
    start: int
    end: int
    mention: str
    gold: str
    predicted: str | None
    probability: float | None
    seen: bool
    tail: bool | None
    image: bool
    in_kb: bool
    candidates: list[dict[str, Any]] = field(default_factory=list)
    demonstrations: list[dict[str, str]] = field(default_factory=list)
    text: str = ""
    image_path: str | None = None
    unreadable_image: bool = False

    @property
    def correct(self) -> bool:
        """Whether the prediction is the gold entity, or NIL for NIL."""
        return self.predicted == self.gold

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What makes it the same mention in another setting's file."""
        return (self.doc, self.start, self.end, self.gold)


def mentions_path(metrics: Path) -> Path:
    """METRICS.mentions.jsonl, which lies beside METRICS.json."""
    return metrics.with_suffix(".mentions.jsonl")


def write_mentions(results: Iterable[MentionResult], path: Path) -> None:
    """Write one JSON line per mention; image paths become relative to the folder of `path`."""
    with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as lines:
        for result in results:
            row = asdict(result)
            if result.image_path is not None:
                row["image_path"] = _relative(result.image_path, path.parent)
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def _relative(image: str, folder: Path) -> str:
    if not Path(image).is_absolute():
        return image
    try:
        return Path(os.path.relpath(image, folder)).as_posix()
    except ValueError:  # another drive on Windows
        return image


def read_mentions(path: Path) -> list[MentionResult]:
    """Read a file of `write_mentions`. Raises ValueError, with the line, where it is not one."""
    known = {f.name for f in fields(MentionResult)}
    results = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                results.append(MentionResult(**{key: value for key, value in row.items() if key in known}))
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}:{number}: not a row that evaluate writes ({error})") from error
    return results
