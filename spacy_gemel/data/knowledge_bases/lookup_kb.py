"""A knowledge base built from spaCy's InMemoryLookupKB on first use, and again when its source changes."""

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_gemel.data.knowledge_bases.importer import import_kb
from spacy_gemel.data.knowledge_bases.source_note import SourceNote
from spacy_gemel.data.knowledge_bases.spacy_kb import source_files
from spacy_gemel.data.knowledge_bases.work import ImportOptions
from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.jsonl import REASONS
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.meta import sha256_of
from spacy_gemel.utils.files import resolve
from spacy_gemel.utils.messages import DataWarning, warn

if TYPE_CHECKING:
    from spacy_gemel.models.tokenizer import NameTokenizer

logger = logging.getLogger("spacy_gemel")

_LOADER = "KBFromLookupKB"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class LookupSource:
    """What a knowledge base is built from; see spacy_gemel.registry.kb_from_lookup_kb for each field."""

    path: str
    tokenizer: str
    names: str = "alias"
    revision: str | None = None
    max_name_tokens: int = 32

    def names_file(self) -> Path | None:
        """The file of names, if there is to be one. Raises ValueError if it does not exist."""
        if self.names in ("alias", "id"):
            return None
        path = resolve(self.names)
        if not path.is_file():
            raise ValueError(f'{_LOADER}: names must be "alias", "id" or a file, and there is no file {path}')
        return path

    def load_tokenizer(self) -> "NameTokenizer":
        """The language model's tokenizer. Raises ValueError if it cannot be loaded."""
        from spacy_gemel.models.tokenizer import load_tokenizer

        folder = resolve(self.tokenizer)
        return load_tokenizer(str(folder) if folder.is_dir() else self.tokenizer, self.revision)

    def fingerprint(self, tokenizer: "NameTokenizer") -> dict[str, Any]:
        """Everything that the result depends on, as plain data. Raises ValueError, OSError."""
        names = self.names_file()
        return {
            "version": _VERSION,
            "files": [sha256_of(path) for path in source_files(self.resolved())],
            "names": self.names if names is None else sha256_of(names),
            "tokenizer": tokenizer.fingerprint,
            "max_name_tokens": self.max_name_tokens,
        }

    def resolved(self) -> Path:
        """The absolute path of the source. Raises ValueError if it does not exist."""
        path = resolve(self.path)
        if not path.exists():
            raise ValueError(
                f"{_LOADER}: there is no {path}: path is the folder that InMemoryLookupKB.to_disk wrote, or that of an "
                "entity_linker in a saved pipeline"
            )
        return path


def open_lookup_kb(source: LookupSource, folder: str | Path, *, progress: bool = True) -> KnowledgeBase:
    """Open the knowledge base in `folder`; build it first if it is missing or its source has changed.

    The content of the source's files and of the file of names, and the tokenizer, decide whether the source has
    changed; `FOLDER.source.json` records them. The folder is written whole or not at all, and an interrupted build
    resumes. A build warns of what it leaves out, and of entities that share a name.

    Args:
        source: what to build from.
        folder: of the knowledge base.
        progress: show progress bars on stderr.

    Raises:
        ValueError: if the source, the names or the tokenizer are wrong; as KBError if the folder cannot be written, is
            being built by another process, or holds anything that this function did not build.
    """
    target = resolve(folder)
    tokenizer = source.load_tokenizer()
    made_from = source.fingerprint(tokenizer)
    note = SourceNote(target)
    state = note.read()
    try:
        kb = KnowledgeBase.open(target)
        if state.get("made_from") == made_from and state.get("kb") == kb.meta.sha256:
            return kb
    except (OSError, ValueError):
        pass  # missing or damaged: build it
    note.check()
    try:
        report = _build(source, target, tokenizer, note, made_from, progress)
        kb = KnowledgeBase.open(target)
        note.write(made_from, kb.meta, report)
    except OSError as error:
        raise KBError(f"{_LOADER}: {target} cannot be built: {error}") from error
    _warn_of_losses(kb, report, source)
    return kb


def _build(
    source: LookupSource,
    target: Path,
    tokenizer: "NameTokenizer",
    note: SourceNote,
    made_from: dict[str, Any],
    progress: bool,
) -> dict[str, Any]:
    """Import and build; returns the import's report as plain data. Raises ValueError, OSError."""
    from spacy_gemel.kb.builder import build_kb

    names = source.names_file()
    options = ImportOptions(names=source.names if names is None else str(names))
    target.parent.mkdir(parents=True, exist_ok=True)
    # a folder for this process alone, so that two processes do not write one file; the build itself has a lock
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.import-") as work:
        entities = Path(work) / "entities.jsonl"
        report = import_kb("spacy", [source.resolved()], entities, options, progress=progress)
        built = build_kb(
            entities,
            target,
            tokenizer,
            max_name_tokens=source.max_name_tokens,
            progress=progress,
            before_replacing=lambda meta: note.announce(made_from, meta, report.to_dict()),
        )
    for line in (*report.summary().splitlines(), *built.lines()):
        logger.info("%s: %s", _LOADER, line)
    return report.to_dict()


def _warn_of_losses(kb: KnowledgeBase, report: dict[str, Any], source: LookupSource) -> None:
    """Warn of everything that was left out, and of entities that share a name."""
    lost = {reason: dropped["count"] for reason, dropped in report["dropped"].items()}
    lost.update({REASONS[reason]: skipped.count for reason, skipped in kb.meta.skipped.items()})
    if lost:
        losses = ", ".join(f"{count} {reason}" for reason, count in lost.items())
        warn(f"{_LOADER}: the knowledge base does not have everything in {source.path}: {losses}", DataWarning)
    if kb.meta.names > kb.meta.distinct_names:
        warn(
            f"{_LOADER}: {kb.meta.names} entities of {source.path} have only {kb.meta.distinct_names} different names "
            f'(names = "{source.names}"). Text and image cannot decide between entities with the same name: the most '
            "frequent one is taken. Give names = a CSV file with id and name, with a different name for each entity.",
            DataWarning,
        )
