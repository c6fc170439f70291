"""Link a file of documents: JSON lines, a table or docs in, JSON lines or a table out. After a kill it goes on."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from spacy.language import Language
from spacy.tokens import Doc, Span
from tqdm import tqdm

from spacy_gemel.bulk.journal import Journal, open_journal
from spacy_gemel.bulk.sources import STDIN, TABLES, SourceRow, kind_of, read_rows, table_row
from spacy_gemel.bulk.tables import ANSWER, answer_of, write_output
from spacy_gemel.data.reader import doc_from_record, make_example
from spacy_gemel.data.records import Problem, Record, split_overlaps
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.pipeline.loaded_pipeline import entity_pipes, linker_of, pipeline_digest
from spacy_gemel.pipeline.user_data import candidate_rows, has_unreadable_image, probability_of
from spacy_gemel.utils.messages import one_line

_ONLY_URL = "it is a URL: fetch-images downloads it, convert with --images makes a .spacy file that link takes"
Explain = Callable[[Span], dict[str, Any]]
T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How `link_file` works.

    Attributes:
        batch_size: Docs that are linked together, and at least so many are lost by a kill; 0 for the pipeline's own.
        explain: Give each mention an "explanation", at the cost of linking it a few times more.
        overwrite: Replace a finished output, and what an unfinished run of another input or pipeline has left.
        max_bad: End the run if more rows fail; None for any number.
        doc_seconds: A doc that takes longer fails; None for no limit. Not on Windows.
    """

    batch_size: int = 0
    explain: bool = False
    overwrite: bool = False
    max_bad: int | None = None
    doc_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Input:
    """A doc to link, and its image as the output names it."""

    doc: Doc
    image: str | None
    has_mentions: bool  # else the pipeline's NER finds them


class Failed(Exception):
    """Why a row of the input has no output."""


def link_file(
    nlp: Language, source: Path, out: Path, options: LinkOptions | None = None, *, progress: bool = True
) -> LinkReport:
    """Link every row of `source`, and write one JSON line each to `out`, or a row of a table for each mention.

    `source` is a file of JSON lines, .csv, .parquet or .spacy, a folder of them, or "-" for stdin; .gz is unpacked. The
    mentions that it gives are linked, even if they overlap; for a row without them the pipeline's own NER is asked. A
    row that cannot be read or linked goes to OUT.failed.jsonl, whatever its error. A doc whose image cannot be read is
    linked from its text: its line says "unreadable_image": true. Until the end the output is OUT.partial, whole but for
    the last block; after any end the same call goes on there.

    Raises ValueError if the pipeline has no linker, the source has no usable doc, `out` is there already, what an
    unfinished run has left does not fit, or more than `max_bad` rows fail; and OSError for the files.
    """
    options = options or LinkOptions()
    linker = linker_of(nlp)
    check_source(source, out, overwrite=options.overwrite)
    key = pipeline_digest(nlp, kind_of(out) in TABLES, options.batch_size, options.explain)
    explain = linker.explain if options.explain else None
    with open_journal(out, key, lambda: read_rows(source, nlp.vocab), source, overwrite=options.overwrite) as (
        journal,
        rows,
    ):
        report = LinkReport(**journal.counts)  # type: ignore[arg-type]
        with tqdm(desc=f"link {source.name}", unit=" rows", initial=report.rows, disable=not progress) as bar:
            while block := list(islice(rows, options.batch_size or nlp.batch_size)):
                _link_block(nlp, block, out, journal, report, explain, options)
                bar.update(len(block))
        if not report.docs:
            first = f"; the first: {report.problems[0]}" if report.problems else ""
            journal.close()
            raise ValueError(f"{source}: it has no usable doc, so nothing was written{first}")
        write_output(journal.partial, journal.failed, source, out)
        journal.close()
    return report


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


