"""Link a file of documents: JSON lines or .spacy in, JSON lines out."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc, Span
from tqdm import tqdm

from spacy_gemel.data.jsonl import read_jsonl
from spacy_gemel.data.reader import doc_from_record, make_example, read_docs
from spacy_gemel.data.records import Problem, split_overlaps
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.pipeline.loaded_pipeline import entity_pipes, linker_of
from spacy_gemel.pipeline.user_data import candidate_rows, has_unreadable_image, probability_of
from spacy_gemel.utils.files import write_whole

_ONLY_URL = "it is a URL: fetch-images downloads it, convert with --images makes a .spacy file that link takes"


@dataclass(slots=True)
class LinkReport:
    """How many docs and mentions were linked, how many docs without their image, and what was left out."""

    docs: int = 0
    mentions: int = 0
    nil: int = 0
    unreadable_image: int = 0
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Input:
    """A doc to link, and its image as the output names it."""

    doc: Doc
    image: str | None
    has_mentions: bool  # else the pipeline's NER finds them
    is_continuation: bool = False  # its mentions overlap those of the doc before, which has the same text


def link_file(
    nlp: Language,
    source: Path,
    out: Path,
    *,
    batch_size: int | None = None,
    explain: bool = False,
    progress: bool = True,
) -> LinkReport:
    """Link every doc of `source` and write one JSON line per doc to `out`, in the same order.

    `source` is a file of JSON lines, a .spacy file or a folder of .spacy files. The mentions that it gives are linked,
    even if they overlap; for a doc without them the pipeline's own NER is asked. Lines that cannot be read are left out
    and reported. A doc whose image cannot be read is linked from its text: its line says "unreadable_image": true.
    With `explain` each mention has an "explanation", at the cost of linking it a few times more.

    Raises ValueError if the pipeline has no linker or the source has no usable doc, and OSError for the files.
    """
    linker = linker_of(nlp)
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder")
    report = LinkReport()
    if source.is_dir() or source.suffix == ".spacy":
        inputs = _inputs_from_docs(nlp, source, out.parent)
    else:
        inputs = _inputs_from_jsonl(nlp, source, out.parent, report)
    with (
        write_whole(out) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as lines,
        tqdm(desc=f"link {source.name}", unit=" docs", disable=not progress) as bar,
    ):
        for row in _output_rows(nlp, inputs, batch_size or nlp.batch_size, linker.explain if explain else None):
            report.docs += 1
            report.mentions += len(row["mentions"])
            report.nil += sum(mention["kb_id"] == NIL for mention in row["mentions"])
            report.unreadable_image += row.get("unreadable_image", False)
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            bar.update()
        if not report.docs:
            first = f"; the first: {report.problems[0]}" if report.problems else ""
            raise ValueError(f"{source}: it has no usable doc, so nothing was written{first}")
    return report


def _inputs_from_jsonl(nlp: Language, source: Path, out_folder: Path, report: LinkReport) -> Iterator[_Input]:
    for row in read_jsonl(source):
        if isinstance(row, Problem):
            report.problems.append(row)
            continue
        if row.image_url is not None:
            report.problems.append(Problem(row.location, "image", _ONLY_URL, row.image_url))
        image = None if row.image is None else str((row.folder / row.image).absolute())
        output_image = row.image_path_from(out_folder) or row.image_url
        records, problems = split_overlaps(row)
        for record in records:
            has_mentions = record.mentions is not None
            if record.mentions is not None:  # the linker must not see the gold ids
                record = replace(record, mentions=tuple(replace(mention, kb_id="") for mention in record.mentions))
            doc, not_covered, _ = doc_from_record(record, nlp.make_doc, image)
            problems += not_covered
            yield _Input(doc, output_image, has_mentions, is_continuation=record.rows == 0)
        report.problems += problems


def _inputs_from_docs(nlp: Language, source: Path, out_folder: Path) -> Iterator[_Input]:
    for reference in read_docs(source, nlp.vocab):
        # a token without an IOB tag was never annotated, which is not the same as outside every mention
        has_mentions = reference.has_annotation("ENT_IOB")
        doc = make_example(nlp, reference, gold_ents=has_mentions).predicted
        image, output_image = doc.user_data.get("image"), doc.user_data.get("image_url")
        if isinstance(image, str):
            output_image = Path(os.path.relpath(image, out_folder)).as_posix()
        yield _Input(doc, output_image, has_mentions)


Explain = Callable[[Span], dict[str, Any]]


def _output_rows(
    nlp: Language, inputs: Iterator[_Input], batch_size: int, explain: Explain | None
) -> Iterator[dict[str, Any]]:
    """The lines of the output: those of docs with the same text and image are merged."""
    last: dict[str, Any] | None = None
    while batch := list(islice(inputs, batch_size)):
        for item, doc in zip(batch, _link(nlp, batch), strict=True):
            row = _make_row(doc, item.image, explain)
            if item.is_continuation and last is not None:
                mentions = [*last["mentions"], *row["mentions"]]
                # with labels_discard, the first doc may have had no mention to link and so read no image
                last |= row | {"mentions": sorted(mentions, key=lambda mention: (mention["start"], mention["end"]))}
                continue
            if last is not None:
                yield last
            last = row
    if last is not None:
        yield last


def _link(nlp: Language, batch: Sequence[_Input]) -> Iterable[Doc]:
    """Run the pipeline on a batch, without its NER for docs that have mentions; returns docs in the same order."""
    linked: dict[int, Doc] = {}
    for has_mentions in (True, False):
        indices = [index for index, item in enumerate(batch) if item.has_mentions is has_mentions]
        if indices:
            with nlp.select_pipes(disable=entity_pipes(nlp)) if has_mentions else nullcontext():
                docs = nlp.pipe((batch[index].doc for index in indices), batch_size=len(indices))
                linked.update(zip(indices, docs, strict=True))
    return [linked[index] for index in range(len(batch))]


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
