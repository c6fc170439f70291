"""Link a file of documents: JSON lines or .spacy in, JSON lines out."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm

from spacy_gemel.data.docs import doc_from_record
from spacy_gemel.data.jsonl import read_jsonl
from spacy_gemel.data.overlaps import split_overlaps
from spacy_gemel.data.reader import make_example, read_docs
from spacy_gemel.data.records import Problem
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.pipeline.loaded import candidate_rows, entity_pipes, linker_of, probability_of
from spacy_gemel.pipeline.user_data import has_unreadable_image
from spacy_gemel.utils.files import write_whole

_ONLY_URL = "it is a URL: fetch-images downloads it, convert with --images makes a .spacy file that link takes"


@dataclass(slots=True)
class LinkReport:
    """How many docs and mentions were linked, and what was left out.

    unreadable_image: docs whose image could not be read, so that their mentions were linked from the text alone.
    """

    docs: int = 0
    mentions: int = 0
    nil: int = 0
    unreadable_image: int = 0
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Item:
    """A doc on its way through the pipeline; `image` is what the output says, `given` whether it has its
    mentions, `further` whether it has those of the doc before it that overlap others.
    """

    doc: Doc
    given: bool
    image: str | None
    further: bool = False


def link_file(
    nlp: Language, source: Path, out: Path, *, batch_size: int | None = None, progress: bool = True
) -> LinkReport:
    """Link every doc of `source` and write one JSON line per doc to `out`, in the same order.

    source: JSON lines, a .spacy file or a folder of .spacy files. A doc that comes with mentions is linked at those,
    also where they overlap; for one that does not, the pipeline's own NER is asked. Lines that cannot be read are left
    out and reported. A doc whose image could not be read is linked from its text, and its line says
    "unreadable_image": true.
    Raises ValueError where there is no linker in the pipeline or no doc in the source, OSError where a file is not
    there.
    """
    linker_of(nlp)
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder")
    report = LinkReport()
    if source.is_dir() or source.suffix == ".spacy":
        items = _items_of_docs(nlp, source, out.parent)
    else:
        items = _items_of_jsonl(nlp, source, out.parent, report)
    size = batch_size or nlp.batch_size
    with (
        write_whole(out) as partial,
        partial.open("w", encoding="utf-8", newline="\n") as lines,
        tqdm(desc=f"link {source.name}", unit=" docs", disable=not progress) as bar,
    ):
        for row in _rows(nlp, items, size):
            report.docs += 1
            report.mentions += len(row["mentions"])
            report.nil += sum(mention["kb_id"] == NIL for mention in row["mentions"])
            report.unreadable_image += row.get("unreadable_image", False)
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            bar.update()
        if not report.docs:
            first = f"; the first: {report.problems[0]}" if report.problems else ""
            raise ValueError(f"{source}: not one usable doc in it, so nothing was written{first}")
    return report


def _items_of_jsonl(nlp: Language, source: Path, out_folder: Path, report: LinkReport) -> Iterator[_Item]:
    for record in read_jsonl(source):
        if isinstance(record, Problem):
            report.problems.append(record)
            continue
        image = None if record.image is None else str((record.folder / record.image).absolute())
        if record.image_url is not None:
            report.problems.append(Problem(record.where, "image", _ONLY_URL, record.image_url))
        records, overlapping = split_overlaps(record)
        report.problems.extend(overlapping)
        for part in records:
            asked = None if part.mentions is None else tuple(replace(mention, kb_id="") for mention in part.mentions)
            doc, problems, _ = doc_from_record(replace(part, mentions=asked), nlp.make_doc, image)
            report.problems.extend(problems)
            shown = record.image_path_from(out_folder) or record.image_url
            yield _Item(doc, given=part.mentions is not None, image=shown, further=part.rows == 0)


def _items_of_docs(nlp: Language, source: Path, out_folder: Path) -> Iterator[_Item]:
    for reference in read_docs(source, nlp.vocab):
        # a token without an IOB mark was never annotated, which is not the same as outside every mention
        given = reference.has_annotation("ENT_IOB")
        doc = make_example(nlp, reference, gold_ents=given).predicted
        image = doc.user_data.get("image")
        url = doc.user_data.get("image_url")
        shown = Path(os.path.relpath(image, out_folder)).as_posix() if isinstance(image, str) else url
        yield _Item(doc, given=given, image=shown)


def _rows(nlp: Language, items: Iterator[_Item], size: int) -> Iterator[dict[str, Any]]:
    """What is written of each doc, the mentions of further ones with those that they overlap."""
    last: dict[str, Any] | None = None
    while batch := list(islice(items, size)):
        for item, doc in zip(batch, _link(nlp, batch), strict=True):
            row = _row_of(doc, item)
            if item.further and last is not None:
                mentions = [*last["mentions"], *row["mentions"]]
                last["mentions"] = sorted(mentions, key=lambda mention: (mention["start"], mention["end"]))
                if row.get("unreadable_image"):  # labels_discard may leave the first part none to link
                    last["unreadable_image"] = True
                continue
            if last is not None:
                yield last
            last = row
    if last is not None:
        yield last


def _link(nlp: Language, batch: Sequence[_Item]) -> Iterable[Doc]:
    """Run the pipeline, without its NER for the docs that have their mentions; in the order of the batch."""
    linked: dict[int, Doc] = {}
    for given in (True, False):
        chosen = [number for number, item in enumerate(batch) if item.given is given]
        if chosen:
            with nlp.select_pipes(disable=entity_pipes(nlp)) if given else nullcontext():
                docs = nlp.pipe((batch[number].doc for number in chosen), batch_size=len(chosen))
                linked.update(zip(chosen, docs, strict=True))
    return [linked[number] for number in range(len(batch))]


def _row_of(doc: Doc, item: _Item) -> dict[str, Any]:
    candidates = candidate_rows(doc)
    row: dict[str, Any] = {"text": doc.text, "mentions": []}
    if "id" in doc.user_data:
        row = {"id": doc.user_data["id"], **row}
    if item.image is not None:
        row["image"] = item.image
    if has_unreadable_image(doc):
        row["unreadable_image"] = True
    for ent in doc.ents:
        found = candidates.get((ent.start_char, ent.end_char), [])
        kb_id = ent.kb_id_ or NIL
        best = next((c for c in found if c["kb_id"] == kb_id), None)
        row["mentions"].append(
            {
                "start": ent.start_char,
                "end": ent.end_char,
                "label": ent.label_,
                "text": ent.text,
                "kb_id": kb_id,
                "name": best and best["name"],
                "score": best and best["score"],
                "probability": probability_of(kb_id, found),
                "candidates": found,
            }
        )
    return row