def link_table(
    table: T,
    nlp: Language,
    *,
    text: str = "text",
    image: str = "image",
    mention: str = "mention",
    start: str = "start",
    end: str = "end",
    batch_size: int = 0,
) -> T:
    """Link each row of a table in memory; returns it with the columns `kb_id`, `name`, `probability` and `reason`.

    Args:
        table: A pandas DataFrame, or an Arrow table.
        nlp: The pipeline.
        text: The column of the texts.
        image: The column of paths, or of the images' bytes; it may be missing.
        mention: The column of the words to link, if there are none of offsets. Without either the first entity that the
            pipeline's own NER finds is linked.
        start: The column of the mention's first character.
        end: The column of the character behind it.
        batch_size: Rows that are linked together; 0 for the pipeline's own.

    Raises:
        ValueError: if the pipeline has no linker, or the table no column of texts.
    """
    linker_of(nlp)
    columns = {"text": text, "image": image, "mention": mention, "start": start, "end": end}
    is_arrow = hasattr(table, "to_pylist")
    records: list[dict[str, Any]] = table.to_pylist() if is_arrow else table.to_dict("records")  # type: ignore[attr-defined]
    if records and text not in records[0]:
        raise ValueError(f"the table has no column {text!r}: name that of the texts, link_table(..., text=...)")
    rows = (
        table_row({name: row[column] for name, column in columns.items() if column in row}, f"row {n}", Path(), {})
        for n, row in enumerate(records)
    )
    answers: list[dict[str, Any]] = []
    while block := list(islice(rows, batch_size or nlp.batch_size)):
        for result in link_rows(nlp, block, Path(), LinkReport(), LinkOptions()):
            line = {"reason": str(result)} if isinstance(result, Failed) else _make_line(result, {}, None)
            answers.append(answer_of(line))
    values = {name: [answer[name] for answer in answers] for name in ANSWER}
    if not is_arrow:
        return table.assign(**values)  # type: ignore[attr-defined]
    for name, column in values.items():
        table = table.append_column(name, [column])  # type: ignore[attr-defined]
    return table


def _link_block(
    nlp: Language,
    block: Sequence[SourceRow],
    out: Path,
    journal: Journal,
    report: LinkReport,
    explain: Explain | None,
    options: LinkOptions,
) -> None:
    lines, failed = [], []
    for row, result in zip(block, link_rows(nlp, block, out.parent, report, options), strict=True):
        try:
            if isinstance(result, Failed):
                raise result
            line = _make_line(result, row.place, explain)
        except Exception as error:
            reason = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {one_line(error)}"
            failed.append({**row.place, **_id_of(result), "reason": reason})
            continue
        lines.append(line)
        report.mentions += len(line["mentions"])
        report.nil += sum(mention["kb_id"] == NIL for mention in line["mentions"])
        report.unreadable_image += line.get("unreadable_image", False)
    report.rows += len(block)
    report.docs += len(lines)
    report.failed += len(failed)
    journal.write(block, lines, failed, report.counts)
    if options.max_bad is not None and report.failed > options.max_bad:
        raise ValueError(
            f"{report.failed} of {report.rows} rows have failed, and max_bad is {options.max_bad}: see "
            f"{journal.failed}; the last: {failed[-1]['reason'] if failed else 'of an earlier run'}"
        )


def _id_of(result: Any) -> dict[str, Any]:
    docs = result if isinstance(result, list) else []
    return {"id": docs[0].doc.user_data["id"]} if docs and "id" in docs[0].doc.user_data else {}


def link_rows(
    nlp: Language, block: Sequence[SourceRow], folder: Path, report: LinkReport, options: LinkOptions
) -> "list[list[_Input] | Failed]":
    """The linked docs of each row, several if its mentions overlap, or why there are none.

    Args:
        nlp: The pipeline.
        block: The rows.
        folder: What images' paths in the output are relative to.
        report: Gets the problems.
        options: Only `doc_seconds` counts.
    """
    results: list[list[_Input] | Failed] = []
    for row in block:
        try:
            results.append(_read(nlp, row, folder, report))
        except Exception as error:  # whatever is wrong with one row, the others are linked
            failure = error if isinstance(error, Failed) else Failed(f"{type(error).__name__}: {one_line(error)}")
            results.append(failure)
    places = [
        (number, index)
        for number, result in enumerate(results)
        if isinstance(result, list)
        for index in range(len(result))
    ]
    inputs = [item for result in results if isinstance(result, list) for item in result]
    for (number, index), doc in zip(places, _link(nlp, inputs, options.doc_seconds), strict=True):
        result = results[number]
        if isinstance(result, Failed):  # of the row's first doc
            continue
        if isinstance(doc, Failed):
            results[number] = doc
        else:
            result[index] = replace(result[index], doc=doc)
    return results


