"""Conversion of data sets to spaCy's DocBin. To add a data set, add its reader to CONVERTERS."""

import hashlib
import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_gemel.data.datasets.alignment import NOT_FOUND, PART_OF_WORD, VERBATIM
from spacy_gemel.data.datasets.annotation_tools import read_label_studio, read_prodigy
from spacy_gemel.data.datasets.gemel import read_gemel
from spacy_gemel.data.datasets.melbench import read_melbench, read_mimic
from spacy_gemel.data.datasets.parquet import read_parquet
from spacy_gemel.data.datasets.wikidiverse import read_wikidiverse
from spacy_gemel.data.fetch.urls import local_image
from spacy_gemel.data.jsonl import read_jsonl
from spacy_gemel.data.records import GIVEN_OFFSETS, Problem, Record, split_overlaps
from spacy_gemel.data.report import ReasonCounter, report_path, write_report
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.utils.files import write_whole
from spacy_gemel.utils.messages import one_line

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import DocBin

# by the names of the data sets; a reader takes SRC and, by name, `images` and `features` if it has these parameters
DatasetReader = Callable[..., Iterator[Record | Problem]]
CONVERTERS: dict[str, DatasetReader] = {
    "jsonl": read_jsonl,
    "gemel": read_gemel,
    "label-studio": read_label_studio,
    "mimic": read_mimic,
    "parquet": read_parquet,
    "prodigy": read_prodigy,
    "richpediamel": read_melbench,
    "wikidiverse": read_wikidiverse,
    "wikimel": read_melbench,
}

_MAX_LISTED = 100
_CONTEXT = 20


