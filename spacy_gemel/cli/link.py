"""`link`: a file of documents in, JSON lines with their entities out."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import BatchSize, GpuId, Pipeline, Quiet, list_problems, one_line_errors


def link(
    pipeline: Pipeline,
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSON lines, a .spacy file, or a folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="JSON lines to write.")],
    explain: Annotated[
        bool, typer.Option("--explain", help="Write why each mention is linked so; much slower.")
    ] = False,
    batch_size: BatchSize = 0,
    gpu_id: GpuId = -1,
    quiet: Quiet = False,
) -> None:
    """Link documents: the mentions that they come with, else those that the pipeline's NER finds."""
    with one_line_errors():
        from spacy_gemel.bulk.link import link_file
        from spacy_gemel.pipeline.loaded_pipeline import load_pipeline

        if not source.exists():  # before the pipeline is loaded, which takes long
            raise ValueError(f"{source}: no such file or folder")
        nlp = load_pipeline(pipeline, gpu_id=gpu_id)
        report = link_file(nlp, source, out, batch_size=batch_size or None, explain=explain, progress=not quiet)
        list_problems(report.problems)
        message = f"{out}: {report.docs} docs, {report.mentions} mentions linked, {report.nil} of them NIL"
        if report.unreadable_image:
            message += f"; the image of {report.unreadable_image} docs could not be read: linked from the text alone"
        typer.echo(message)
