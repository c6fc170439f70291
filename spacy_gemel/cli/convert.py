"""`convert`: a data set to a .spacy file."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import Quiet, one_line_errors
from spacy_gemel.data.datasets import converters


def convert(
    dataset: Annotated[str, typer.Argument(help=f"The form of the data: {', '.join(converters.CONVERTERS)}.")],
    source: Annotated[Path, typer.Argument(metavar="SRC", help="File to read, or a folder for parquet.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.spacy", help="DocBin to write.")],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with the data set's image files, or one that fetch-images filled."),
    ] = None,
    features: Annotated[
        Path | None, typer.Option(metavar="FILE.h5", help="HDF5 file with the data set's image features; needs h5py.")
    ] = None,
    lang: Annotated[str, typer.Option(help="spaCy language whose tokenizer to use.")] = "en",
    quiet: Quiet = False,
) -> None:
    """Convert a data set with images to a .spacy file; OUT.spacy.report.json says what was left out."""
    with one_line_errors():
        report = converters.convert(
            dataset, source, out, lang=lang, images=images, features=features, progress=not quiet
        )
        typer.echo(f"{out}\n{report.summary()}")