class ConvertReport:
    """What a conversion read, converted and left out, by reason.

    `stopped` is the error that ended it before OUT was written. `problems` and `inside_words`, the mentions that were
    found only inside a longer word, list the first hundred.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.stopped: str | None = None
        self.rows = Counter(read=0, kept=0)
        self.docs = Counter(written=0, for_overlapping_mentions=0)
        self.not_annotated = 0
        self.mentions = Counter(kept=0, merged=0, widened_to_tokens=0, nil=0, unannotated=0)
        self.rules: Counter[str] = Counter()
        self.images = Counter(named=0, missing=0)
        self.image_urls = Counter(image_urls=0, image_urls_without_a_file=0)
        self.features = 0
        self.dropped = {what: ReasonCounter() for what in ("row", "mention", "features")}
        self.problems: list[str] = []
        self.inside_words: list[str] = []

    def add(self, problem: Problem) -> None:
        """Count a problem, and list it if it is among the first."""
        self.rows["read"] += problem.what == "row"
        self.dropped[problem.what].add(problem.reason)
        if len(self.problems) < _MAX_LISTED:
            self.problems.append(str(problem))

    def add_record(self, record: Record, *, image_exists: bool) -> None:
        """Count a record, before its mentions become entities."""
        self.rows.update(read=record.rows, kept=record.rows)
        self.docs.update(written=1, for_overlapping_mentions=int(record.rows == 0))
        self.not_annotated += record.mentions is None
        self.mentions["merged"] += record.merged
        for mention in record.mentions or ():
            self.rules[mention.rule] += 1
            if mention.rule == PART_OF_WORD and len(self.inside_words) < _MAX_LISTED:
                text, start, end = record.text, mention.start, mention.end
                context = f"{text[max(0, start - _CONTEXT) : start]}[{text[start:end]}]{text[end : end + _CONTEXT]}"
                self.inside_words.append(f"{record.location}: {context}")
        self.images["named"] += record.image is not None
        self.images["missing"] += record.image is not None and not image_exists
        self.image_urls["image_urls"] += record.image_url is not None
        self.image_urls["image_urls_without_a_file"] += record.image_url is not None and record.image is None
        self.features += record.image_features is not None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for OUT.report.json."""
        dropped = {what: dict(sorted(counter.items())) for what, counter in self.dropped.items()}
        counts = dict(self.mentions)
        merged = counts.pop("merged")
        read = counts["kept"] + merged + sum(dropped["mention"].values())
        exact_rules = {"by_given_offsets": GIVEN_OFFSETS, "verbatim": VERBATIM, "part_of_a_longer_word": PART_OF_WORD}
        reasons = {reason: n for reason, n in dropped["mention"].items() if reason.startswith(NOT_FOUND)}
        return {
            "source": self.source,
            "stopped": self.stopped,
            "rows": {**self.rows, "dropped": dropped["row"]},
            "docs": self.docs if self.stopped is None else {**self.docs, "written": 0},
            "docs_not_annotated": self.not_annotated,
            "mentions": {"read": read, **counts, "dropped": dropped["mention"]},
            "alignment": {
                **{key: self.rules[rule] for key, rule in exact_rules.items()},
                "tolerant": {rule: n for rule, n in sorted(self.rules.items()) if rule not in exact_rules.values()},
                "not_found": {reason.removeprefix(NOT_FOUND): n for reason, n in reasons.items()},
                "same_mention_listed_again": merged,
            },
            "images": self.images,
            **self.image_urls,
            "features": {"found": self.features, "missing": dropped["features"]},
            "found_inside_a_longer_word": self.inside_words,
            "problems": self.problems,
        }

    def summary(self) -> str:
        """A few lines for a person."""
        rows, docs, mentions, dropped = self.rows, self.docs, self.mentions, self.dropped
        lines = [
            f"rows: {rows['read']} read, {rows['kept']} converted, {dropped['row'].total()} left out",
            *dropped["row"].lines("row: "),
            f"docs: {docs['written']} written, {docs['for_overlapping_mentions']} of them for mentions that overlap "
            "others",
            f"mentions: {mentions['kept']} converted, {dropped['mention'].total()} left out, "
            f"{mentions['merged']} merged (of the converted: {mentions['nil']} NIL, {mentions['unannotated']} without "
            f"an entity, {mentions['widened_to_tokens']} widened to whole tokens)",
            *dropped["mention"].lines("mention: "),
        ]
        if self.not_annotated:
            lines.append(f"  {self.not_annotated} docs have no field mentions, which does not mean that they have none")
        if self.rules.total() > self.rules[GIVEN_OFFSETS]:
            alignment = self.to_dict()["alignment"]
            lines.append(
                f"alignment: {alignment['verbatim']} verbatim, {sum(alignment['not_found'].values())} not found"
            )
            lines += [f"  {n} x found by the rule: {rule}" for rule, n in alignment["tolerant"].items()]
            if self.inside_words:
                lines.append(f"  {self.rules[PART_OF_WORD]} x found only inside a longer word: the report lists them")
        lines.append(f"images: {self.images['named']} named, {self.images['missing']} not found")
        if without_a_file := self.image_urls["image_urls_without_a_file"]:
            lines.append(
                f"  {without_a_file} docs have only the URL of their image: download the images with fetch-images, and "
                "give its folder as --images"
            )
        if self.features or dropped["features"]:
            lines.append(f"features: {self.features} found, {dropped['features'].total()} missing")
            lines += dropped["features"].lines()
        return "\n".join(lines + [f"  {problem}" for problem in self.problems[:5]])


