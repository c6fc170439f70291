"""Link a file of documents: JSON lines, a table or docs in, JSON lines or a table out. After a kill it goes on."""

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from spacy.vocab import Vocab
from tqdm import tqdm

from spacy_gemel.bulk.journal import open_journal, own_files, to_line
from spacy_gemel.bulk.link_block import LinkedBlock
from spacy_gemel.bulk.sources import PIPE, TABLES, SourceRow, kind_of, read_rows
from spacy_gemel.bulk.tables import check_columns, write_output
from spacy_gemel.bulk.workers import Engine
from spacy_gemel.kb.resolve import NIL

_LISTED = 5
_OUTPUTS = ("", ".jsonl", ".json", *TABLES)
_COUNTS = ("rows", "failed", "docs", "mentions", "nil", "unreadable_image", "left_out")


@dataclass(slots=True)
class LinkReport:
    """What was read, linked and left out: rows of the input, those that failed, docs, mentions.

    unreadable_image: docs that were linked without their image. left_out: mentions and images of rows that were linked
    without them. problems: the first few of this run.
    """

    rows: int = 0
    failed: int = 0
    docs: int = 0
    mentions: int = 0
    nil: int = 0
    unreadable_image: int = 0
    left_out: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """All but the problems."""
        return {name: getattr(self, name) for name in _COUNTS}

    def add(self, block: LinkedBlock) -> None:
        """Count what was linked."""
        mentions = [mention for line in block.lines for mention in line["mentions"]]
        self.rows += len(block.lines) + len(block.failed)
        self.failed += len(block.failed)
        self.docs += len(block.lines)
        self.mentions += len(mentions)
        self.nil += sum(mention["kb_id"] == NIL for mention in mentions)
        self.unreadable_image += sum(line.get("unreadable_image", False) for line in block.lines)
        self.left_out += sum(len(line.get("left_out", ())) for line in block.lines)
        self.problems += block.problems[: _LISTED - len(self.problems)]


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How `link_file` works.

    Attributes:
        batch_size: Rows that are linked together, and that a kill costs at most.
        explain: Give each mention an "explanation", at the cost of linking it a few times more.
        overwrite: Replace a finished output, and what an unfinished run of another input or pipeline has left.
        max_bad: End the run if more rows fail; None for any number.
        doc_seconds: A doc that takes longer fails; None for no limit. Not on Windows.
    """

    batch_size: int = 128
    explain: bool = False
    overwrite: bool = False
    max_bad: int | None = None
    doc_seconds: float | None = None


def link_file(
    engine: Engine, digest: str, source: Path, out: Path, options: LinkOptions, *, progress: bool = True
) -> LinkReport:
    """Link every row of `source`, and write one JSON line each to `out`, or a row of a table for each mention.

    `source` is a file of JSON lines, .csv, .parquet or .spacy, a folder of them, or "-" for stdin; .gz is unpacked. The
    mentions that it gives are linked, even if they overlap; for a row without them the pipeline's own NER is asked. A
    row that cannot be read or linked goes to OUT.failed.jsonl, whatever its error. A doc whose image cannot be read is
    linked from its text: its line says "unreadable_image": true. Until the end the output is OUT.partial, whole but for
    the last block; after any end the same call goes on there. With "-" as `out` the lines go to stdout, among them
    those of rows that failed, and nothing is kept.

    Args:
        engine: What links; see `workers`.
        digest: Of the pipeline: `pipeline_digest`.
        source: What to read.
        out: What to write.
        options: How.
        progress: Show a progress bar.

    Raises:
        ValueError: if `check_source` finds fault, the source has no usable doc, what an unfinished run has left does
            not fit, or more than `max_bad` rows fail.
        OSError: for the files.
    """
    check_source(source, out, overwrite=options.overwrite)
    if out == PIPE:
        return _link_to_stdout(engine, source, options)
    out = out.resolve() if out.is_symlink() else out  # the link stays
    # images are given by their paths from the source
    key = f"{digest} {kind_of(out)} {options.batch_size} {options.explain} {options.doc_seconds} {source.absolute()}"
    vocab = Vocab()
    with open_journal(out, key, lambda: read_rows(source, vocab), source, overwrite=options.overwrite) as (
        journal,
        rows,
    ):
        report = LinkReport(**journal.counts)  # type: ignore[arg-type]
        said = f"{journal.failed} says why"
        _check_bad(report, options, said)
        linked = engine.link(_blocks(rows, options.batch_size), out.parent.absolute(), **_how(options))
        with (
            closing(linked),
            tqdm(desc=f"link {source.name}", unit=" rows", initial=report.rows, disable=not progress) as bar,
        ):
            for block, result in linked:
                report.add(result)
                journal.write(block, result.lines, result.failed, report.counts)
                bar.update(len(block))
                _check_bad(report, options, said)
        if not report.docs:
            journal.close()
            raise ValueError(f"{source}: it has no usable doc, so nothing was written{_first(report, said)}")
        write_output(journal.partial, journal.failed, source, out)
        journal.close()
    return report


def _link_to_stdout(engine: Engine, source: Path, options: LinkOptions) -> LinkReport:
    report, said = LinkReport(), "its line on stdout says why"
    linked = engine.link(_blocks(read_rows(source, Vocab()), options.batch_size), Path.cwd(), **_how(options))
    with closing(linked):
        for _, result in linked:
            report.add(result)
            sys.stdout.buffer.writelines(map(to_line, [*result.lines, *result.failed]))
            sys.stdout.buffer.flush()
            _check_bad(report, options, said)
    if not report.docs:
        raise ValueError(f"{source}: it has no usable doc{_first(report, said)}")
    return report


def _how(options: LinkOptions) -> dict[str, Any]:
    return {"explain": options.explain, "doc_seconds": options.doc_seconds}


def _first(report: LinkReport, said: str) -> str:
    return f": {said}; the first: {report.problems[0]}" if report.problems else ""


def _check_bad(report: LinkReport, options: LinkOptions, said: str) -> None:
    if options.max_bad is not None and report.failed > options.max_bad:
        of = f"{report.failed} of {report.rows} rows have failed, and max_bad is {options.max_bad}"
        raise ValueError(of + (_first(report, said) or f": {said}"))


def _blocks(rows: Iterator[SourceRow], size: int) -> Iterator[list[SourceRow]]:
    while block := list(islice(rows, size)):
        yield block


def check_source(source: Path, out: Path, *, overwrite: bool) -> None:
    """Raise ValueError, before any long work, if the source is not there, or the output cannot be written."""
    if source != PIPE and not source.exists():
        raise ValueError(f"{source}: no such file or folder")
    if out == PIPE:
        return
    if source.exists() and source.resolve() in {*map(Path.resolve, own_files(out)), *out.resolve().parents}:
        raise ValueError(f"{out}: the output must not be the input, nor lie in its folder")
    if out.name.removesuffix(".gz") != out.name and kind_of(out) == ".parquet":
        raise ValueError(f"{out}: a Parquet file is packed in itself: leave .gz away")
    if (suffix := Path(out.name.removesuffix(".gz")).suffix.lower()) not in _OUTPUTS:
        raise ValueError(f"{out}: {suffix} is not written: name it .jsonl, .csv or .parquet")
    if source == PIPE and kind_of(out) in TABLES:
        raise ValueError(f"{out}: what comes through a pipe is JSON lines, and so is its output")
    if out.exists() and not out.is_file():
        raise ValueError(f"{out}: not a file that can be replaced: name another one")
    if out.exists() and not overwrite:
        raise ValueError(f"{out}: there is a finished output already: name another one, or give --overwrite")
    if kind_of(out) in TABLES:
        check_columns(source)
