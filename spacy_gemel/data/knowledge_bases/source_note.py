"""A note beside a knowledge base's folder: what the knowledge base was built from, and which one it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.meta import META_FILE, KBMeta
from spacy_gemel.utils.files import write_json


class SourceNote:
    """The file `FOLDER.source.json`.

    Its keys: `made_from`, all that decides what is built, as plain data; `kb`, the digest of what was built;
    `replaces`, the digest of what the folder had before, until the build ends; `import`, the report.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder.with_name(f"{folder.name}.source.json")

    def read(self) -> dict[str, Any]:
        """The content of the note; empty if there is none or it cannot be read."""
        try:
            state = json.loads(self.path.read_text(encoding="utf8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def write(self, made_from: dict[str, Any], kb: KBMeta, report: dict[str, Any]) -> None:
        """Note what was built. Raises OSError."""
        write_json(self.path, {"made_from": made_from, "kb": kb.sha256, "import": report})

    def announce(self, made_from: dict[str, Any], kb: KBMeta, report: dict[str, Any]) -> None:
        """Note what is about to replace the folder, so that an interrupt leaves no doubt who built it.

        Raises:
            KBError: if the folder has a knowledge base that is not from here.
            OSError: if the note cannot be written.
        """
        digest = self._digest_in_folder()
        self._check(digest, {kb.sha256})
        write_json(self.path, {"made_from": made_from, "kb": kb.sha256, "replaces": digest, "import": report})

    def check(self) -> None:
        """Raise KBError if the folder has a knowledge base that is not in the note; call it before the long work.

        A note without a digest (damaged, or of an early version) decides nothing until there is something to compare.
        """
        if not self.path.exists() or self._digests():
            self._check(self._digest_in_folder(), set())

    def _check(self, digest: str | None, accepted: set[str]) -> None:
        digests = self._digests()
        if digest is None or digest in digests | accepted:
            return
        problem = f"is not the one in {self.path.name}" if digests else "was not built from an InMemoryLookupKB"
        raise KBError(
            f"KBFromLookupKB: {self.folder} holds a knowledge base that {problem}, and would be replaced: give another "
            "folder, or delete this one if you do not need it (to link to it as it is, use spacy_gemel.KBFromDisk.v1)"
        )

    def _digests(self) -> set[str]:
        state = self.read()
        return {digest for key in ("kb", "replaces") if isinstance(digest := state.get(key), str)}

    def _digest_in_folder(self) -> str | None:
        """The digest of the folder's knowledge base, of any version; "" if it has none, None without a folder."""
        try:
            return str(json.loads((self.folder / META_FILE).read_text(encoding="utf8"))["meta_sha256"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, LookupError, TypeError):
            return ""