def convert(
    dataset: str,
    source: Path,
    out: Path,
    *,
    lang: str = "en",
    images: Path | None = None,
    features: Path | None = None,
    progress: bool = True,
) -> ConvertReport:
    """Write `source` as a DocBin to `out`, and the report beside it, even if the conversion fails.

    The options are those of the command `convert`, and `dataset` is a name in CONVERTERS. Images are stored by
    reference: `doc.user_data["image"]` is a path relative to the folder of `out`. Pictures that `source` holds itself
    become files in the folder OUT.images beside it, named by their content. Rows that cannot be read are counted
    and left out; mentions that overlap an earlier one go into a further doc. Raises ValueError for wrong arguments and
    if no row is usable, OSError for files, ImportError if `features` need a package that is not installed.
    """
    from tqdm import tqdm

    from spacy_gemel.data.reader import blank_pipeline

    if dataset not in CONVERTERS:
        raise ValueError(f"unknown data set {dataset!r}: there are {', '.join(CONVERTERS)}")
    if out.suffix != ".spacy":
        raise ValueError(f"{out}: the output must end in .spacy, because spaCy finds its corpora by that")
    if source.is_dir() and dataset != "parquet":
        files = sorted(file.name for file in source.iterdir() if file.suffix in (".json", ".jsonl"))
        listing = f"there are {', '.join(files[:10])}" if files else "there is no .json or .jsonl file in it"
        raise ValueError(f"{source}: a folder; convert each of its files with a command of its own: {listing}")
    if not source.exists():
        raise ValueError(f"{source}: no such file")
    if images is not None and not images.is_dir():
        raise ValueError(f"{images}: no such folder of images")
    parameters = {name: inspect.signature(reader).parameters for name, reader in CONVERTERS.items()}
    if features is not None and "features" not in parameters[dataset]:
        takers = ", ".join(name for name in CONVERTERS if "features" in parameters[name])
        raise ValueError(f"{dataset} does not take --features: it is for {takers}")
    # a reader without `images` may still have image URLs, whose files are looked up later
    options = {"images": images, "features": features}
    options = {name: path for name, path in options.items() if path is not None and name in parameters[dataset]}
    nlp = blank_pipeline(lang)
    report = ConvertReport(str(source))
    try:
        records = CONVERTERS[dataset](source, **options)
        bar = tqdm(records, desc=f"convert {source.name}", unit=" rows", disable=not progress)
        docs = _make_docs(bar, nlp, out, images, report)
        if not report.rows["kept"]:
            first = f"; the first: {report.problems[0]}" if report.problems else ""
            raise ValueError(
                f"{source}: none of its {report.rows['read']} rows is usable, so {out} was not written{first} "
                f"({report_path(out)} has all of them)"
            )
        with write_whole(out) as partial:
            partial.write_bytes(docs.to_bytes())
    except BaseException as error:  # the report is written however the conversion ends
        report.stopped = f"{type(error).__name__}: {one_line(error)}"
        with suppress(OSError):  # the first error is the one to raise
            write_report(out, report.to_dict())
        raise
    write_report(out, report.to_dict())
    return report


def _make_docs(
    rows: Iterable[Record | Problem], nlp: "Language", out: Path, images: Path | None, report: ConvertReport
) -> "DocBin":
    """Make the docs and count them in the report; image paths become relative to the folder of `out`."""
    from spacy.tokens import DocBin

    from spacy_gemel.data.reader import doc_from_record

    docs = DocBin(store_user_data=True)
    for row in rows:
        if isinstance(row, Problem):
            report.add(row)
            continue
        if row.picture is not None:
            row = _write_picture(row, out.with_suffix(".images"))
        if images is not None and row.image_url is not None:  # fetch-images may have downloaded it
            path = local_image(row.image_url, images)
            row = row if path is None else replace(row, image=path.name, folder=path.parent)
        records, problems = split_overlaps(row)
        for record in records:
            # a name that no file can have, such as a data URI, is an OSError for pathlib and False for os.path
            report.add_record(record, image_exists=os.path.isfile(record.folder / (record.image or "")))  # noqa: PTH113
            doc, not_covered, widened = doc_from_record(record, nlp.make_doc, record.image_path_from(out.parent))
            problems += not_covered
            report.mentions["kept"] += len(doc.ents)
            report.mentions["widened_to_tokens"] += widened
            report.mentions["nil"] += sum(ent.kb_id_ == NIL for ent in doc.ents)
            report.mentions["unannotated"] += sum(ent.kb_id_ == "" for ent in doc.ents)
            docs.add(doc)
        for problem in problems:
            report.add(problem)
    return docs


def _write_picture(record: Record, folder: Path) -> Record:
    """Write a record's picture, unless the folder has it, and name it as the image. Raises OSError."""
    name = hashlib.sha256(record.picture or b"").hexdigest()
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with write_whole(folder / name) as partial:
            partial.write_bytes(record.picture or b"")
    return replace(record, image=name, folder=folder, picture=None)
