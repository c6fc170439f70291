"""A note beside a knowledge base's folder: what it was built from, and which one it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.meta import META_FILE, KBMeta
from spacy_gemel.utils.files import write_whole


class SourceNote:
    """The file `FOLDER.source.json`.

    made_from: all that decides what is built, as plain data. kb: the digest of what was built. replaces: of what was
    there before, where the build has not ended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder.with_name(f"{folder.name}.source.json")

    def read(self) -> dict[str, Any]:
        """What was noted; empty where nothing was, or it cannot be read."""
        try:
            state = json.loads(self.path.read_text(encoding="utf8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def write(self, made_from: dict[str, Any], kb: KBMeta, report: dict[str, Any]) -> None:
        """Note what has been built. Raises OSError."""
        self._write({"made_from": made_from, "kb": kb.sha256, "import": report})

    def announce(self, made_from: dict[str, Any], kb: KBMeta, report: dict[str, Any]) -> None:
        """Note what comes into the folder, before it does: an interrupt between the two leaves no doubt whose it is.

        Raises KBError where it would replace what is not ours, and OSError.
        """
        before = self._digest_in_folder()
        self._check(before, {kb.sha256})
        self._write({"made_from": made_from, "kb": kb.sha256, "replaces": before, "import": report})

    def check(self) -> None:
        """Raise KBError where the folder holds a knowledge base that is not the noted one; asked before the long work.

        A note that does not say which one was built (it is damaged, or a version wrote it that noted that last) leaves
        it open until there is something to compare.
        """
        if not self.path.exists() or self._noted():
            self._check(self._digest_in_folder(), set())

    def _check(self, there: str | None, also: set[str]) -> None:
        noted = self._noted()
        if there is None or there in noted | also:
            return
        built = f"is not the one that {self.path.name} tells of" if noted else "was not built from an InMemoryLookupKB"
        raise KBError(
            f"KBFromLookupKB: {self.folder} holds a knowledge base that {built}, and would be replaced: give another "
            "folder, or delete this one if it is of no use (to link to it as it is: spacy_gemel.KBFromDisk.v1)"
        )

    def _noted(self) -> set[str]:
        state = self.read()
        return {digest for key in ("kb", "replaces") if isinstance(digest := state.get(key), str)}

    def _digest_in_folder(self) -> str | None:
        """The digest of what the folder holds, of any version; "" where it says none, None without one."""
        try:
            return str(json.loads((self.folder / META_FILE).read_text(encoding="utf8"))["meta_sha256"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, LookupError, TypeError):
            return ""

    def _write(self, state: dict[str, Any]) -> None:
        with write_whole(self.path) as partial:
            partial.write_text(json.dumps(state, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
