"""Pictures by reference: which file of a folder is meant by a row."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Picture:
    """What a row says of its picture: the file's name in `folder`, and where it was published."""

    name: str | None = None
    folder: Path = Path()
    url: str | None = None


class ImageFolder:
    """A folder of image files, looked up by name without extension: what data sets ship has been converted since.

    Raises ValueError where there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder of images")
        self.folder = folder
        self._names: set[str] | None = None
        self._by_stem: dict[str, str] = {}

    def picture(self, *names: str, url: str | None = None) -> Picture:
        """The first of some names that is there, with this or another extension; the first name where none is."""
        if self._names is None:
            with os.scandir(self.folder) as entries:
                self._names = {entry.name for entry in entries if not entry.name.startswith(".")}
            # sorted, so that of two with one stem the same is found everywhere
            self._by_stem = {Path(name).stem: name for name in sorted(self._names, reverse=True)}
        there = [name for name in names if name in self._names]
        there += [self._by_stem[stem] for name in names if (stem := Path(name).stem) in self._by_stem]
        return Picture((there or list(names))[0], self.folder, url)


def open_folder(images: Path | None) -> ImageFolder | None:
    """The folder a user names, or None where none is named. Raises ValueError where there is no such folder."""
    return None if images is None else ImageFolder(images)


def names_for_url(url: str) -> tuple[str, ...]:
    """What WikiDiverse's file of an image is called: the MD5 of the URL's last part, and its extension; PNG for SVG.

    The authors' script keeps the whole last part for extensions that it does not know, so that is the second name.
    """
    last = url.split("/")[-1]
    # a name and no secret: MD5 is what the data set uses
    digest = hashlib.md5(last.encode(), usedforsecurity=False).hexdigest()
    extension = PurePosixPath(last).suffix
    if extension.lower() == ".svg":
        extension = ".png"
    return digest + extension, digest + last
