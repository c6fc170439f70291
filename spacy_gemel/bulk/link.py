"""Link a file of documents: JSON lines, a table or docs in, JSON lines or a table out. After a kill it goes on."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from spacy.vocab import Vocab
from tqdm import tqdm

from spacy_gemel.bulk.journal import open_journal
from spacy_gemel.bulk.link_block import LinkedBlock
from spacy_gemel.bulk.sources import STDIN, TABLES, SourceRow, kind_of, read_rows
from spacy_gemel.bulk.tables import write_output
from spacy_gemel.bulk.workers import Engine
from spacy_gemel.data.records import Problem
from spacy_gemel.kb.resolve import NIL


@dataclass(slots=True)
class LinkReport:
    """What was read, linked and left out: rows of the input, those that failed, docs, mentions.

    unreadable_image: docs that were linked without their image. problems: of this run, not of what it went on from.
    """

    rows: int = 0
    failed: int = 0
    docs: int = 0
    mentions: int = 0
    nil: int = 0
    unreadable_image: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """All but the problems."""
        return {name: value for name, value in asdict(self).items() if name != "problems"}

    def add(self, block: LinkedBlock) -> None:
        """Count what was linked."""
        mentions = [mention for line in block.lines for mention in line["mentions"]]
        self.rows += len(block.lines) + len(block.failed)
        self.failed += len(block.failed)
        self.docs += len(block.lines)
        self.mentions += len(mentions)
        self.nil += sum(mention["kb_id"] == NIL for mention in mentions)
        self.unreadable_image += sum(line.get("unreadable_image", False) for line in block.lines)
        self.problems += block.problems


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
    the last block; after any end the same call goes on there.

    Args:
        engine: What links; see `workers`.
        digest: Of the pipeline: `pipeline_digest`.
        source: What to read.
        out: What to write.
        options: How.
        progress: Show a progress bar.

    Raises:
        ValueError: if the pipeline has no linker, the source has no usable doc, `out` is there already, what an
            unfinished run has left does not fit, or more than `max_bad` rows fail.
        OSError: for the files.
    """
    check_source(source, out, overwrite=options.overwrite)
    key = f"{digest} {kind_of(out)} {options.batch_size} {options.explain}"
    vocab = Vocab()
    with open_journal(out, key, lambda: read_rows(source, vocab), source, overwrite=options.overwrite) as (
        journal,
        rows,
    ):
        report = LinkReport(**journal.counts)  # type: ignore[arg-type]
        how = {"explain": options.explain, "doc_seconds": options.doc_seconds}
        linked = engine.link(_blocks(rows, options.batch_size), out.parent.absolute(), **how)
        with tqdm(desc=f"link {source.name}", unit=" rows", initial=report.rows, disable=not progress) as bar:
            for block, result in linked:
                report.add(result)
                journal.write(block, result.lines, result.failed, report.counts)
                bar.update(len(block))
                if options.max_bad is not None and report.failed > options.max_bad:
                    last = result.failed[-1]["reason"] if result.failed else "of an earlier run"
                    raise ValueError(
                        f"{report.failed} of {report.rows} rows have failed, and max_bad is {options.max_bad}: see "
                        f"{journal.failed}; the last: {last}"
                    )
        if not report.docs:
            first = f"; the first: {report.problems[0]}" if report.problems else ""
            journal.close()
            raise ValueError(f"{source}: it has no usable doc, so nothing was written{first}")
        write_output(journal.partial, journal.failed, source, out)
        journal.close()
    return report


def _blocks(rows: Iterator[SourceRow], size: int) -> Iterator[list[SourceRow]]:
    while block := list(islice(rows, size)):
        yield block


def check_source(source: Path, out: Path, *, overwrite: bool) -> None:
    """Raise ValueError, before any long work, if the source is not there, or the output cannot be written."""
    if source != STDIN and not source.exists():
        raise ValueError(f"{source}: no such file or folder")
    if source.exists() and (source.resolve() == out.resolve() or source.resolve() in out.resolve().parents):
        raise ValueError(f"{out}: the output must not be the input, nor lie in its folder")
    if source == STDIN and kind_of(out) in TABLES:
        raise ValueError(f"{out}: what comes through a pipe is JSON lines, and so is its output")
    if out.exists() and not (overwrite and out.is_file()):
        raise ValueError(f"{out}: there is a finished output already: name another one, or give --overwrite")
