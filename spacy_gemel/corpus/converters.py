"""Converters of data sets to spaCy's DocBin. A further data set is one more function in CONVERTERS."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import srsly
from tqdm import tqdm

from spacy_gemel.corpus.jsonl import read_jsonl
from spacy_gemel.corpus.records import Problem, Record
from spacy_gemel.paths import write_whole

DatasetReader = Callable[[Path], Iterator[Record | Problem]]

CONVERTERS: dict[str, DatasetReader] = {"jsonl": read_jsonl}
"""Data set name -> function that yields its records and problems from SRC."""

_LISTED = 100


@dataclass(slots=True)
class ConvertReport:
    """What was read, kept and left out, by reason; `listed` holds the first hundred problems in full."""

    source: str
    rows_read: int = 0
    rows_kept: int = 0
    mentions_kept: int = 0
    mentions_widened: int = 0
    mentions_nil: int = 0
    mentions_unannotated: int = 0
    images: int = 0
    images_missing: int = 0
    rows_dropped: Counter[str] = field(default_factory=Counter)
    mentions_dropped: Counter[str] = field(default_factory=Counter)
    listed: list[str] = field(default_factory=list)

    def add(self, problem: Problem) -> None:
        """Count a problem, and list it while there is room."""
        (self.rows_dropped if problem.what == "row" else self.mentions_dropped)[problem.reason] += 1
        if len(self.listed) < _LISTED:
            self.listed.append(str(problem))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for OUT.report.json."""
        return {
            "source": self.source,
            "rows": {
                "read": self.rows_read,
                "kept": self.rows_kept,
                "dropped": dict(sorted(self.rows_dropped.items())),
            },
            "mentions": {
                "read": self.mentions_kept + self.mentions_dropped.total(),
                "kept": self.mentions_kept,
                "dropped": dict(sorted(self.mentions_dropped.items())),
                "widened_to_tokens": self.mentions_widened,
                "nil": self.mentions_nil,
                "unannotated": self.mentions_unannotated,
            },
            "images": {"named": self.images, "missing": self.images_missing},
            "problems": self.listed,
        }

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [
            f"rows: {self.rows_read} read, {self.rows_kept} kept, {self.rows_dropped.total()} left out",
            f"mentions: {self.mentions_kept} kept, {self.mentions_dropped.total()} left out (of the kept: "
            f"{self.mentions_nil} NIL, {self.mentions_unannotated} without an entity, "
            f"{self.mentions_widened} widened to whole tokens)",
            f"images: {self.images} named, {self.images_missing} not found",
        ]
        lines += [f"  {n} x row: {reason}" for reason, n in sorted(self.rows_dropped.items())]
        lines += [f"  {n} x mention: {reason}" for reason, n in sorted(self.mentions_dropped.items())]
        lines += [f"  {problem}" for problem in self.listed[:5]]
        return "\n".join(lines)


def convert(dataset: str, source: Path, out: Path, *, lang: str = "en", progress: bool = True) -> ConvertReport:
    """Write `source` as a DocBin at `out`, and the report beside it as `out` + ".report.json".

    Images go in by reference: `doc.user_data["image"]` is a path relative to the folder of `out`. Rows that
    cannot be read are counted and left out. Raises ValueError for an unknown data set or language, an `out`
    that does not end in .spacy, or where no row at all is usable; OSError where a file cannot be read or
    written.
    """
    import spacy
    from spacy.tokens import DocBin

    from spacy_gemel.corpus.docs import doc_of

    if dataset not in CONVERTERS:
        raise ValueError(f"unknown data set {dataset!r}: there are {', '.join(sorted(CONVERTERS))}")
    if out.suffix != ".spacy":
        raise ValueError(f"{out}: the output must end in .spacy, as spaCy finds its corpora by that")
    if not source.exists():
        raise ValueError(f"{source}: no such file")
    try:
        nlp = spacy.blank(lang)
    except ImportError as error:
        raise ValueError(f"no language {lang!r} in spaCy: give its code, as in en ({error})") from error
    # only the tokeniser runs, and that needs no guard against long texts
    nlp.max_length = 10**9
    report = ConvertReport(source=str(source))
    docs = DocBin(store_user_data=True)
    records = CONVERTERS[dataset](source)
    for record in tqdm(records, desc=f"convert {source.name}", unit=" rows", disable=not progress):
        if isinstance(record, Problem):
            report.rows_read += record.what == "row"
            report.add(record)
            continue
        report.rows_read += 1
        report.rows_kept += 1
        if record.image is not None:
            report.images += 1
            report.images_missing += not _is_file(record.folder / record.image)
        doc, problems, widened = doc_of(record, nlp.make_doc, record.image_for(out.parent))
        for problem in problems:
            report.add(problem)
        report.mentions_kept += len(doc.ents)
        report.mentions_widened += widened
        report.mentions_nil += sum(ent.kb_id_ == "NIL" for ent in doc.ents)
        report.mentions_unannotated += sum(ent.kb_id_ == "" for ent in doc.ents)
        docs.add(doc)
    if not report.rows_kept:
        first = f"; the first: {report.listed[0]}" if report.listed else ""
        raise ValueError(f"{source}: not one usable row of {report.rows_read}, so nothing was written{first}")
    with write_whole(out) as partial:
        partial.write_bytes(docs.to_bytes())
    with write_whole(report_path(out)) as partial:
        partial.write_text(srsly.json_dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    return report


def report_path(out: Path) -> Path:
    """Where the report of a conversion to `out` lies."""
    return out.with_name(out.name + ".report.json")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have, such as a data URI
        return False
