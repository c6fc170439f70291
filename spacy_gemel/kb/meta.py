"""meta.json: what a knowledge base folder holds, for which tokenizer, and the checksums of its files."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from spacy_gemel.kb.entity import KBError, build_command
from spacy_gemel.utils.files import FileRecord, sha256_of, write_json

FORMAT = "spacy-gemel-kb"
VERSION = 3
META_FILE = "meta.json"


@dataclass(frozen=True, slots=True)
class Skipped:
    """How many rows were left out for one reason, with the first few of them."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KBMeta:
    """The content of meta.json."""

    entities: int
    names: int  # entities whose name is in the trie
    distinct_names: int  # names in the trie
    edges: int  # of the trie
    batch_rows: int  # entities per batch of entities.arrow; the last batch may have fewer
    tokenizer_fingerprint: str  # of the tokenizer that the trie was built for
    leading_space: bool  # whether that tokenizer puts a space before each name
    vocab_size: int  # greater than every token id
    max_name_tokens: int  # longer names are not in the trie
    skipped: dict[str, Skipped] = field(default_factory=dict)  # by reason, see kb.jsonl.REASONS
    files: dict[str, FileRecord] = field(default_factory=dict)
    format: str = FORMAT
    version: int = VERSION

    @property
    def sha256(self) -> str:
        """A digest of everything, the files' checksums included: only equal knowledge bases share it."""
        return _digest(asdict(self))


def file_record(path: Path) -> FileRecord:
    """The record of a file, which is read. Raises OSError."""
    return FileRecord(path.stat().st_size, sha256_of(path))


def write_meta(folder: Path, meta: KBMeta) -> None:
    """Write meta.json with a checksum of its own content. Raises OSError."""
    write_json(folder / META_FILE, asdict(meta) | {"meta_sha256": meta.sha256})


def read_meta(folder: Path) -> KBMeta:
    """Read and check meta.json. Raises KBError if it is of another version, damaged, or has impossible values."""
    path = folder / META_FILE
    hint = f"Build one with: {build_command(folder)}"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        problem = "it has no meta.json" if folder.is_dir() else "it is not a folder"
        raise KBError(f"{folder} is not a knowledge base: {problem}. {hint}") from None
    except OSError as error:
        raise KBError(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise KBError(f"{path} is damaged ({error}). {hint}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise KBError(f"{folder} is not a knowledge base: its meta.json belongs to something else. {hint}")
    if content.get("version") != VERSION:
        versions = f"format version {content.get('version')}, this spacy-gemel reads {VERSION}"
        raise KBError(f"{folder} has {versions}. Build it again with: {build_command(folder)}")
    if content.pop("meta_sha256", None) != _digest(content):
        raise KBError(f"{path} does not match its own checksum: it was damaged or edited. {hint}")
    if set(content) != {item.name for item in fields(KBMeta)}:
        raise KBError(f"{path} has missing or unknown fields. {hint}")
    wrong = [name for name, expected in _EXPECTED.items() if not _fits(content[name], expected)]
    if wrong or not content["entities"] >= content["names"] >= content["distinct_names"]:
        raise KBError(f"{path} has an impossible value for {(wrong or ['names'])[0]!r}. {hint}")
    skipped = {name: Skipped(item["count"], tuple(item["examples"])) for name, item in content.pop("skipped").items()}
    files = {name: FileRecord(**item) for name, item in content.pop("files").items()}
    return KBMeta(skipped=skipped, files=files, **content)


_COUNTS = ("entities", "names", "distinct_names", "batch_rows", "vocab_size", "max_name_tokens")
_EXPECTED: dict[str, Any] = {
    **dict.fromkeys(_COUNTS, 1),
    "edges": 3,
    "tokenizer_fingerprint": str,
    "leading_space": bool,
    "skipped": {str: {"count": 0, "examples": [str]}},
    "files": {str: {"bytes": 0, "sha256": str}},
}
"""The type of a value, its least number, the kind of a list's items, or an object's values by key (or of any key)."""


def _fits(value: Any, expected: Any) -> bool:
    match expected:
        case int():
            return type(value) is int and value >= expected
        case [item]:
            return isinstance(value, list) and all(_fits(element, item) for element in value)
        case dict():
            if not isinstance(value, dict):
                return False
            items = dict.fromkeys(value, expected[str]) if str in expected else expected
            return set(value) == set(items) and all(_fits(value[key], item) for key, item in items.items())
        case _:
            return isinstance(value, expected)


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()
