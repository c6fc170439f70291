"""`python -m spacy_gemel`. What a command needs is imported inside it, so that --help comes at once."""

import logging
import os
from typing import Annotated

import typer

from spacy_gemel.cli import (
    calibrate,
    convert,
    describe,
    encode_images,
    evaluate,
    fetch_images,
    fit_prior,
    import_kb,
    knowledge_base,
    link,
    report,
    size,
)

app = typer.Typer(
    name="spacy-gemel",
    help="Link the entities of documents from their text and their image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for command in (
    convert,
    fetch_images,
    encode_images,
    import_kb,
    knowledge_base,
    link,
    evaluate,
    report,
    calibrate,
    fit_prior,
    describe,
    size,
):
    command.register(app)


def main() -> None:
    """Entry point of `python -m spacy_gemel` and of `spacy-gemel`."""
    app(prog_name="python -m spacy_gemel")


@app.callback()
def _start(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done; tracebacks.")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s")
    if verbose:
        os.environ["SPACY_GEMEL_TRACEBACK"] = "1"


if __name__ == "__main__":
    main()
