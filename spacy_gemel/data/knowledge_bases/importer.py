"""From a knowledge base in another form to entities.jsonl. For a further kind, add a function to KINDS."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from spacy_gemel.data.knowledge_bases.parquet import read_parquet_kb
from spacy_gemel.data.knowledge_bases.spacy_kb import read_spacy_kb
from spacy_gemel.data.knowledge_bases.table import read_table
from spacy_gemel.data.knowledge_bases.wikidata import read_wikidata
from spacy_gemel.data.knowledge_bases.wikipedia import read_wikipedia
from spacy_gemel.data.knowledge_bases.work import ImportOptions, ImportReport, Work, working_beside
from spacy_gemel.data.report import write_report
from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.jsonl import MAX_COUNT, MAX_TEXT
from spacy_gemel.utils.files import write_whole

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
Reader = Callable[[Sequence[Path], ImportOptions, Work], Iterator[tuple[str, Entity]]]
# how each kind of source is read, as pairs of location and entity, and the names of its ImportOptions
KINDS: dict[str, tuple[Reader, frozenset[str]]] = {
    "wikipedia": (read_wikipedia, frozenset({"language", "id", "sections", "disambiguation"})),
    "wikidata": (read_wikidata, frozenset({"language", "names", "site", "with_sitelink", "properties"})),
    "csv": (read_table, frozenset({"column", "delimiter", "alias_separator"})),
    "parquet": (read_parquet_kb, frozenset({"column", "alias_separator"})),
    "spacy": (read_spacy_kb, frozenset({"names"})),
}


def import_kb(
    kind: str,
    sources: Sequence[Path],
    out: Path,
    options: ImportOptions | None = None,
    *,
    keep_going: bool = False,
    progress: bool = True,
) -> ImportReport:
    """Write the entities of some sources to `out` as JSON lines for build-kb, and a report beside it.

    Rows that cannot be used are counted by reason. Memory does not grow with the sources: what is joined is in
    temporary tables beside `out`. Until the import ends, `out` stays as it was. With `keep_going`, a source that is cut
    off or damaged is used as far as it goes. Raises ValueError for wrong arguments, sources that are damaged or have no
    entity (CutOffError if `keep_going` can help), and if another process imports to `out`; OSError for the files.
    """
    start = time.perf_counter()
    options = options or ImportOptions()
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: give one of {', '.join(sorted(KINDS))}")
    read, option_names = KINDS[kind]
    for option in fields(options):
        if option.name not in option_names and getattr(options, option.name) != option.default:
            flag, *known = ("--" + name.replace("_", "-") for name in (option.name, *sorted(option_names)))
            raise ValueError(f"{flag} is not an option of {kind}, which has {', '.join(known)}")
    for source in sources:
        if not source.exists():
            raise ValueError(f"{source}: no such file")
        if source.resolve() == out.resolve():
            raise ValueError(f"{source} is both source and output: name another output")
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file to write, such as {out / 'entities.jsonl'}")
    report = ImportReport(kind, [str(source) for source in sources])
    with working_beside(out, report, keep_going=keep_going, progress=progress) as work, write_whole(out) as partial:
        with partial.open("wb") as file:
            work.store.execute("CREATE TABLE written (id TEXT PRIMARY KEY) WITHOUT ROWID")
            for where, entity in read(sources, options, work):
                _write(entity, where, file, work)
        if not report.written["entities"]:
            first = next((f"; the first problem: {where[0]}" for where in report.dropped.examples.values()), "")
            raise ValueError(f"no entity in {', '.join(report.sources)}, so nothing was written{first}")
    report.seconds = time.perf_counter() - start
    write_report(out, report.to_dict())
    return report


def _write(entity: Entity, where: str, file: BinaryIO, work: Work) -> None:
    """Write an entity that stands at `where` in its source as a line, or report why build-kb would refuse it."""
    drop = work.report.dropped.add
    kb_id, name = entity.kb_id.strip(), entity.name.strip()
    if not kb_id or not name:
        drop("entities without " + ("a name" if kb_id else "an id"), where)
        return
    row: dict[str, object] = {"id": kb_id, "name": name}
    aliases = [alias for alias in dict.fromkeys(alias.strip() for alias in entity.aliases) if alias not in (name, "")]
    if aliases:
        row["aliases"] = aliases
    row |= {field.name: value for field in fields(entity)[4:] if (value := getattr(entity, field.name))}
    if entity.count:
        row["count"] = min(entity.count, MAX_COUNT)
    try:
        line = _encode(row).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        drop("entities with half of a surrogate pair, which is not text", where)
        return
    if len(line) > MAX_TEXT // 8:
        room = MAX_TEXT - sum(len(value.encode()) for value in row.values() if isinstance(value, str))
        if room < 0:
            drop(f"entities with more than {MAX_TEXT} bytes of text", where)
            return
        sizes = accumulate(len(alias.encode()) + 16 for alias in aliases)
        n_fitting = sum(size <= room for size in sizes)
        drop(f"aliases beyond {MAX_TEXT} bytes of one entity", where, len(aliases) - n_fitting)
        del aliases[n_fitting:]
        line = _encode(row).encode("utf-8") + b"\n"
    if not work.store.execute("INSERT OR IGNORE INTO written VALUES (?)", (kb_id,)).rowcount:
        drop("entities with the id of an earlier one", where)
        return
    file.write(line)
    further = {"entities with a description": bool(entity.description), "entities with a count": bool(entity.count)}
    work.report.written.update({"entities": 1, "aliases": len(aliases), **further})
