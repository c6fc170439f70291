"""Entities from a spaCy InMemoryLookupKB, read from its files without spaCy: the vectors are passed over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.data.knowledge_bases.archive import Archive, CutOffError
from spacy_gemel.data.knowledge_bases.table import read_table
from spacy_gemel.data.knowledge_bases.work import ImportOptions, Work
from spacy_gemel.kb.entity import Entity

if TYPE_CHECKING:
    from spacy.strings import StringStore

CONTENTS, STRINGS = "contents", "strings.json"
_ENTRY = np.dtype([("hash", "<u8"), ("frequency", "<f4"), ("vector", "<i4")])
_CANDIDATE = np.dtype([("entry", "<i8"), ("prior", "<f4")])
_LONGEST_LINE = 2**24
_NAMES_ADVICE = "a file of names begins with id,name (tabs between them where it is called .tsv)"
_FRACTIONS = 10**9


def read_spacy_kb(sources: Sequence[Path], options: ImportOptions, work: Work) -> Iterator[tuple[str, Entity]]:
    """The entities of one knowledge base, in its order, with the aliases that lead to each.

    sources: the folder that InMemoryLookupKB.to_disk wrote, its file contents, or an entity_linker that holds it as kb.
    Names are the ids, since such a KB has no names, or each entity's alias with the highest prior probability
    (names="alias"), or what a CSV or JSON lines file with id and name says. Frequencies become counts; where all are
    fractions of 1, in parts of a billion.

    Raises ValueError where there is none, CutOffError where its file is not as long as it says.
    """
    if len(sources) != 1:
        raise ValueError("give one spaCy knowledge base: a folder with contents and strings.json")
    contents = _contents_in(sources[0])
    strings = _strings(contents)
    kb = _read(contents)
    store, report = work.store, work.report
    report.read.update({"entities": len(kb.entries), "aliases": len(kb.alias_hashes)})
    _sort_aliases(kb, strings, contents.name, work)
    names = _names(options.names, work)
    positive = [value for value in kb.entries["frequency"].tolist() if value > 0]
    scale = _FRACTIONS if max(positive, default=1) <= 1 and min(positive, default=1) < 1 else 1
    if scale > 1:
        report.notes.append("frequencies are fractions of 1: counts are in parts of a billion")
    for number, (key, frequency, _) in enumerate(kb.entries.tolist(), 1):
        where = f"{contents.name}: entity {number}"
        kb_id = _text(strings, key)
        if kb_id is None:
            report.drop("entities whose id is not in strings.json", where)
            continue
        if not 0 <= frequency < 2**62:
            report.drop("frequencies below 0 or none (the entity is kept)", f"{where} {kb_id!r}: {frequency}")
            frequency = 0.0
        aliases = [
            alias
            for (alias,) in store.rows("SELECT alias FROM alias WHERE entry = ? ORDER BY prior DESC, number", (number,))
        ]
        name = kb_id
        if options.names == "alias":
            name = aliases[0] if aliases else kb_id
        elif names:
            found = next(store.rows("SELECT name FROM name WHERE id = ?", (kb_id,)), None)
            if found is None:
                report.drop(f"entities that {options.names} does not name (the id is the name)", f"{where} {kb_id!r}")
            else:
                name = found[0]
        yield where, Entity(kb_id, name, round(frequency * scale), tuple(aliases))


@dataclass(frozen=True, slots=True)
class _Contents:
    """entries (n,); of each alias its hash and where its candidates begin in `candidates` (aliases + 1,)."""

    entries: NDArray[Any]
    alias_hashes: list[int]
    starts: list[int]
    candidates: NDArray[Any]


def _contents_in(source: Path) -> Path:
    for path in (source, source / CONTENTS, source / "kb" / CONTENTS):
        if path.is_file() and path.name == CONTENTS:
            return path
    raise ValueError(
        f"{source} is no spaCy knowledge base: give the folder that its to_disk wrote, with {CONTENTS} in it"
    )


def source_files(source: Path) -> list[Path]:
    """All files that are read of a knowledge base: contents, the strings beside it and those of its pipeline.

    Raises ValueError where there is none.
    """
    contents = _contents_in(source)
    strings = (contents.with_name(STRINGS), contents.parent.parent.parent / "vocab" / STRINGS)
    return [contents, *(path for path in strings if path.is_file())]


def _strings(contents: Path) -> StringStore:
    """The strings beside the KB and those of the pipeline it lies in; spaCy adds those that it has numbers for."""
    from spacy.strings import StringStore

    found = StringStore()
    for path in source_files(contents)[1:]:
        try:
            strings = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} is no list of strings as spaCy writes it: {error}") from error
        if not isinstance(strings, list):
            raise ValueError(f"{path} is no list of strings as spaCy writes it")
        for string in strings:
            if isinstance(string, str) and _is_text(string):
                found.add(string)
    if not len(found):
        raise ValueError(f"no {STRINGS} beside {contents}: it holds the ids and aliases, so copy it there")
    return found


def _is_text(string: str) -> bool:
    """False with half a surrogate pair in it, which JSON can say and UTF-8 cannot."""
    try:
        string.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(strings: StringStore, key: int) -> str | None:
    try:
        return strings[key]
    except KeyError:
        return None


def _read(path: Path) -> _Contents:
    """Read the file as spaCy writes it: sizes, vectors, entries, aliases with their candidates."""
    size = path.stat().st_size
    with path.open("rb") as file:
        number, length = (int(value) for value in _array(file, np.dtype("<i8"), 2, path))
        if not number >= 0 or not length >= 0 or 16 + number * (4 * length + _ENTRY.itemsize) + 8 > size:
            raise _too_short(path, file)
        file.seek(4 * number * length, os.SEEK_CUR)
        entries = _array(file, _ENTRY, number, path)
        hashes, starts, candidates = [], [0], []
        for _ in range(int(_array(file, np.dtype("<i8"), 1, path)[0])):
            key, among = _array(file, np.dtype("<u8"), 2, path).tolist()
            candidates.append(_array(file, _CANDIDATE, among, path))
            hashes.append(key)
            starts.append(starts[-1] + among)
    whole = np.concatenate(candidates) if candidates else np.empty(0, _CANDIDATE)
    return _Contents(entries, hashes, starts, whole)


def _array(file: BinaryIO, kind: np.dtype[Any], number: int, path: Path) -> NDArray[Any]:
    if number > path.stat().st_size:
        raise _too_short(path, file)
    raw = file.read(kind.itemsize * number)
    if len(raw) < kind.itemsize * number:
        raise _too_short(path, file)
    return np.frombuffer(raw, dtype=kind)


def _too_short(path: Path, file: BinaryIO) -> CutOffError:
    return CutOffError(
        f"{path} is cut off, or not what spaCy writes: read {file.tell():,} of its {path.stat().st_size:,} bytes. "
        "Save the knowledge base again with to_disk"
    )


def _sort_aliases(kb: _Contents, strings: StringStore, file: str, work: Work) -> None:
    """Fill the table alias (entry, prior, number, alias), which has the aliases of an entity together."""
    store, report = work.store, work.report
    store.execute(
        "CREATE TABLE alias (entry INTEGER, prior REAL, number INTEGER, alias TEXT, "
        "PRIMARY KEY (entry, prior, number)) WITHOUT ROWID"
    )
    for number, key in enumerate(kb.alias_hashes):
        alias = _text(strings, key)
        if alias is None:
            report.drop("aliases whose text is not in strings.json", f"{file}: alias {number + 1}")
            continue
        rows = kb.candidates[kb.starts[number] : kb.starts[number + 1]].tolist()
        known = [(entry, prior, number, alias) for entry, prior in rows if 0 < entry <= len(kb.entries)]
        store.insert("INSERT OR IGNORE INTO alias VALUES (?, ?, ?, ?)", known)
        report.drop("aliases of an entity that is not there", f"{file}: alias {alias!r}", len(rows) - len(known))


def _names(given: str | None, work: Work) -> bool:
    """Fill the table name from a file; False where names do not come from one."""
    if given in (None, "id", "alias"):
        return False
    path = Path(str(given))
    if not path.is_file():
        raise ValueError(f"--names must be id, alias or a file, and there is no file {path}")
    store, report = work.store, work.report
    store.execute("CREATE TABLE name (id TEXT PRIMARY KEY, name TEXT NOT NULL) WITHOUT ROWID")
    read_before = report.read["rows"]
    for kb_id, name in _named_in(path, work):
        store.insert("INSERT OR IGNORE INTO name VALUES (?, ?)", [(kb_id, name)])
    report.read["names"] += report.read.pop("rows", 0) - read_before
    return True


def _named_in(path: Path, work: Work) -> Iterator[tuple[str, str]]:
    if ".jsonl" not in path.suffixes:
        for _, entity in read_table([path], ImportOptions(), work, advice=_NAMES_ADVICE):
            yield entity.kb_id.strip(), entity.name.strip()
        return
    with work.read(path) as archive:
        yield from _named_lines(archive, work)


def _named_lines(archive: Archive, work: Work) -> Iterator[tuple[str, str]]:
    for number, line in archive.lines(_LONGEST_LINE):
        work.report.read["rows"] += 1
        try:
            row = json.loads(line or b"")
            kb_id, name = row["id"], row["name"]
            if not isinstance(kb_id, str) or not isinstance(name, str):
                raise ValueError("id and name must be texts")
            if not _is_text(kb_id + name):
                raise ValueError("half a surrogate pair in id or name")
        except (ValueError, KeyError, TypeError) as error:
            work.report.drop("lines of names that cannot be read", f"{archive.path.name}:{number}: {error}")
            continue
        yield kb_id.strip(), name.strip()
