"""`experiments`: a grid of settings trained and measured, and the paper's tables filled with them."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import GpuId, one_line_errors

Data = Annotated[Path | None, typer.Option(help="In place of the grid's.")]

_INTERRUPTED = "interrupted; the same command goes on with the trials that are left"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(experiments)


def experiments(
    grid: Annotated[Path, typer.Argument(metavar="GRID.yml", help="Tables and their rows; docs/experiments.md.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Trials are kept here, and the results written.")
    ],
    only: Annotated[
        list[str] | None, typer.Option(metavar="TABLE", help="Run this table's rows; may be repeated.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The training config that the rows change.")] = None,
    train: Data = None,
    dev: Data = None,
    test: Data = None,
    kb: Data = None,
    entities: Annotated[
        Path | None, typer.Option(help="The KB's JSON lines, for rows with another language model.")
    ] = None,
    tail_share: Annotated[
        float | None, typer.Option(help="Share of all counts that the tail's entities hold.", min=0.0, max=1.0)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="A try: so many training steps.", min=1)] = None,
    limit: Annotated[int, typer.Option(help="A try: so many test docs, 0 for all.", min=0)] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run and how long; run nothing.")] = False,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Forget first what is kept of the tables that are run (--only): their trials' figures, their "
            "trainings, and the knowledge bases built for these. Other tables' figures stay.",
        ),
    ] = False,
    gpu_id: GpuId = -1,
) -> None:
    """Train and measure a grid of settings and fill its tables; goes on where it was interrupted.

    A trial runs again only when its config, models, data, knowledge base or settings have changed; after a change of
    the package's own code or of the libraries, give --fresh. Exit code 1 where a trial failed, 130 after an interrupt;
    the tables are written all the same, with what is there.
    """
    with one_line_errors():
        from dataclasses import replace

        from research.grid import run
        from research.grid.grid import PATHS, read_grid
        from research.grid.page import write_results

        message = dict(zip(PATHS, (config, train, dev, test, kb, entities), strict=True))
        plan = read_grid(grid, {name: path for name, path in message.items() if path is not None})
        if tail_share is not None:
            plan = replace(plan, tail_share=tail_share)
        tables = plan.only(only or ())
        lab = run.make_lab(plan, output, steps=steps, limit=limit, gpu_id=gpu_id)
        if dry_run:
            typer.echo("\n".join(run.describe(lab, tables, fresh=fresh)))
            return
        # a kill is an interrupt: the training that is under way is ended, too
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            results = run.run_grid(lab, tables, fresh=fresh)
        except KeyboardInterrupt:  # before the first trial, or twice
            typer.echo(_INTERRUPTED, err=True)
            raise typer.Exit(130) from None
        paths = write_results(results, lab.output)
    typer.echo("wrote " + ", ".join(str(path) for path in paths))
    if results["failed"]:
        typer.echo(f"error: {len(results['failed'])} trials failed: {', '.join(results['failed'])}", err=True)
    if results["interrupted"]:
        typer.echo(_INTERRUPTED, err=True)
        raise typer.Exit(130)
    if results["failed"]:
        raise typer.Exit(1)
