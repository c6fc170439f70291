"""`fetch-images`: the only command that downloads data."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import Quiet, fail, one_line_errors


def fetch_images(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="URLs: .txt with one per line, JSON lines, or a JSON list of rows.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder for the images and their index.jsonl.")],
    field: Annotated[
        str, typer.Option(help="Field of the rows that holds a URL or several; a number if the rows are lists.")
    ] = "image",
    user_agent: Annotated[
        str | None,
        typer.Option(help="Your program and contact: 'my-study/1.0 (me@example.org)'. Wikimedia requires it."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Requests at once.", min=1)] = 8,
    per_host: Annotated[int, typer.Option(help="Requests at once to one host.", min=1)] = 2,
    delay: Annotated[float, typer.Option(help="Seconds between two requests to one host.", min=0)] = 0.5,
    retries: Annotated[int, typer.Option(help="Further tries if another one can succeed.", min=0)] = 3,
    timeout: Annotated[float, typer.Option(help="Seconds to connect, or without a byte.", min=0.1)] = 30.0,
    max_seconds: Annotated[float, typer.Option(help="Seconds for one whole request.", min=0.1)] = 300.0,
    max_mb: Annotated[float, typer.Option(help="Skip images of more MiB.", min=0.001)] = 64.0,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Also fetch from this machine and private networks.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Download the images that a data set names by URL; after an interrupt the same command continues.

    A file is named by the hash of its content. FOLDER/index.jsonl maps URLs to files, FOLDER/failed.jsonl lists
    what failed and why.
    """
    with one_line_errors():
        from spacy_gemel.data.fetch.download import FetchOptions
        from spacy_gemel.data.fetch.run import fetch_images as run
        from spacy_gemel.data.fetch.urls import read_urls

        options = FetchOptions(
            user_agent=user_agent,
            workers=workers,
            per_host=per_host,
            delay=delay,
            retries=retries,
            timeout=timeout,
            max_seconds=max_seconds,
            max_bytes=int(max_mb * 2**20),
            allow_private=allow_private,
        )
        urls, failures = read_urls(source, field)
        try:
            report = run(urls, folder, options, failures=failures, progress=not quiet)
        except KeyboardInterrupt:
            typer.echo(f"interrupted: {folder} has what was fetched; the same command continues from there", err=True)
            raise typer.Exit(130) from None
        typer.echo("\n".join(report.lines(folder)))
        if not report.cached + report.fetched:
            first = report.failures[0]
            message = f"nothing was fetched; the first failure: {first.url}: {first.reason} {first.detail}".rstrip()
            # part of it comes from a server, which must not steer the terminal
            fail("".join(letter if letter.isprintable() else "?" for letter in message))
