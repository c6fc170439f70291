"""`fetch-images`: the only command that goes to the network by itself."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import Quiet, fail, one_line_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fetch-images")(fetch_images)


def fetch_images(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="URLs: .txt with one a line, JSON lines, or a JSON list of rows.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder for the images and their index.jsonl.")],
    field: Annotated[
        str, typer.Option(help="Field of the rows that holds a URL or several; a number where the rows are lists.")
    ] = "image",
    user_agent: Annotated[
        str | None,
        typer.Option(help="Who asks, and how to reach you: 'my-study/1.0 (me@example.org)'. Wikimedia requires it."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Requests at once.", min=1)] = 8,
    per_host: Annotated[int, typer.Option(help="Requests at once to one host.", min=1)] = 2,
    delay: Annotated[float, typer.Option(help="Seconds between two requests to one host.", min=0)] = 0.5,
    retries: Annotated[int, typer.Option(help="Further tries where another one may do.", min=0)] = 3,
    timeout: Annotated[float, typer.Option(help="Seconds to connect, and without a byte.", min=0.1)] = 30.0,
    max_seconds: Annotated[float, typer.Option(help="Seconds for one request, in all.", min=0.1)] = 300.0,
    max_wait: Annotated[
        float, typer.Option(help="Leave a host for this run that asks to be left alone for more seconds.", min=0)
    ] = 600.0,
    max_mb: Annotated[float, typer.Option(help="Leave images of more MiB.", min=0.001)] = 64.0,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Ask this machine and private networks, too.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Download the images that a data set names by URL; the same command goes on where it was interrupted.

    A file's name is the hash of its content; FOLDER/index.jsonl says which URL is in which file, FOLDER/failed.jsonl
    what failed and why.
    """
    with one_line_errors():
        from spacy_gemel.data.fetch.run import FetchOptions
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
            max_wait=max_wait,
            max_bytes=int(max_mb * 2**20),
            allow_private=allow_private,
        )
        found = read_urls(source, field)
        try:
            report = run(found.urls, folder, options, refused=found.refused, progress=not quiet)
        except KeyboardInterrupt:
            typer.echo(f"interrupted: what has come is in {folder}; the same command goes on from there", err=True)
            raise typer.Exit(130) from None
        typer.echo("\n".join(report.lines(folder)))
        if not report.before + report.fetched:
            first = report.failures[0]
            said = f"{first.url}: {first.reason} {first.detail}".rstrip()
            # a part of it are a server's words, which are not to steer the terminal
            fail(
                "nothing was fetched; the first: " + "".join(letter if letter.isprintable() else "?" for letter in said)
            )
