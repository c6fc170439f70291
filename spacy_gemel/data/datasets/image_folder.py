"""Images by reference: which file of a folder belongs to a record."""

import hashlib
from dataclasses import replace
from pathlib import Path, PurePosixPath

from spacy_gemel.data.records import Record


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