def _read(nlp: Language, row: SourceRow, folder: Path, report: LinkReport) -> list[_Input]:
    """The docs of a row; raises Failed with the reason if it has none."""
    inputs = []
    for item in row.read():
        if isinstance(item, Problem):
            report.problems.append(item)
            if item.what == "row":
                raise Failed(item.reason + (f" ({item.detail})" if item.detail else ""))
        elif isinstance(item, Doc):
            # a token without an IOB tag was never annotated, which is not the same as outside every mention
            has_mentions = item.has_annotation("ENT_IOB")
            doc = make_example(nlp, item, gold_ents=has_mentions).predicted
            image, output_image = doc.user_data.get("image"), doc.user_data.get("image_url")
            if isinstance(image, str):
                output_image = Path(os.path.relpath(image, folder)).as_posix()
            inputs.append(_Input(doc, output_image, has_mentions))
        else:
            inputs += _inputs_of(nlp, item, row.image, folder, report)
    return inputs


def _inputs_of(
    nlp: Language, record: Record, packed: bytes | None, folder: Path, report: LinkReport
) -> Iterator[_Input]:
    if record.image_url is not None:
        report.problems.append(Problem(record.location, "image", _ONLY_URL, record.image_url))
    image = None if record.image is None else str((record.folder / record.image).absolute())
    output_image = record.image_path_from(folder) or record.image_url
    layers, problems = split_overlaps(record)
    for layer in layers:
        has_mentions = layer.mentions is not None
        if layer.mentions is not None:  # the linker must not see the gold ids
            layer = replace(layer, mentions=tuple(replace(mention, kb_id="") for mention in layer.mentions))
        doc, not_covered, _ = doc_from_record(layer, nlp.make_doc, image)
        if packed is not None:
            doc.user_data["image"] = packed
        problems += not_covered
        yield _Input(doc, output_image, has_mentions)
    report.problems += problems


def _link(nlp: Language, inputs: Sequence[_Input], doc_seconds: float | None) -> "list[Doc | Failed]":
    """Run the pipeline, without its NER for docs that have mentions; a doc that fails takes no other with it."""
    linked: list[Doc | Failed] = [Failed("a pipe's error handler has left it out")] * len(inputs)

    def run(indices: Sequence[int]) -> None:
        seconds = None if doc_seconds is None else doc_seconds * len(indices)
        try:
            with _time_limit(seconds):
                stream = ((inputs[index].doc, index) for index in indices)
                for doc, index in nlp.pipe(stream, as_tuples=True, batch_size=len(indices)):
                    linked[index] = doc
        except Exception as error:
            if len(indices) == 1:
                linked[indices[0]] = Failed(f"{type(error).__name__}: {one_line(error)}")
                return
            middle = len(indices) // 2
            run(indices[:middle])
            run(indices[middle:])

    for has_mentions in (True, False):
        indices = [index for index, item in enumerate(inputs) if item.has_mentions is has_mentions]
        if indices:
            with nlp.select_pipes(disable=entity_pipes(nlp)) if has_mentions else nullcontext():
                run(indices)
    return linked


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeoutError in the block after so long; only in the main thread, and not on Windows."""
    is_possible = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not is_possible:
        yield
        return

    def end(*_: object) -> None:
        raise TimeoutError(f"it took longer than {seconds:g} seconds")

    previous = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _make_line(docs: Sequence[_Input], place: dict[str, Any], explain: Explain | None) -> dict[str, Any]:
    """The line of the output for a row: the mentions of all its docs."""
    line: dict[str, Any] = {}
    for item in docs:
        row = _make_row(item.doc, item.image, explain)
        mentions = sorted([*line.get("mentions", ()), *row["mentions"]], key=lambda each: (each["start"], each["end"]))
        # with labels_discard, the first doc may have had no mention to link and so read no image
        line |= row | {"mentions": mentions}
    return {**place, **line}


def _make_row(doc: Doc, image: str | None, explain: Explain | None) -> dict[str, Any]:
    candidates_by_span = candidate_rows(doc)
    mentions = []
    for ent in doc.ents:
        start, end, kb_id = ent.start_char, ent.end_char, ent.kb_id_ or NIL
        candidates = candidates_by_span.get((start, end), [])
        best = next((candidate for candidate in candidates if candidate["kb_id"] == kb_id), None)
        answer = {"kb_id": kb_id, "name": best and best["name"], "score": best and best["score"]}
        scores = {"probability": probability_of(kb_id, candidates), "candidates": candidates}
        mentions.append({"start": start, "end": end, "label": ent.label_, "text": ent.text, **answer, **scores})
        if explain is not None and candidates:
            mentions[-1]["explanation"] = explain(ent)
    row = {"id": doc.user_data["id"]} if "id" in doc.user_data else {}
    row |= {"text": doc.text, "mentions": mentions} | ({} if image is None else {"image": image})
    return row | ({"unreadable_image": True} if has_unreadable_image(doc) else {})
