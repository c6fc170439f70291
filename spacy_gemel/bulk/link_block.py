"""Link a block of rows: each has a line of the output, or a reason why it has none."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc, Span

from spacy_gemel.bulk.sources import SourceRow
from spacy_gemel.data.reader import doc_from_record, make_example
from spacy_gemel.data.records import Problem, Record, split_overlaps
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.pipeline.loaded_pipeline import entity_pipes, linker_of
from spacy_gemel.pipeline.user_data import candidate_rows, doc_id, has_unreadable_image, probability_of, reasons_in
from spacy_gemel.utils.messages import one_line

_ONLY_URL = "it is a URL: fetch-images downloads it, convert with --images makes a .spacy file that link takes"
Explain = Callable[[Span], dict[str, Any]]


@dataclass(slots=True)
class LinkedBlock:
    """The lines of the rows that were linked, the rows that failed with their reasons, and all faults in words."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def fail(self, row: SourceRow, reason: str, doc: Doc | None = None) -> None:
        """Note that a row has no line; its doc, if it was read, gives the id."""
        id_ = None if doc is None else doc_id(doc)
        self.failed.append({**row.place, **({} if id_ is None else {"id": id_}), "reason": reason})
        self.problems.append(f"{row.location}: row left out: {reason}")


@dataclass(frozen=True, slots=True)
class _Input:
    """A doc to link, and its image as the output names it."""

    doc: Doc
    image: str | None
    has_mentions: bool  # else the pipeline's NER finds them


class RowError(Exception):
    """Why a row of the input has no output."""


class _TooSlow(BaseException):
    """No Exception, so that no pipe takes it for one of its own."""


_ENDS = (KeyboardInterrupt, SystemExit, GeneratorExit)  # of the run; anything else is a fault of one row


def reason_of(error: BaseException) -> str:
    """An error as a reason in the output."""
    if isinstance(error, RowError | _TooSlow):
        return str(error)
    return f"{type(error).__name__}: {one_line(error)}"


def link_block(
    nlp: Language,
    block: Sequence[SourceRow],
    folder: Path,
    *,
    explain: bool = False,
    doc_seconds: float | None = None,
) -> LinkedBlock:
    """Link some rows together; a row that fails, whatever its error, takes no other with it.

    Args:
        nlp: The pipeline.
        block: The rows.
        folder: What images' paths in the output are relative to.
        explain: Give each mention an "explanation".
        doc_seconds: A doc that takes longer fails; None for no limit.
    """
    result, explainer = LinkedBlock(), linker_of(nlp).explain if explain else None
    errors: dict[int, BaseException] = {}  # by the row's index, as the problems of the others
    read: dict[int, tuple[list[_Input], list[Problem]]] = {}
    for index, row in enumerate(block):
        problems: list[Problem] = []
        try:
            read[index] = _read(nlp, row, folder, problems), problems
        except _ENDS:
            raise
        except BaseException as error:
            errors[index] = error
    linked = iter(_link(nlp, [item for items, _ in read.values() for item in items], doc_seconds))
    for index, (items, problems) in read.items():
        docs = [next(linked) for _ in items]
        try:
            for doc in docs:
                if isinstance(doc, RowError):
                    raise doc
            pairs = [(doc, item.image) for doc, item in zip(docs, items, strict=True) if isinstance(doc, Doc)]
            with _time_limit(doc_seconds if explain else None):
                line = _make_line(pairs, block[index].place, explainer)
        except _ENDS:
            raise
        except BaseException as error:
            errors[index] = error
        else:
            left_out = [f"{each.what}: {each.why}" for each in problems]
            result.lines.append(line | ({"left_out": left_out} if left_out else {}))
    for index, row in enumerate(block):
        items, problems = read.get(index, ([], []))
        result.problems += map(str, problems)
        if index in errors:
            result.fail(row, reason_of(errors[index]), items[0].doc if items else None)
    return result


def _read(nlp: Language, row: SourceRow, folder: Path, problems: list[Problem]) -> list[_Input]:
    """The docs of a row; raises RowError with the reason if it has none."""
    inputs = []
    for item in row.read():
        if isinstance(item, Problem):
            if item.what == "row":
                raise RowError(item.why)
            problems.append(item)
        elif isinstance(item, Doc):
            # a token without an IOB tag was never annotated, which is not the same as outside every mention
            has_mentions = item.has_annotation("ENT_IOB")
            doc = make_example(nlp, item, gold_ents=has_mentions).predicted
            image, output_image = doc.user_data.get("image"), doc.user_data.get("image_url")
            if isinstance(image, str):
                output_image = Path(os.path.relpath(image, folder)).as_posix()
            output_image = output_image if isinstance(output_image, str) else None
            inputs.append(_Input(doc, output_image, has_mentions))
        else:
            inputs += _inputs_of(nlp, item, folder, problems)
    return inputs


