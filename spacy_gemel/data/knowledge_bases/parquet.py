"""Entities from Parquet files, or a data set that Hugging Face's `datasets` saved to disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from spacy_gemel.data.knowledge_bases.table import BAD_COUNT, column_names, missing_fields
from spacy_gemel.data.knowledge_bases.work import ImportOptions, Work
from spacy_gemel.data.parquet import read_parquet_rows
from spacy_gemel.kb.entity import Entity
from spacy_gemel.utils.values import optional_value


def read_parquet_kb(sources: Sequence[Path], options: ImportOptions, work: Work) -> Iterator[tuple[str, Entity]]:
    """Yield the rows with their locations. `aliases` is a list, or a text as in CSV files.

    Raises ValueError if a column that is required or named is missing, or for a file that cannot be read.
    """
    names = column_names(options)
    for source in sources:
        with work.bar(f"read {source.name}", None, " rows") as bar:
            for where, row in read_parquet_rows(source):
                bar.update()
                work.report.read["rows"] += 1
                for field in missing_fields(names, row):
                    advice = f"name it with --column {field}=COLUMN"
                    raise ValueError(f"{where}: no column {names[field]!r}, but {', '.join(row)}: {advice}")
                values = {field: optional_value(row.get(name)) for field, name in names.items()}
                count, aliases = values["count"] or 0, values["aliases"] or ()
                if not (isinstance(count, int) and 0 <= count < 2**63):
                    work.report.dropped.add(BAD_COUNT, f"{where}: {count!r}")
                    count = 0
                aliases = aliases.split(options.alias_separator) if isinstance(aliases, str) else map(str, aliases)
                kb_id, name, text = (
                    "" if values[key] is None else str(values[key]) for key in ("id", "name", "description")
                )
                yield where, Entity(kb_id, name, count, tuple(aliases), text or None)
