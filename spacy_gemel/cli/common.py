"""What the commands share: one-line errors, common options, and the linker's block of a config."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from spacy_gemel.utils.messages import one_line

Pipeline = Annotated[str, typer.Argument(help="A trained pipeline: a folder, or an installed package.")]
BatchSize = Annotated[int, typer.Option(help="Docs per batch, 0 for the pipeline's own.", min=0)]
Component = Annotated[str | None, typer.Option(help="The linker's name, if the config has several.")]
GpuId = Annotated[int, typer.Option("--gpu-id", "-g", help="GPU to run on, -1 for the CPU.")]
Limit = Annotated[int, typer.Option(help="Docs to read at most, 0 for all.", min=0)]
PredictedEnts = Annotated[bool, typer.Option("--predicted-ents", help="Link what the pipeline's own NER finds.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]

_MAX_LISTED = 5


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


def fail(message: str, code: int = 1) -> NoReturn:
    """Print one line on stderr, and exit."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


def list_problems(problems: Sequence[object], total: int = 0) -> None:
    """Print the first five problems on stderr, and how many more there are, of `total` if not all are at hand."""
    for problem in problems[:_MAX_LISTED]:
        typer.echo(str(problem), err=True)
    if (more := max(total, len(problems)) - len(problems[:_MAX_LISTED])) > 0:
        typer.echo(f"... and {more} more", err=True)


def check_paths(data: Path, *outputs: Path) -> None:
    """Raises ValueError if .spacy files to be read do not exist, or a file to be written does not end in .json."""
    if not data.exists():
        raise ValueError(f"{data}: no such file or folder; make it with python -m spacy_gemel convert")
    for path in outputs:
        if path.suffix != ".json":
            raise ValueError(f"{path}: the output must end in .json")


def read_config(config: Path, component: str | None = None) -> tuple[str, dict[str, Any], dict[str, Any], Path]:
    """The linker's name, its block and the training block, both with their defaults, and the config's folder.

    `config` may be a pipeline's folder; `component` is needed if there are several linkers. Raises ValueError.
    """
    from spacy import util
    from spacy.language import DEFAULT_CONFIG as SPACY_DEFAULTS
    from thinc.api import Config

    from spacy_gemel.pipeline.gemel_linker import DEFAULT_CONFIG
    from spacy_gemel.pipeline.loaded_pipeline import FACTORY

    file = config / "config.cfg" if config.is_dir() else config
    if not file.is_file():
        raise ValueError(f"{config}: no config there: give a .cfg file, or the folder of a pipeline (its model-best)")
    try:
        content = util.load_config(file, interpolate=True)
    except ValueError as error:
        raise ValueError(f"{file}: spaCy cannot read this config: {error}") from error
    linkers = {n: block for n, block in content.get("components", {}).items() if block.get("factory") == FACTORY}
    if component is not None and component not in linkers:
        raise ValueError(f"{file}: no {FACTORY} is called {component!r} there (found: {', '.join(linkers) or 'none'})")
    if component is None and len(linkers) != 1:
        names = f"several ({', '.join(linkers)}): choose one with --component" if linkers else "none in it"
        raise ValueError(f"{file}: one {FACTORY} is needed, and there is {names}")
    name = component or next(iter(linkers))
    # merged one by one: a block of another registered name has none of the default's settings
    block = {key: value for key, value in linkers[name].items() if key != "factory"}
    linker = Config({"linker": DEFAULT_CONFIG}).merge({"linker": block})["linker"]
    training = Config(SPACY_DEFAULTS["training"]).merge(Config(content.get("training", {})))
    return name, dict(linker), dict(training), file.parent
