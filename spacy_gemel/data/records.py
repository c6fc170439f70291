"""What the reader of a data set yields, before anything is tokenised, and the checks that the readers share."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import numpy as np

DEFAULT_LABEL = "ENTITY"  # spaCy does not list a span without a label among `doc.ents`
GIVEN_OFFSETS = "offsets of the data set"  # as a rule of alignment
SAME_SPAN = "another mention has its place"  # with another gold
Span = tuple[int, int]  # start and end in characters


@dataclass(frozen=True, slots=True)
class MentionSpan:
    """A span of the text, in characters, and its gold id: "" if none is given, "NIL" if the KB has no such entity.

    `rule` says how the span was found: by the offsets of the data set, or by a rule of `datasets/alignment.py`.
    """

    start: int
    end: int
    kb_id: str = ""
    label: str = DEFAULT_LABEL
    rule: str = GIVEN_OFFSETS


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One document of a source file.

    Attributes:
        location: File and line, for messages.
        image: Path as the source has it, relative to `folder`; never a URL.
        image_url: Where the image was published.
        mentions: None if the source does not say (the pipeline's own NER is asked then), empty if there are none.
            They may overlap until `split_overlaps` makes several records of one.
        image_features: The image's vector (d_v,), float32.
        rows: Rows of the source in this record; 0 for a further record of a row, whose mentions overlap the first's.
        merged: Mentions that were left out because the record has the same mention with the same gold.
        picture: The encoded image, if the source holds it and no path.
    """

    location: str
    text: str
    id: str | None = None
    image: str | None = None
    folder: Path = Path()
    mentions: tuple[MentionSpan, ...] | None = None
    image_url: str | None = None
    image_features: "np.ndarray | None" = None
    rows: int = 1
    merged: int = 0
    picture: bytes | None = None

    def image_path_from(self, folder: Path) -> str | None:
        """The image's path relative to `folder`, both with links followed, or as it is if it is absolute."""
        if self.image is None or Path(self.image).is_absolute():
            return self.image
        try:
            return Path(os.path.relpath(self.folder.resolve() / self.image, folder.resolve())).as_posix()
        except ValueError:  # two drives on Windows: no relative path between them
            return str((self.folder / self.image).absolute())


@dataclass(frozen=True, slots=True)
class Problem:
    """What was left out: `what` is "row", "mention", "features" or "image"; problems are counted by `reason`."""

    location: str
    what: str
    reason: str
    detail: str = ""

    @property
    def why(self) -> str:
        """The reason with its detail."""
        return self.reason + (f" ({self.detail})" if self.detail else "")

    def __str__(self) -> str:
        return f"{self.location}: {self.what} left out: {self.why}"


def is_free(span: Span, taken: Sequence[Span]) -> bool:
    """Whether a span shares no character with any of the taken ones."""
    return all(span[1] <= start or end <= span[0] for start, end in taken)


def split_overlaps(record: Record) -> tuple[list[Record], list[Problem]]:
    """Split a record whose mentions overlap into several of the same text and image, the longest mentions first.

    Two mentions of the same span are merged if they have the same gold; else the second one is a problem.
    """
    if record.mentions is None:  # not annotated, which is not the same as no mentions
        return [record], []
    by_span: dict[Span, MentionSpan] = {}
    problems = []
    for mention in record.mentions:
        first = by_span.setdefault((mention.start, mention.end), mention)
        if first.kb_id != mention.kb_id:
            surface = record.text[mention.start : mention.end]
            detail = f"{surface!r} is both {first.kb_id!r} and {mention.kb_id!r}"
            problems.append(Problem(record.location, "mention", SAME_SPAN, detail))
    layers: list[dict[Span, MentionSpan]] = []
    for span in sorted(by_span, key=lambda span: (span[0] - span[1], span[0])):
        layer = next((layer for layer in layers if is_free(span, list(layer))), None)
        if layer is None:
            layers.append(layer := {})
        layer[span] = by_span[span]
    mentions = [tuple(layer[span] for span in sorted(layer)) for layer in layers] or [()]
    merged = record.merged + len(record.mentions) - len(by_span) - len(problems)
    first_record = replace(record, mentions=mentions[0], merged=merged)
    return [first_record, *(replace(record, mentions=further, rows=0, merged=0) for further in mentions[1:])], problems


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value is a string that UTF-8 can hold: JSON also allows half a surrogate pair."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def bad_text(value: Any, field: str = "text") -> tuple[str, str] | None:
    """Why a value cannot be the text of a document, as a reason and its detail; None if it can."""
    if not isinstance(value, str):
        return f"no {field}", f"give the field {field} as a string"
    if not value.strip():
        return f"the {field} is empty", ""
    return None if is_text(value) else (f"the {field} is not valid Unicode", "it holds half a surrogate pair")


def bad_object(value: Any, field: str = "text") -> tuple[str, str] | None:
    """Why a value cannot be a document, an object whose text stands in `field`, as a reason and its detail."""
    if not isinstance(value, dict):
        return "not an object", type(value).__name__
    return bad_text(value.get(field), field)


def first_id(*values: Any) -> str | None:
    """The first value that can be an id: a string that is not empty, or a whole number."""
    return next((str(value) for value in values if (is_text(value) and value) or type(value) is int), None)


def as_list(value: Any) -> list[Any]:
    """A list as it is, None as an empty list, and anything else as a list of one."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


class ImageFolder:
    """A folder of image files, found by name without extension, since data sets convert their files.

    Without a folder no record gets an image. Raises OSError if the folder cannot be read.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        paths = [] if folder is None else folder.iterdir()
        self._names = {path.name for path in paths if not path.name.startswith(".")}
        # in a fixed order, so that of two files with one stem the same one is used everywhere
        self._by_stem = {Path(name).stem: name for name in sorted(self._names, reverse=True)}

    def add_image(self, record: Record, *names: str) -> Record:
        """Give a record the first of `names` that exists, with this or another extension; else the first name."""
        if self.folder is None or not names:
            return record
        existing = [name for name in names if name in self._names]
        existing += [self._by_stem[stem] for name in names if (stem := Path(name).stem) in self._by_stem]
        return replace(record, image=(existing or names)[0], folder=self.folder)


def names_for_url(url: str) -> tuple[str, str]:
    """The names that WikiDiverse's file of an image may have: the MD5 of the URL's last part, and its extension.

    SVG images are PNG files. The authors' script keeps the whole last part behind the MD5 if it does not know the
    extension, so that is the second name.
    """
    last = url.split("/")[-1]
    # MD5 is what the data set uses; nothing is protected by it
    digest = hashlib.md5(last.encode(), usedforsecurity=False).hexdigest()
    extension = PurePosixPath(last).suffix
    return digest + (".png" if extension.lower() == ".svg" else extension), digest + last
