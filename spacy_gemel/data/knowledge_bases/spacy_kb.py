"""Entities from a spaCy InMemoryLookupKB, read from its files without spaCy; the vectors are skipped."""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.data.knowledge_bases.table import read_table
from spacy_gemel.data.knowledge_bases.work import CutOffError, ImportOptions, Work
from spacy_gemel.kb.entity import Entity

if TYPE_CHECKING:
    from spacy.strings import StringStore

CONTENTS, STRINGS = "contents", "strings.json"
_INT = np.dtype("<i8")
_ENTRY = np.dtype([("hash", "<u8"), ("frequency", "<f4"), ("vector", "<i4")])
_CANDIDATE = np.dtype([("entry", "<i8"), ("prior", "<f4")])
_MAX_LINE = 2**24
_NAMES_ADVICE = "a file of names begins with id,name (with a tab instead of the comma if it is called .tsv)"


def read_spacy_kb(sources: Sequence[Path], options: ImportOptions, work: Work) -> Iterator[tuple[str, Entity]]:
    """The entities of one knowledge base, in its order, with the aliases of each; it fits into memory, as in spaCy.

    Such a KB has no names: an entity's name is its id, its alias with the highest prior probability (names="alias"), or
    what a CSV or JSON lines file with id and name says. Frequencies become counts, in parts of a billion if all of
    them are fractions of 1. The source is a folder that InMemoryLookupKB.to_disk wrote, its file contents, or an
    entity_linker with such a kb. Raises ValueError if there is none, as CutOffError if its file is cut off.
    """
    if len(sources) != 1:
        raise ValueError("give one spaCy knowledge base: a folder with contents and strings.json")
    contents, *strings_files = source_files(sources[0])
    strings = _read_strings(contents, strings_files)
    report = work.report
    entries, aliases_by_entry = _read_contents(contents, strings, work)
    names = _read_names(options.names, work) if options.names not in (None, "id", "alias") else None
    positive = [value for value in entries["frequency"].tolist() if value > 0]
    scale = 10**9 if max(positive, default=1) <= 1 and min(positive, default=1) < 1 else 1
    if scale > 1:
        report.notes.append("frequencies are fractions of 1: counts are in parts of a billion")
    for number, (key, frequency, _) in enumerate(entries.tolist(), 1):
        where = f"{contents.name}: entity {number}"
        if key not in strings:
            report.dropped.add("entities whose id is not in strings.json", where)
            continue
        kb_id = strings[key]
        if not 0 <= frequency < 2**62:
            report.dropped.add("frequencies below 0 or none (the entity is kept)", f"{where} {kb_id!r}: {frequency}")
            frequency = 0.0
        aliases = [alias for _, alias in sorted(aliases_by_entry[number], key=lambda item: -item[0])]
        name = names.get(kb_id, kb_id) if names else aliases[0] if options.names == "alias" and aliases else kb_id
        if names is not None and kb_id not in names:
            reason = f"entities that {options.names} does not name (the id is the name)"
            report.dropped.add(reason, f"{where} {kb_id!r}")
        yield where, Entity(kb_id, name, round(frequency * scale), tuple(aliases))


def source_files(source: Path) -> list[Path]:
    """All files of a knowledge base: contents, the strings beside it and those of its pipeline. Raises ValueError."""
    for contents in (source, source / CONTENTS, source / "kb" / CONTENTS):
        if contents.is_file() and contents.name == CONTENTS:
            strings = (contents.with_name(STRINGS), contents.parent.parent.parent / "vocab" / STRINGS)
            return [contents, *(path for path in strings if path.is_file())]
    raise ValueError(
        f"{source} is not a spaCy knowledge base: give the folder that its to_disk wrote, with {CONTENTS} in it"
    )


def _read_strings(contents: Path, paths: Sequence[Path]) -> "StringStore":
    """The strings beside the KB and those of its pipeline; spaCy adds its own symbols."""
    from spacy.strings import StringStore

    store = StringStore()
    for path in paths:
        try:
            for string in json.loads(path.read_bytes()):
                with suppress(UnicodeEncodeError, TypeError):  # half a surrogate pair, or not a string
                    store.add(string)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is not a list of strings as spaCy writes it: {error}") from error
    if not len(store):
        raise ValueError(f"no {STRINGS} beside {contents}: it has the ids and aliases, so copy it there")
    return store


def _read_contents(
    path: Path, strings: "StringStore", work: Work
) -> tuple[NDArray[Any], dict[int, list[tuple[float, str]]]]:
    """Read the entries (n,), and the aliases by entry, from 1, with their prior probabilities."""
    report = work.report
    aliases: defaultdict[int, list[tuple[float, str]]] = defaultdict(list)
    with path.open("rb") as file:
        n_entries, width = _read_array(file, _INT, 2).tolist()
        file.seek(min(4 * abs(n_entries * width), path.stat().st_size), os.SEEK_CUR)
        entries = _read_array(file, _ENTRY, n_entries)
        n_aliases = int(_read_array(file, _INT, 1)[0])
        report.read.update({"entities": n_entries, "aliases": n_aliases})
        for number in range(n_aliases):
            key, n_candidates = _read_array(file, np.dtype("<u8"), 2).tolist()
            candidates = _read_array(file, _CANDIDATE, n_candidates).tolist()
            if key not in strings:
                report.dropped.add("aliases whose text is not in strings.json", f"{path.name}: alias {number + 1}")
                continue
            alias = strings[key]
            for entry, prior in candidates:
                if 0 < entry <= n_entries:
                    aliases[entry].append((prior, alias))
                else:
                    report.dropped.add("aliases of an entity that does not exist", f"{path.name}: alias {alias!r}")
    return entries, aliases


def _read_array(file: BinaryIO, dtype: np.dtype[Any], length: int) -> NDArray[Any]:
    size, start = os.fstat(file.fileno()).st_size, file.tell()
    if not 0 <= length * dtype.itemsize <= size - start:
        raise CutOffError(
            f"{file.name} is cut off, or not what spaCy writes: read {min(start, size):,} of its {size:,} bytes. "
            "Save the knowledge base again with to_disk"
        )
    return np.frombuffer(file.read(dtype.itemsize * length), dtype=dtype)


def _read_names(source: str | None, work: Work) -> dict[str, str]:
    """The names in a file by id; the first of an id counts."""
    path, report = Path(str(source)), work.report
    if not path.is_file():
        raise ValueError(f"--names must be id, alias or a file, and there is no file {path}")
    names: dict[str, str] = {}
    if ".jsonl" not in path.suffixes:
        for _, entity in read_table([path], ImportOptions(), work, advice=_NAMES_ADVICE):
            names.setdefault(entity.kb_id.strip(), entity.name.strip())
        report.read["names"] = report.read.pop("rows", 0)
        return names
    with work.read(path) as archive:
        for number, line in archive.lines(_MAX_LINE):
            report.read["names"] += 1
            try:
                row = json.loads(line or b"")
                (row["id"] + row["name"]).encode()  # fails with half of a surrogate pair
                names.setdefault(row["id"].strip(), row["name"].strip())
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                report.dropped.add("lines of names that cannot be read", f"{path.name}:{number}: {error}")
    return names
