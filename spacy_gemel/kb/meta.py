"""meta.json: what a knowledge base folder holds, for which tokenizer, and the checksums of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from spacy_gemel.kb.errors import KBError, build_command

FORMAT = "spacy-gemel-kb"
VERSION = 3
META_FILE = "meta.json"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """How many rows were left out for one reason, with the first few of them."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KBMeta:
    """The content of meta.json.

    ``names`` counts the entities that are in the trie, ``distinct_names`` the names there, ``batch_rows`` the
    entities in each batch of entities.arrow but the last. ``skipped`` has
    one item per reason (``spacy_gemel.kb.jsonl.REASONS``).
    """

    entities: int
    names: int
    distinct_names: int
    edges: int
    batch_rows: int
    tokenizer_fingerprint: str
    leading_space: bool
    vocab_size: int
    max_name_tokens: int
    skipped: dict[str, Skipped] = field(default_factory=dict)
    files: dict[str, FileRecord] = field(default_factory=dict)
    format: str = FORMAT
    version: int = VERSION

    @property
    def sha256(self) -> str:
        """A digest of all of it, the files' checksums included: only equal knowledge bases share it."""
        return _digest(asdict(self))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def records_of(folder: Path, names: Iterable[str]) -> dict[str, FileRecord]:
    """The records of some files of a folder; reads them whole. Raises OSError."""
    return {name: FileRecord((folder / name).stat().st_size, sha256_of(folder / name)) for name in names}


def write_meta(folder: Path, meta: KBMeta) -> None:
    """Write meta.json with a checksum of its own content. Raises OSError."""
    content = asdict(meta)
    content["meta_sha256"] = _digest(content)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / META_FILE).write_text(text, encoding="utf-8")


def read_meta(folder: Path) -> KBMeta:
    """Read and check meta.json.

    Raises KBError if the folder is no knowledge base, if it was written by another version of the format, if the
    content does not match its own checksum, or if it is not what a build writes.
    """
    path = folder / META_FILE
    hint = f"Build one with: {build_command(folder)}"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        what = "has no meta.json" if folder.is_dir() else "is no folder"
        raise KBError(f"{folder} is no knowledge base: it {what}. {hint}") from None
    except OSError as error:
        raise KBError(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise KBError(f"{path} is damaged ({error}). {hint}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise KBError(f"{folder} is no knowledge base: its meta.json is something else's. {hint}")
    if content.get("version") != VERSION:
        version = content.get("version")
        again = f"Build it again with: {build_command(folder)}"
        raise KBError(f"{folder} has format version {version}, this spacy-gemel reads {VERSION}. {again}")
    if content.pop("meta_sha256", None) != _digest(content):
        raise KBError(f"{path} does not match its own checksum: it was damaged or edited. {hint}")
    if set(content) != {item.name for item in fields(KBMeta)}:
        raise KBError(f"{path} lacks or adds fields. {hint}")
    wrong = _wrong_field(content)
    if wrong is not None:
        raise KBError(f"{path} has a value that makes no sense for {wrong!r}. {hint}")
    skipped = {
        reason: Skipped(item["count"], tuple(item["examples"])) for reason, item in content.pop("skipped").items()
    }
    files = {name: FileRecord(**item) for name, item in content.pop("files").items()}
    return KBMeta(skipped=skipped, files=files, **content)


def _wrong_field(content: dict[str, Any]) -> str | None:
    """The first field that has no value of its kind and range."""
    for name, least in _LEAST.items():
        if not _is_number(content[name], least):
            return name
    if content["names"] > content["entities"] or content["distinct_names"] > content["names"]:
        return "names"
    if not isinstance(content["tokenizer_fingerprint"], str):
        return "tokenizer_fingerprint"
    if not isinstance(content["leading_space"], bool):
        return "leading_space"
    if not _is_table(content["skipped"], {"count": _is_number, "examples": _is_texts}):
        return "skipped"
    if not _is_table(content["files"], {"bytes": _is_number, "sha256": _is_text}):
        return "files"
    return None


# the smallest value of each number
_LEAST = {
    "entities": 1,
    "names": 1,
    "distinct_names": 1,
    "edges": 3,
    "batch_rows": 1,
    "vocab_size": 1,
    "max_name_tokens": 1,
}


def _is_number(value: Any, least: int = 0) -> bool:
    return type(value) is int and value >= least


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_table(value: Any, columns: dict[str, Callable[[Any], bool]]) -> bool:
    """Whether it is an object of objects that have these items, each of its kind."""
    return isinstance(value, dict) and all(
        isinstance(row, dict) and set(row) == set(columns) and all(fits(row[name]) for name, fits in columns.items())
        for row in value.values()
    )


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()
