"""`python -m spacy_gemel`. What a command needs is imported inside it, so that --help comes at once."""

import io
import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from spacy_gemel.cli.convert import convert
from spacy_gemel.cli.describe import describe
from spacy_gemel.cli.encode_images import encode_images
from spacy_gemel.cli.evaluate import evaluate
from spacy_gemel.cli.fetch_images import fetch_images
from spacy_gemel.cli.fit_decision import fit_decision
from spacy_gemel.cli.import_kb import import_kb
from spacy_gemel.cli.knowledge_base import build_kb, check_kb
from spacy_gemel.cli.link import link
from spacy_gemel.cli.make_demonstrations import make_demonstrations
from spacy_gemel.cli.push import push
from spacy_gemel.cli.report import report
from spacy_gemel.cli.size import size

app = typer.Typer(
    name="spacy-gemel",
    help="Link the entities of documents from their text and their image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

COMMANDS: list[Callable[..., None]] = [
    convert, fetch_images, encode_images, import_kb, build_kb, check_kb, make_demonstrations, link, evaluate, report,
    fit_decision, describe, push, size,
]  # fmt: skip
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Entry point of `python -m spacy_gemel` and of `spacy-gemel`."""
    app(prog_name="python -m spacy_gemel")


@app.callback()
def _start(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done; tracebacks.")] = False,
) -> None:
    for stream in (sys.stdout, sys.stderr):  # a console of another encoding must not fail a command that is done
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")
    if verbose:
        os.environ["SPACY_GEMEL_TRACEBACK"] = "1"


if __name__ == "__main__":
    main()
