"""What a data set's reader hands on, before anything is tokenised."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DEFAULT_LABEL = "ENTITY"
"""spaCy does not list a span without a label among `doc.ents`, so a mention without one gets this."""

GIVEN = "given"
"""The rule of a mention whose offsets the data set gives."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A span of the text, in characters, and its gold: "" for none given, "NIL" for none in the KB.

    `rule` says how the span was found: by the data set's own offsets, or by a rule of `corpus/alignment.py`.
    """

    start: int
    end: int
    kb_id: str = ""
    label: str = DEFAULT_LABEL
    rule: str = GIVEN


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One document as it stands in a source file.

    `where` names file and line for messages. `image` is a path as the source has it, relative to `folder`, never a URL;
    `image_url` where it was published, `image_features` its vector (d_v,), float32. `mentions` is None where the source
    does not say (so the pipeline's own NER is asked), and empty where it says that there are none; they may overlap,
    until `overlaps.apart` makes several records of one. `rows` is how many rows of the source it was made of: 0 for a
    further document of a row, which holds mentions that overlap those of the first. `merged` is how many mentions were
    left off because they are there already, with the same gold.
    """

    where: str
    text: str
    id: str | None = None
    image: str | None = None
    folder: Path = Path()
    mentions: tuple[Mention, ...] | None = None
    image_url: str | None = None
    image_features: np.ndarray | None = None
    rows: int = 1
    merged: int = 0

    def image_for(self, folder: Path) -> str | None:
        """The image's path as a file in `folder` should have it: relative to that, unless the source's is
        absolute.
        """
        if self.image is None or Path(self.image).is_absolute():
            return self.image
        try:
            return Path(os.path.relpath(self.folder / self.image, folder)).as_posix()
        except ValueError:  # two drives on Windows: no relative path between them
            return str((self.folder / self.image).absolute())


@dataclass(frozen=True, slots=True)
class Problem:
    """What was left out: `what` is "row", "mention", "features" or "image", `reason` is what it is counted under.

    "file" is what is wrong between the rows, which takes none of them. `rows` is how many rows of the source it stands
    for.
    """

    where: str
    what: str
    reason: str
    detail: str = ""
    rows: int = 1

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        what = "damaged" if self.what == "file" else f"{self.what} left out"
        return f"{self.where}: {what}: {self.reason}{detail}"
