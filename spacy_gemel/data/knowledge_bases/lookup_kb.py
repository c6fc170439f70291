"""A knowledge base that is made from spaCy's InMemoryLookupKB where it is needed, and kept until its source changes."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_gemel.data.knowledge_bases.importer import import_kb
from spacy_gemel.data.knowledge_bases.source_note import SourceNote
from spacy_gemel.data.knowledge_bases.spacy_kb import source_files
from spacy_gemel.data.knowledge_bases.work import ImportOptions, ImportReport
from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.jsonl import REASONS
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.meta import KBMeta, sha256_of
from spacy_gemel.utils.files import resolve

if TYPE_CHECKING:
    from spacy_gemel.models.tokenizer import NameTokenizer

logger = logging.getLogger("spacy_gemel")

_ME = "KBFromLookupKB"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class LookupSource:
    """What a knowledge base is made from; see spacy_gemel.registry.kb_from_lookup_kb for each."""

    path: str
    tokenizer: str
    names: str = "alias"
    revision: str | None = None
    max_name_tokens: int = 32

    def names_file(self) -> Path | None:
        """The file that names come from, if they do. Raises ValueError where it is not there."""
        if self.names in ("alias", "id"):
            return None
        path = resolve(self.names)
        if not path.is_file():
            raise ValueError(f'{_ME}: names must be "alias", "id" or a file, and there is no file {path}')
        return path

    def load_tokenizer(self) -> NameTokenizer:
        """The language model's tokenizer. Raises ValueError where there is none."""
        from spacy_gemel.models.tokenizer import load_tokenizer

        local = resolve(self.tokenizer)
        return load_tokenizer(str(local) if local.is_dir() else self.tokenizer, self.revision)

    def fingerprint(self, tokenizer: NameTokenizer) -> dict[str, Any]:
        """All that decides what is built, as plain data. Raises ValueError where there is no such source, OSError."""
        names = self.names_file()
        return {
            "version": _VERSION,
            "files": [sha256_of(path) for path in source_files(self.resolved())],
            "names": self.names if names is None else sha256_of(names),
            "tokenizer": tokenizer.fingerprint,
            "max_name_tokens": self.max_name_tokens,
        }

    def resolved(self) -> Path:
        """Where the source lies. Raises ValueError where there is nothing."""
        path = resolve(self.path)
        if not path.exists():
            raise ValueError(
                f"{_ME}: there is no {path}: path is the folder that InMemoryLookupKB.to_disk wrote, or that of an "
                "entity_linker in a saved pipeline"
            )
        return path


def open_lookup_kb(source: LookupSource, folder: str | Path, *, progress: bool = True) -> KnowledgeBase:
    """Open the knowledge base in `folder`, after building it where it is not there or its source has changed.

    Changes of the source are told by the content of its files, of the file of names, and by the tokenizer; what was
    built from is noted in `FOLDER.source.json`. The folder is written whole or not at all, and an interrupted build
    goes on. What is not as the source has it, and how many entities share a name, is warned of when it is built.
    progress: show bars on stderr.

    Raises ValueError (KBError) where the source, the names or the tokenizer are not what they should be, where the
    folder holds what this function did not build, cannot be written, or is being built by another process.
    """
    target = resolve(folder)
    tokenizer = source.load_tokenizer()
    made_from = source.fingerprint(tokenizer)
    note = SourceNote(target)
    kb = _kept(note, made_from)
    if kb is not None:
        return kb
    note.check()

    def announce(built: KBMeta, report: ImportReport) -> None:
        note.announce(made_from, built, report.to_dict())

    try:
        report = _build(source, target, tokenizer, progress, announce)
        kb = KnowledgeBase.open(target)
        note.write(made_from, kb.meta, report)
    except OSError as error:
        raise KBError(f"{_ME}: {target} cannot be built: {error}") from error
    _warn(kb, report, source)
    return kb


def _kept(note: SourceNote, made_from: dict[str, Any]) -> KnowledgeBase | None:
    """The knowledge base that is there, if it is the one that would be built."""
    state = note.read()
    try:
        kb = KnowledgeBase.open(note.folder)
    except (OSError, ValueError):
        return None
    return kb if state.get("made_from") == made_from and state.get("kb") == kb.meta.sha256 else None


def _build(
    source: LookupSource,
    target: Path,
    tokenizer: NameTokenizer,
    progress: bool,
    announce: Callable[[KBMeta, ImportReport], None],
) -> dict[str, Any]:
    """Import and build; what was imported and left out, as plain data. Raises ValueError, OSError.

    announce: hears of the new knowledge base just before it is put into its folder.
    """
    from spacy_gemel.kb.builder import build_kb

    names = source.names_file()
    options = ImportOptions(names=source.names if names is None else str(names))
    target.parent.mkdir(parents=True, exist_ok=True)
    # a folder of one's own, so that two processes do not write one file; the builder has a lock
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.import-") as work:
        entities = Path(work) / "entities.jsonl"
        report = import_kb("spacy", [source.resolved()], entities, options, progress=progress)
        built = build_kb(
            entities,
            target,
            tokenizer,
            max_name_tokens=source.max_name_tokens,
            progress=progress,
            before_replacing=lambda meta: announce(meta, report),
        )
    for line in (*report.summary().splitlines(), *built.lines()):
        logger.info("%s: %s", _ME, line)
    return report.to_dict()


def _warn(kb: KnowledgeBase, report: dict[str, Any], source: LookupSource) -> None:
    """Say once what is not as the source has it, and that entities of one name cannot be told apart."""
    lost = {reason: dropped["count"] for reason, dropped in report["dropped"].items()}
    lost.update({REASONS[reason]: skipped.count for reason, skipped in kb.meta.skipped.items()})
    if lost:
        what = ", ".join(f"{count} {reason}" for reason, count in lost.items())
        warnings.warn(
            f"{_ME}: not all of {source.path} is in the knowledge base as it stands there: {what}", stacklevel=3
        )
    sharing = kb.meta.names - kb.meta.distinct_names
    if sharing:
        warnings.warn(
            f"{_ME}: {kb.meta.names} entities of {source.path} have only {kb.meta.distinct_names} different names "
            f'(names = "{source.names}"): of those that share one, the text and the image do not decide, the most '
            "frequent is taken. Give names = a CSV file with id and name, one name for each entity.",
            stacklevel=3,
        )
