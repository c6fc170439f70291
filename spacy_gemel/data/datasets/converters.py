"""Conversion of data sets to spaCy's DocBin. To add a data set, add its reader to CONVERTERS."""

import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spacy_gemel.data.datasets.convert_report import ConvertReport
from spacy_gemel.data.datasets.gemel import read_gemel
from spacy_gemel.data.datasets.melbench import read_melbench, read_mimic
from spacy_gemel.data.datasets.wikidiverse import read_wikidiverse
from spacy_gemel.data.fetch.index import local_image
from spacy_gemel.data.jsonl import read_jsonl
from spacy_gemel.data.records import Problem, Record, split_overlaps
from spacy_gemel.data.report import report_path, write_report
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.utils.files import write_whole
from spacy_gemel.utils.messages import one_line

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import DocBin

DatasetReader = Callable[..., Iterator[Record | Problem]]
"""Takes SRC as a Path and, by name, `images` and `features` (Path or None) if it has these parameters."""

CONVERTERS: dict[str, DatasetReader] = {
    "jsonl": read_jsonl,
    "gemel": read_gemel,
    "mimic": read_mimic,
    "richpediamel": read_melbench,
    "wikidiverse": read_wikidiverse,
    "wikimel": read_melbench,
}
"""Readers by the names of their data sets; a reader yields the records and the problems of SRC."""


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

    Images are stored by reference: `doc.user_data["image"]` is a path relative to the folder of `out`. Rows that cannot
    be read are counted and left out; mentions that overlap an earlier one go into a further doc.

    Args:
        dataset: A name in CONVERTERS.
        source: The file to read.
        out: The .spacy file to write.
        lang: The spaCy language of the tokeniser.
        images: The folder of the data set's image files, or one that `fetch-images` filled for its image URLs.
        features: An HDF5 file of image features for `doc.user_data["image_features"]`, float32 (d_v,).
        progress: Show a progress bar.

    Raises:
        ValueError: for an unknown data set or language, an option that the data set does not take, an `out` that does
            not end in .spacy, a source of another form, or if no row is usable.
        OSError: if a file cannot be read or written.
        ImportError: if the features need a package that is not installed.
    """
    import spacy
    from tqdm import tqdm

    if dataset not in CONVERTERS:
        raise ValueError(f"unknown data set {dataset!r}: there are {', '.join(CONVERTERS)}")
    if out.suffix != ".spacy":
        raise ValueError(f"{out}: the output must end in .spacy, because spaCy finds its corpora by that")
    if source.is_dir():
        files = sorted(file.name for file in source.iterdir() if file.suffix in (".json", ".jsonl"))
        listing = f"there are {', '.join(files[:10])}" if files else "there is no .json or .jsonl file in it"
        raise ValueError(f"{source}: a folder; convert each of its files with a command of its own: {listing}")
    if not source.exists():
        raise ValueError(f"{source}: no such file")
    options = _reader_options(dataset, images, features)
    try:
        nlp = spacy.blank(lang)
    except ImportError as error:
        raise ValueError(f"spaCy has no language {lang!r}: give its code, such as en ({error})") from error
    nlp.max_length = 10**9  # only the tokeniser runs, which needs no guard against long texts
    report = ConvertReport(str(source))
    try:
        records = CONVERTERS[dataset](source, **options)
        bar = tqdm(records, desc=f"convert {source.name}", unit=" rows", disable=not progress)
        docs = _make_docs(bar, nlp, out.parent, images, report)
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


def _reader_options(dataset: str, images: Path | None, features: Path | None) -> dict[str, Path]:
    """The options that the data set's reader takes. Raises ValueError for one that cannot be used."""
    if images is not None and not images.is_dir():
        raise ValueError(f"{images}: no such folder of images")
    parameters = {name: inspect.signature(reader).parameters for name, reader in CONVERTERS.items()}
    if features is not None and "features" not in parameters[dataset]:
        able = ", ".join(sorted(name for name in CONVERTERS if "features" in parameters[name]))
        raise ValueError(f"{dataset} does not take --features: it is for {able}")
    # a reader without `images` may still have image URLs, whose files are looked up later
    options = {"images": images, "features": features}
    return {name: path for name, path in options.items() if path is not None and name in parameters[dataset]}


def _make_docs(
    rows: Iterable[Record | Problem], nlp: "Language", folder: Path, images: Path | None, report: ConvertReport
) -> "DocBin":
    """Make the docs and count them in the report; image paths become relative to `folder`."""
    from spacy.tokens import DocBin

    from spacy_gemel.data.docs import doc_from_record

    docs = DocBin(store_user_data=True)
    for row in rows:
        if isinstance(row, Problem):
            report.add(row)
            continue
        if images is not None and row.image_url is not None:  # fetch-images may have downloaded it
            path = local_image(row.image_url, images)
            row = row if path is None else replace(row, image=path.name, folder=path.parent)
        records, problems = split_overlaps(row)
        for record in records:
            # a name that no file can have, such as a data URI, is an OSError for pathlib and False for os.path
            report.add_record(record, image_exists=os.path.isfile(record.folder / (record.image or "")))  # noqa: PTH113
            doc, not_covered, widened = doc_from_record(record, nlp.make_doc, record.image_path_from(folder))
            problems += not_covered
            report.mentions["kept"] += len(doc.ents)
            report.mentions["widened_to_tokens"] += widened
            report.mentions["nil"] += sum(ent.kb_id_ == NIL for ent in doc.ents)
            report.mentions["unannotated"] += sum(ent.kb_id_ == "" for ent in doc.ents)
            docs.add(doc)
        for problem in problems:
            report.add(problem)
    return docs
