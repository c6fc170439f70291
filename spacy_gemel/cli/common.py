"""What the commands share: how errors are told, and their common options."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

BatchSize = Annotated[int, typer.Option(help="Docs per batch, 0 for the pipeline's own.", min=0)]
GpuId = Annotated[int, typer.Option("--gpu-id", "-g", help="GPU to run on, -1 for the CPU.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What is wrong with the user's input is one line on stderr and exit code 1; --verbose keeps the traceback."""
    try:
        yield
    # KBError is a ValueError, a missing file an OSError, a missing optional package an ImportError
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("SPACY_GEMEL_TRACEBACK"):
            raise
        fail(" ".join(str(error).split()) or type(error).__name__)


def fail(message: str) -> NoReturn:
    """One line on stderr, and exit code 1."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)
