"""From a knowledge base of another form to entities.jsonl, whole or not at all. A further kind: a function in KINDS."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spacy_gemel.data.knowledge_bases.options import ImportOptions
from spacy_gemel.data.knowledge_bases.report import ImportReport, report_path
from spacy_gemel.data.knowledge_bases.spacy_kb import read_spacy_kb
from spacy_gemel.data.knowledge_bases.table import read_table
from spacy_gemel.data.knowledge_bases.wikidata import read_wikidata
from spacy_gemel.data.knowledge_bases.wikipedia import read_wikipedia
from spacy_gemel.data.knowledge_bases.work import Work, working_beside
from spacy_gemel.data.knowledge_bases.writer import EntityWriter
from spacy_gemel.kb.entity import Entity
from spacy_gemel.utils.files import write_whole

Found = Iterator[tuple[str, Entity]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of source. read: yields each entity after where it stands. options: those of ImportOptions it knows."""

    read: Callable[[Sequence[Path], ImportOptions, Work], Found]
    options: frozenset[str] = frozenset()


KINDS: dict[str, Kind] = {
    "wikipedia": Kind(read_wikipedia, frozenset({"language", "id", "sections", "disambiguation"})),
    "wikidata": Kind(read_wikidata, frozenset({"language", "names", "site", "with_sitelink", "properties"})),
    "csv": Kind(read_table, frozenset({"column", "delimiter", "alias_separator"})),
    "spacy": Kind(read_spacy_kb, frozenset({"names"})),
}
"""Kind of source -> how it is read."""


def import_kb(
    kind: str,
    sources: Sequence[Path],
    out: Path,
    options: ImportOptions | None = None,
    *,
    keep_going: bool = False,
    progress: bool = True,
) -> ImportReport:
    """Write the entities of some sources to `out` as JSON lines for build-kb, and the report beside it.

    Rows that cannot be used are counted by reason. Memory does not grow with the sources: what is joined lies in
    temporary tables beside `out`, removed at the end. Nothing is kept for a second try: an import that was
    interrupted begins anew, and until it has ended `out` is as it was. keep_going: an archive that is cut off is used
    as far as it goes.

    Raises ValueError for an unknown kind, an option it does not know, sources that are not what they should be or have
    no entity, and where another process imports to `out`; CutOffError, a ValueError, for an archive that is cut off;
    OSError where a file cannot be read or written.
    """
    begin = time.perf_counter()
    options = options or ImportOptions()
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: there are {', '.join(sorted(KINDS))}")
    options.check(kind, KINDS[kind].options)
    for source in sources:
        if not source.exists():
            raise ValueError(f"{source}: no such file")
        if source.resolve() == out.resolve():
            raise ValueError(f"{source} is both read and written: name another output")
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file to write, such as {out / 'entities.jsonl'}")
    report = ImportReport(kind, [str(source) for source in sources])
    with (
        working_beside(out, report, keep_going=keep_going, progress=progress) as work,
        write_whole(out) as partial,
    ):
        with partial.open("wb") as file:
            writer = EntityWriter(file, work)
            for where, entity in KINDS[kind].read(sources, options, work):
                writer.add(entity, where)
        if not report.kept["entities"]:
            first = next((f"; the first thing left out: {indices[0]}" for indices in report.examples.values()), "")
            raise ValueError(f"no entity in {', '.join(report.sources)}, so nothing was written{first}")
    report.seconds = time.perf_counter() - begin
    with write_whole(report_path(out)) as partial:
        partial.write_text(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return report
