"""What a trial reads, as digests: it is run again when one of them has changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.grid.keeping import digest, read_object, write_json
from spacy_gemel.kb.meta import sha256_of
from spacy_gemel.utils.files import files_in


class Digests:
    """SHA-256 of files, remembered in a file while their size and date stay as they are."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._corpora: dict[Path, str] = {}
        # what is no digest of a file that has these bytes and this date is taken anew
        self._known = {name: known for name, known in read_object(memory).items() if _is_known(known)}
        self._new = False

    def file(self, path: Path) -> str:
        """Of one file's bytes; "" where there is none."""
        try:
            stat = path.stat()
        except OSError:
            return ""
        name, state = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
        known = self._known.get(name)
        if known is None or known[:2] != state:
            known = self._known[name] = [*state, sha256_of(path)]
            self._new = True
        return str(known[2])

    def tree(self, path: Path) -> str:
        """Of a file, or of all files below a folder with their names."""
        if not path.is_dir():
            return self.file(path)
        return digest({name: self.file(path / name) for name in files_in(path)})

    def corpus(self, path: Path) -> str:
        """Of a .spacy file, or a folder of them, and of the images that its docs name."""
        if path not in self._corpora:
            files = sorted(path.rglob("*.spacy")) if path.is_dir() else [path]
            self._corpora[path] = digest(
                [self.file(file) for file in files], [self.file(image) for image in _images(path)]
            )
        return self._corpora[path]

    def save(self) -> None:
        """Write down what is known."""
        if self._new:
            write_json(self._memory, self._known)
            self._new = False


def _is_known(known: Any) -> bool:
    """[bytes, date, digest]"""
    types = [type(part) for part in known] if isinstance(known, list) else []
    return types == [int, int, str]


def _images(path: Path) -> list[Path]:
    """The image files of a corpus, in its order."""
    from spacy.vocab import Vocab

    from spacy_gemel.data.reader import read_docs
    from spacy_gemel.pipeline.user_data import IMAGE_KEY

    named = (doc.user_data.get(IMAGE_KEY) for doc in read_docs(path, Vocab()))
    return [Path(image) for image in named if isinstance(image, str)]


def models_sum(digests: Digests, config: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Digests of the files and folders that a config names: models that are not on a hub."""
    from research.grid.configs import files_named

    return {name: digests.tree(path) for name, path in files_named(config, folder)}
