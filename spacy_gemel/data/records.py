"""What the reader of a data set yields, before anything is tokenised."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

DEFAULT_LABEL = "ENTITY"
"""spaCy does not list a span without a label among `doc.ents`, so a mention without one gets this label."""

GIVEN_OFFSETS = "offsets of the data set"
"""The alignment rule of a mention whose offsets the data set gives."""

SAME_SPAN = "another mention has its place"
"""The reason to leave out a mention if another one with another gold has the same span."""


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
        where: File and line, for messages.
        image: Path as the source has it, relative to `folder`; never a URL.
        image_url: Where the image was published.
        mentions: None if the source does not say (the pipeline's own NER is asked then), empty if there are none.
            They may overlap until `split_overlaps` makes several records of one.
        image_features: The image's vector (d_v,), float32.
        rows: Rows of the source in this record; 0 for a further record of a row, whose mentions overlap the first's.
        merged: Mentions that were left out because the record has the same mention with the same gold.
    """

    where: str
    text: str
    id: str | None = None
    image: str | None = None
    folder: Path = Path()
    mentions: tuple[MentionSpan, ...] | None = None
    image_url: str | None = None
    image_features: "np.ndarray | None" = None
    rows: int = 1
    merged: int = 0

    def image_path_from(self, folder: Path) -> str | None:
        """The image's path relative to `folder`, or as it is if it is absolute."""
        if self.image is None or Path(self.image).is_absolute():
            return self.image
        try:
            return Path(os.path.relpath(self.folder / self.image, folder)).as_posix()
        except ValueError:  # two drives on Windows: no relative path between them
            return str((self.folder / self.image).absolute())


@dataclass(frozen=True, slots=True)
class Problem:
    """What was left out: `what` is "row", "mention", "features" or "image"; problems are counted by `reason`."""

    where: str
    what: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what} left out: {self.reason}" + (f" ({self.detail})" if self.detail else "")
