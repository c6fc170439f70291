"""`link`: a file of documents in, their entities out."""

import signal
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import GpuId, Pipeline, Quiet, fail, list_problems, one_line_errors


class Engine(StrEnum):
    """Where the processes run that link."""

    LOCAL = "local"
    RAY = "ray"


def link(
    pipeline: Pipeline,
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="JSON lines, .csv, .parquet, .spacy, a folder of them, or - for stdin.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="JSON lines to write, a .csv or .parquet table, or - for stdout.")
    ],
    explain: Annotated[
        bool, typer.Option("--explain", help="Write why each mention is linked so; much slower.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT, and what an unfinished run of other input left.")
    ] = False,
    max_bad: Annotated[int | None, typer.Option(help="End the run if more rows fail.", min=0)] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="End the run at the first row that fails.")] = False,
    doc_seconds: Annotated[float | None, typer.Option(help="A doc that takes longer fails.", min=0.001)] = None,
    batch_size: Annotated[int, typer.Option(help="Rows that are linked together, and that a kill costs.", min=1)] = 128,
    workers: Annotated[int, typer.Option(help="Processes that link; each loads the pipeline.", min=1)] = 1,
    engine: Annotated[Engine, typer.Option(help="Where they run: here, or on a Ray cluster.")] = Engine.LOCAL,
    worker_gpus: Annotated[float, typer.Option(help="With Ray: GPUs of each process, such as 0.5.", min=0)] = 0.0,
    gpu_id: GpuId = -1,
    quiet: Quiet = False,
) -> None:
    """Link documents: the mentions that they come with, else those that the pipeline's NER finds.

    Killed at any moment, the same command goes on.
    """
    with one_line_errors():
        from spacy_gemel.bulk.journal import failed_path
        from spacy_gemel.bulk.link import LinkOptions, check_source, link_file
        from spacy_gemel.bulk.sources import PIPE
        from spacy_gemel.bulk.workers import Processes, RayActors, ThisProcess
        from spacy_gemel.pipeline import loaded_pipeline

        for name in ("SIGTERM", "SIGHUP"):  # end as Ctrl-C does
            # not under nohup, which has a hangup ignored
            if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:
                signal.signal(getattr(signal, name), signal.default_int_handler)
        if worker_gpus and engine is not Engine.RAY:
            raise ValueError("--worker-gpus is for --engine ray; here give --gpu-id")
        check_source(source, out, overwrite=overwrite)  # before the pipeline is loaded, which takes long
        options = LinkOptions(batch_size, explain, overwrite, 0 if fail_fast else max_bad, doc_seconds)
        load = partial(loaded_pipeline.load_pipeline, pipeline, gpu_id=0 if worker_gpus else gpu_id)
        try:
            linker: ThisProcess | Processes
            if engine is Engine.RAY:
                linker = RayActors(load, workers, gpus=worker_gpus)
            else:
                linker = Processes(load, workers) if workers > 1 else ThisProcess(load())
            digest = loaded_pipeline.pipeline_digest(pipeline)
            report = link_file(linker, digest, source, out, options, progress=not quiet)
        except KeyboardInterrupt:
            fail("interrupted: the same command goes on where this one has ended", code=130)
        except BrokenPipeError:
            fail("what read the output has ended")
        except OSError as error:
            raise OSError(f"{error}; the same command goes on where this one has ended") from error
        list_problems(report.problems, report.failed + report.left_out)
        to_stdout = out == PIPE
        message = f"{'stdout' if to_stdout else out}: {report.docs} docs, {report.mentions} mentions linked, "
        message += f"{report.nil} of them NIL"
        if report.failed:
            where = "their lines say" if to_stdout else f"{failed_path(out)} says"
            message += f"; {report.failed} of {report.rows} rows have failed: {where} why"
        if report.unreadable_image:
            message += f"; the image of {report.unreadable_image} docs could not be read: linked from the text alone"
        typer.echo(message, err=to_stdout)
        if report.failed > report.docs:
            raise typer.Exit(1)
