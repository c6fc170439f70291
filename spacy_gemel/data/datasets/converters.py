"""Converters of data sets to spaCy's DocBin. A further data set is one more function in CONVERTERS."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import srsly
from tqdm import tqdm

from spacy_gemel.data.datasets.convert_report import ConvertReport
from spacy_gemel.data.datasets.gemel import read_gemel
from spacy_gemel.data.datasets.image_folder import open_folder
from spacy_gemel.data.datasets.melbench import read_richpediamel, read_wikimel
from spacy_gemel.data.datasets.mimic import read_mimic
from spacy_gemel.data.datasets.wikidiverse import read_wikidiverse
from spacy_gemel.data.fetch.index import local_image
from spacy_gemel.data.jsonl import read_jsonl
from spacy_gemel.data.overlaps import apart
from spacy_gemel.data.records import Problem, Record
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.utils.files import write_whole

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import DocBin

DatasetReader = Callable[..., Iterator[Record | Problem]]
"""Takes SRC as a Path and, by name, those of `images` and `features` (Path or None) that it knows."""

CONVERTERS: dict[str, DatasetReader] = {
    "jsonl": read_jsonl,
    "gemel": read_gemel,
    "mimic": read_mimic,
    "richpediamel": read_richpediamel,
    "wikidiverse": read_wikidiverse,
    "wikimel": read_wikimel,
}
"""Data set name -> function that yields its records and problems from SRC."""

_USUAL_FILES = (".json", ".jsonl")


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
    """Write `source` as a DocBin at `out`, and in any case the report beside it as `out` + ".report.json".

    Images go in by reference: `doc.user_data["image"]` is a path relative to the folder of `out`; images: the folder
    where a data set's image files lie, or one that `fetch-images` filled for the URLs that it names. features: an HDF5
    file of image features, which go into `doc.user_data["image_features"]`, float32 (d_v,). Rows that cannot be read
    are counted and left out; of mentions that overlap, those after the first go into a further doc. Raises ValueError
    for an unknown data set or language, an option that the data set has no use for, an `out` that does not end in
    .spacy, a source that is no such file at all, or where no row is usable; OSError where a file cannot be read or
    written; ImportError where the features need a package that is not there.
    """
    if dataset not in CONVERTERS:
        raise ValueError(f"unknown data set {dataset!r}: there are {', '.join(CONVERTERS)}")
    if out.suffix != ".spacy":
        raise ValueError(f"{out}: the output must end in .spacy, as spaCy finds its corpora by that")
    _check_source(source)
    options = {name: path for name, path in (("images", images), ("features", features)) if path is not None}
    _check_options(dataset, options)
    nlp = _blank(lang)
    report = ConvertReport(source=str(source))
    known = inspect.signature(CONVERTERS[dataset]).parameters
    with _reported(report, out):
        records = CONVERTERS[dataset](source, **{name: path for name, path in options.items() if name in known})
        bar = tqdm(records, desc=f"convert {source.name}", unit=" rows", disable=not progress)
        docs = _docs_of(bar, nlp, out.parent, images, report)
        if not report.rows_kept:
            first = f"; the first: {report.listed[0]}" if report.listed else ""
            raise ValueError(
                f"{source}: not one usable row of {report.rows_read}, so {out} was not written{first} "
                f"({report_path(out)} has all of them)"
            )
        with write_whole(out) as partial:
            partial.write_bytes(docs.to_bytes())
    return report


@contextmanager
def _reported(report: ConvertReport, out: Path) -> Iterator[None]:
    """Write the report however the conversion ends: what was read until then, and what ended it."""
    try:
        yield
    except BaseException as error:
        report.stopped = " ".join(f"{type(error).__name__}: {error}".split())
        with suppress(OSError):  # of the two errors the first is the one to tell
            _write_report(report, out)
        raise
    _write_report(report, out)


def _write_report(report: ConvertReport, out: Path) -> None:
    with write_whole(report_path(out)) as partial:
        partial.write_text(srsly.json_dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")


def _docs_of(
    records: Iterable[Record | Problem], nlp: "Language", folder: Path, images: Path | None, report: ConvertReport
) -> "DocBin":
    """The docs, all counted in the report; folder: where they are going to lie, which image paths are relative to."""
    from spacy.tokens import DocBin

    from spacy_gemel.data.docs import doc_of

    docs = DocBin(store_user_data=True)
    for row in records:
        if isinstance(row, Problem):
            report.add(row)
            continue
        split = apart(row if images is None else _with_fetched(row, images))
        for problem in split.problems:
            report.add(problem)
        for record in split.records:
            report.add_record(
                record, image_is_there=record.image is not None and _is_file(record.folder / record.image)
            )
            doc, problems, widened = doc_of(record, nlp.make_doc, record.image_for(folder))
            for problem in problems:
                report.add(problem)
            report.mentions_kept += len(doc.ents)
            report.mentions_widened += widened
            report.mentions_nil += sum(ent.kb_id_ == NIL for ent in doc.ents)
            report.mentions_unannotated += sum(ent.kb_id_ == "" for ent in doc.ents)
            docs.add(doc)
    return docs


def report_path(out: Path) -> Path:
    """Where the report of a conversion to `out` lies."""
    return out.with_name(out.name + ".report.json")


def _check_source(source: Path) -> None:
    if source.is_dir():
        files = sorted(file.name for file in source.iterdir() if file.suffix in _USUAL_FILES)
        there = f"there are {', '.join(files[:10])}" if files else "there is no .json or .jsonl file in it"
        raise ValueError(
            f"{source}: a folder; give one of its files, and convert each with a command of its own: {there}"
        )
    if not source.exists():
        raise ValueError(f"{source}: no such file")


def _with_fetched(record: Record, images: Path) -> Record:
    """The record with the file that `fetch-images` put into a folder for its image's URL, if it has."""
    path = None if record.image_url is None else local_image(record.image_url, images)
    return record if path is None else replace(record, image=path.name, folder=path.parent)


def _check_options(dataset: str, options: dict[str, Path]) -> None:
    known = {*inspect.signature(CONVERTERS[dataset]).parameters, "images"}  # any data set may name images by URL
    for name in options:
        if name not in known:
            able = [other for other, reader in CONVERTERS.items() if name in inspect.signature(reader).parameters]
            raise ValueError(f"{dataset} has no use for --{name}: it is for {', '.join(sorted(able))}")
    if "images" in options:
        open_folder(options["images"])  # raises where there is none


def _blank(lang: str) -> "Language":
    import spacy

    try:
        nlp = spacy.blank(lang)
    except ImportError as error:
        raise ValueError(f"no language {lang!r} in spaCy: give its code, as in en ({error})") from error
    # only the tokeniser runs, and that needs no guard against long texts
    nlp.max_length = 10**9
    return nlp


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have, such as a data URI
        return False