def _inputs_of(nlp: Language, record: Record, folder: Path, problems: list[Problem]) -> Iterator[_Input]:
    if record.image_url is not None:
        problems.append(Problem(record.location, "image", _ONLY_URL, record.image_url))
    image = None if record.image is None else str((record.folder / record.image).absolute())
    output_image = record.image_path_from(folder) or record.image_url
    layers, merged = split_overlaps(record)
    problems += merged
    for layer in layers:
        has_mentions = layer.mentions is not None
        if layer.mentions is not None:  # the linker must not see the gold ids
            layer = replace(layer, mentions=tuple(replace(mention, kb_id="") for mention in layer.mentions))
        doc, not_covered, _ = doc_from_record(layer, nlp.make_doc, image)
        problems += not_covered
        yield _Input(doc, output_image, has_mentions)


def _link(nlp: Language, inputs: Sequence[_Input], doc_seconds: float | None) -> "list[Doc | RowError]":
    """Run the pipeline, without its NER for docs that have mentions; a doc that fails takes no other with it."""
    linked: list[Doc | RowError] = [RowError("a pipe's error handler has left it out")] * len(inputs)

    def run(indices: Sequence[int]) -> None:
        seconds = None if doc_seconds is None else doc_seconds * len(indices)
        try:
            with _time_limit(seconds):
                stream = ((inputs[index].doc, index) for index in indices)
                for doc, index in nlp.pipe(stream, as_tuples=True, batch_size=len(indices)):
                    linked[index] = doc
        except _ENDS:
            raise
        except BaseException as error:
            if len(indices) == 1:
                linked[indices[0]] = RowError(reason_of(error))
                return
            # halves find a doc that fails soon; one that hangs takes the time of all its companions each time
            step = 1 if isinstance(error, _TooSlow) else (len(indices) + 1) // 2
            for start in range(0, len(indices), step):
                run(indices[start : start + step])

    for has_mentions in (True, False):
        indices = [index for index, item in enumerate(inputs) if item.has_mentions is has_mentions]
        if indices:
            with nlp.select_pipes(disable=entity_pipes(nlp)) if has_mentions else nullcontext():
                run(indices)
    return linked


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raise _TooSlow in the block after so long, again and again; only in the main thread, and not on Windows."""
    is_possible = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not is_possible:
        yield
        return

    def end(*_: object) -> None:
        raise _TooSlow(f"it took longer than {seconds:g} seconds")

    previous = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _make_line(
    docs: Sequence[tuple[Doc, str | None]], place: dict[str, Any], explain: Explain | None
) -> dict[str, Any]:
    """The line of the output for a row: the mentions of all its docs."""
    line: dict[str, Any] = {}
    for doc, image in docs:
        row = _make_row(doc, image, explain)
        mentions = sorted([*line.get("mentions", ()), *row["mentions"]], key=lambda each: (each["start"], each["end"]))
        # with labels_discard, the first doc may have had no mention to link and so read no image
        line |= row | {"mentions": mentions}
    return {**place, **line}


def _make_row(doc: Doc, image: str | None, explain: Explain | None) -> dict[str, Any]:
    candidates_by_span, reasons = candidate_rows(doc), reasons_in(doc)
    mentions = []
    for ent in doc.ents:
        start, end, kb_id = ent.start_char, ent.end_char, ent.kb_id_ or NIL
        candidates = candidates_by_span.get((start, end), [])
        best = next((candidate for candidate in candidates if candidate["kb_id"] == kb_id), None)
        answer = {"kb_id": kb_id, "name": best and best["name"], "score": best and best["score"]}
        scores = {"probability": probability_of(kb_id, candidates), "candidates": candidates}
        mentions.append({"start": start, "end": end, "label": ent.label_, "text": ent.text, **answer, **scores})
        if reason := reasons.get((start, end)):
            mentions[-1]["reason"] = reason
        if explain is not None and candidates:
            mentions[-1]["explanation"] = explain(ent)
    row: dict[str, Any] = {} if (value := doc_id(doc)) is None else {"id": value}
    row |= {"text": doc.text, "mentions": mentions} | ({} if image is None else {"image": image})
    return row | ({"unreadable_image": True} if has_unreadable_image(doc) else {})
