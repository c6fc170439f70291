"""`report`: one HTML page from what `evaluate` wrote."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import one_line_errors


def report(
    metrics: Annotated[list[Path], typer.Argument(metavar="METRICS...", help="Files that evaluate wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for index.html.")],
    train: Annotated[
        Path | None,
        typer.Option("--train", metavar="DATA", help="Docs that the demonstrations are from, to show their pictures."),
    ] = None,
) -> None:
    """Write one HTML page: the settings side by side, and all linked mentions with their pictures."""
    with one_line_errors():
        from spacy_gemel.evaluation.report import write_report

        typer.echo(str(write_report(metrics, output, train)))
