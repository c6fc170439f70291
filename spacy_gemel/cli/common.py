"""What the commands share: one-line errors, and common options."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from spacy_gemel.utils.messages import one_line

Pipeline = Annotated[str, typer.Argument(help="A trained pipeline: a folder, or an installed package.")]
BatchSize = Annotated[int, typer.Option(help="Docs per batch, 0 for the pipeline's own.", min=0)]
GpuId = Annotated[int, typer.Option("--gpu-id", "-g", help="GPU to run on, -1 for the CPU.")]
Limit = Annotated[int, typer.Option(help="Docs to read at most, 0 for all.", min=0)]
PredictedEnts = Annotated[bool, typer.Option("--predicted-ents", help="Link what the pipeline's own NER finds.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Report errors in the user's input as one line on stderr, with exit code 1; --verbose shows the traceback."""
    try:
        yield
    # KBError is a ValueError, a missing file an OSError, a missing optional package an ImportError
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("SPACY_GEMEL_TRACEBACK"):
            raise
        fail(one_line(error))


def fail(message: str) -> NoReturn:
    """Print one line on stderr, and exit with code 1."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


def check_data(data: Path) -> None:
    """Raises ValueError if a .spacy file, or a folder of them, does not exist."""
    if not data.exists():
        raise ValueError(f"{data}: no such file or folder; make it with python -m spacy_gemel convert")


def check_json(path: Path, what: str) -> None:
    """Raises ValueError if a file to be written does not end in .json."""
    if path.suffix != ".json":
        raise ValueError(f"{path}: the {what} must end in .json")
