"""A knowledge base built from spaCy's InMemoryLookupKB on first use, and again when its source changes."""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from spacy_gemel.data.knowledge_bases.importer import import_kb
from spacy_gemel.data.knowledge_bases.spacy_kb import source_files
from spacy_gemel.data.knowledge_bases.work import ImportOptions
from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.jsonl import REASONS
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.meta import META_FILE, KBMeta
from spacy_gemel.utils.files import resolve, sha256_of, write_json
from spacy_gemel.utils.messages import DataWarning, warn

logger = logging.getLogger(__name__)

_LOADER = "KBFromLookupKB"
_VERSION = 1


def open_lookup_kb(
    source: str,
    folder: str,
    tokenizer_name: str,
    names: str = "alias",
    revision: str | None = None,
    max_name_tokens: int = 32,
    *,
    progress: bool = True,
) -> KnowledgeBase:
    """Open the knowledge base in `folder`; build it first if it is missing or its source has changed.

    See spacy_gemel.registry.kb_from_lookup_kb for the arguments. `FOLDER.source.json` records digests of the source's
    files, the names and the tokenizer, which decide whether the source has changed. A build warns of what it leaves out
    and of shared names. Raises ValueError if the source, the names or the tokenizer are wrong; as KBError if the folder
    cannot be written, is being built by another process, or holds anything that this function did not build.
    """
    from spacy_gemel.kb.builder import build_kb
    from spacy_gemel.models.tokenizer import load_tokenizer

    target, path, local = resolve(folder), resolve(source), resolve(tokenizer_name)
    tokenizer = load_tokenizer(str(local) if local.is_dir() else tokenizer_name, revision)
    if not path.exists():
        raise ValueError(
            f"{_LOADER}: there is no {path}: path is the folder that InMemoryLookupKB.to_disk wrote, or that of an "
            "entity_linker in a saved pipeline"
        )
    names_file = None if names in ("alias", "id") else resolve(names)
    if names_file is not None and not names_file.is_file():
        raise ValueError(f'{_LOADER}: names must be "alias", "id" or a file, and there is no file {names_file}')
    made_from = {
        "version": _VERSION,
        "files": [sha256_of(file) for file in source_files(path)],
        "names": names if names_file is None else sha256_of(names_file),
        "tokenizer": tokenizer.fingerprint,
        "max_name_tokens": max_name_tokens,
    }
    note = SourceNote(target, made_from)
    state = note.read()
    try:
        kb = KnowledgeBase.open(target)
        if state.get("made_from") == made_from and state.get("kb") == kb.meta.sha256:
            return kb
    except (OSError, ValueError):
        pass  # missing or damaged: build it
    note.check()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # a folder for this process alone, so that two processes do not write one file; the build itself has a lock
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.import-") as work:
            entities = Path(work) / "entities.jsonl"
            options = ImportOptions(names=names if names_file is None else str(names_file))
            report = import_kb("spacy", [path], entities, options, progress=progress)

            def before_replacing(meta: KBMeta) -> None:
                note.check(meta)
                # an interrupt must leave no doubt who built the folder
                note.write(meta, report.to_dict(), replaces=note.digest_in_folder())

            built = build_kb(
                entities,
                target,
                tokenizer,
                max_name_tokens=max_name_tokens,
                progress=progress,
                before_replacing=before_replacing,
            )
        for line in (*report.summary().splitlines(), *built.lines()):
            logger.info("%s: %s", _LOADER, line)
        kb = KnowledgeBase.open(target)
        note.write(kb.meta, report.to_dict())
    except OSError as error:
        raise KBError(f"{_LOADER}: {target} cannot be built: {error}") from error
    losses = [f"{count} {reason}" for reason, count in report.dropped.items()]
    losses += [f"{skipped.count} {REASONS[reason]}" for reason, skipped in kb.meta.skipped.items()]
    if losses:
        lost = ", ".join(losses)
        warn(f"{_LOADER}: the knowledge base does not have everything in {source}: {lost}", DataWarning)
    if kb.meta.names > kb.meta.distinct_names:
        warn(
            f"{_LOADER}: {kb.meta.names} entities of {source} have only {kb.meta.distinct_names} different names "
            f'(names = "{names}"). Text and image cannot decide between entities with the same name: the most '
            "frequent one is taken. Give names = a CSV file with id and name, with a different name for each entity.",
            DataWarning,
        )
    return kb


class SourceNote:
    """The file `FOLDER.source.json`, which says what a knowledge base was built from, and which one it is.

    Its keys: `made_from`, all that decides what is built, as plain data; `kb`, the digest of what was built;
    `replaces`, the digest of what the folder had before, until the build ends; `import`, the report.
    """

    def __init__(self, folder: Path, made_from: dict[str, Any]) -> None:
        self.folder = folder
        self.path = folder.with_name(f"{folder.name}.source.json")
        self.made_from = made_from

    def read(self) -> dict[str, Any]:
        """The content of the note; empty if there is none or it cannot be read."""
        try:
            return dict(json.loads(self.path.read_text(encoding="utf8")))
        except (OSError, ValueError, TypeError):
            return {}

    def write(self, kb: KBMeta, report: dict[str, Any], **further: Any) -> None:
        """Note what was built, or is about to replace the folder. Raises OSError."""
        write_json(self.path, {"made_from": self.made_from, "kb": kb.sha256, **further, "import": report})

    def check(self, kb: KBMeta | None = None) -> None:
        """Raise KBError if the folder has a knowledge base that is neither `kb` nor in a readable note."""
        state, digest = self.read(), self.digest_in_folder()
        digests = {state[key] for key in ("kb", "replaces") if isinstance(state.get(key), str)}
        undecided = kb is None and self.path.exists() and not digests
        if undecided or digest is None or digest in digests or (kb is not None and digest == kb.sha256):
            return
        problem = f"is not the one in {self.path.name}" if digests else "was not built from an InMemoryLookupKB"
        raise KBError(
            f"{_LOADER}: {self.folder} holds a knowledge base that {problem}, and would be replaced: give another "
            "folder, or delete this one if you do not need it (to link to it as it is, use spacy_gemel.KBFromDisk.v1)"
        )

    def digest_in_folder(self) -> str | None:
        """The digest of the folder's knowledge base, of any version; "" if it has none, None without a folder."""
        try:
            return str(json.loads((self.folder / META_FILE).read_text(encoding="utf8"))["meta_sha256"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, LookupError, TypeError):
            return ""
