"""`python -m research COMMAND`, from a clone: every experiment, through one runner (research/runner.py)."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from spacy_gemel.cli.common import GpuId, Quiet, fail, one_line_errors

app = typer.Typer(
    name="research",
    help="Experiments: what is cached is not run again, and the same command continues after an interrupt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Data = Annotated[Path | None, typer.Option(help="In place of the grid's.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Delete first what is cached, the world included.")]
Steps = Annotated[int | None, typer.Option(help="A try: so many training steps.", min=1)]
Share = Annotated[float | None, typer.Option(help="Share of all counts that the tail holds.", min=0.0, max=1.0)]
RealData = Annotated[Path, typer.Option(help="A folder with kb/, wikidiverse/, wikimel/ and richpediamel/.")]
RealModels = Annotated[
    Path, typer.Option(help="A folder with language_model/ and sentence_encoder/, as real-models leaves it.")
]

_INTERRUPTED = "interrupted; the same command continues with the trials that are left"


def _interrupted() -> NoReturn:
    typer.echo(_INTERRUPTED, err=True)
    raise typer.Exit(130)


@contextmanager
def _long_work() -> Iterator[None]:
    """Errors in one line; an interrupt, or a kill, ends the current command, too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with one_line_errors():
        try:
            yield
        except KeyboardInterrupt:
            _interrupted()
        except RuntimeError as error:
            fail(str(error))


@app.command()
def grid(
    grid_file: Annotated[Path, typer.Argument(metavar="GRID.yml", help="Tables and their rows; docs/experiments.md.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Trials are cached here, and the results written.")
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
    tail_share: Share = None,
    steps: Steps = None,
    limit: Annotated[int, typer.Option(help="A try: so many test docs, 0 for all.", min=0)] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would run and how long; run nothing.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete first what is cached of the tables that are run (--only).")
    ] = False,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the results here, too, with the machine they are from.")
    ] = None,
    gpu_id: GpuId = -1,
) -> None:
    """Train and measure a grid of settings and fill its tables.

    A trial runs again only when its config, models, data, knowledge base or settings have changed; after a change of
    the package's own code or of the libraries, give --fresh. The exit code is 1 if a trial failed, 130 after an
    interrupt; the tables are written all the same.
    """
    with one_line_errors():
        import time
        from dataclasses import replace

        from research.grid.grid import PATHS, read_grid
        from research.grid.page import write_results
        from research.grid.tables import Experiments
        from research.machine import describe_machine

        paths = dict(zip(PATHS, (config, train, dev, test, kb, entities), strict=True))
        plan = read_grid(grid_file, {name: path for name, path in paths.items() if path is not None})
        if tail_share is not None:
            plan = replace(plan, tail_share=tail_share)
        tables = plan.only(only or ())
        experiments = Experiments(plan, output, steps=steps, limit=limit, gpu_id=gpu_id)
        if dry_run:
            typer.echo("\n".join(experiments.describe(tables, fresh=fresh)))
            return
        # a kill is an interrupt: it also ends the current training
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        start = time.perf_counter()
        try:
            results = experiments.run(tables, fresh=fresh)
        except KeyboardInterrupt:  # before the first trial, or twice
            _interrupted()
        ran = results.pop("ran")
        written = write_results(results, experiments.runner.folder)
        if keep is not None and not results["failed"] and not results["interrupted"]:
            # its `seconds` are those of the trials, whenever they ran
            seconds = round(time.perf_counter() - start, 1) if ran == len(results["trials"]) else None
            written += write_results({**results, "wall_seconds": seconds, "machine": describe_machine()}, keep)
    typer.echo("wrote " + ", ".join(str(path) for path in written))
    if results["failed"]:
        typer.echo(f"error: {len(results['failed'])} trials failed: {', '.join(results['failed'])}", err=True)
    if results["interrupted"]:
        _interrupted()
    if results["failed"]:
        raise typer.Exit(1)


@app.command()
def evidence(
    seeds: Annotated[list[int] | None, typer.Option(help="Of the mappers; may be repeated.  [default: 1 2 3]")] = None,
    test: Annotated[int, typer.Option(help="Test mentions; another number is a try.", min=1)] = 2000,
    steps: Steps = None,
    fresh: Fresh = False,
) -> None:
    """The paper's effects on the mini world, each with its interval; also the language model's gates."""
    with _long_work():
        from research.evidence import SEEDS, markdown, run_evidence

        result = run_evidence(seeds or SEEDS, test, steps, fresh=fresh)
        typer.echo(markdown(result["effects"], result["gates"]))
        typer.echo(json.dumps(result))


@app.command()
def search(
    seeds: Annotated[list[int] | None, typer.Option(help="Of the mappers; may be repeated.  [default: 1 2]")] = None,
    steps: Steps = None,
    fresh: Fresh = False,
) -> None:
    """Search the mini world's settings on its dev mentions, one coordinate after another."""
    with _long_work():
        from research.search import SEEDS, run_search

        typer.echo(json.dumps(run_search(seeds or SEEDS, steps, fresh=fresh)))


@app.command()
def wikidiverse(
    data: Annotated[Path, typer.Option(help="A folder with kb/ and wikidiverse/.")],
    course: Annotated[str, typer.Option(help="large, for a GPU, or small, for two cores.")] = "large",
    steps: Annotated[int | None, typer.Option(help="Of the training, in place of the course's.", min=1)] = None,
    work: Annotated[
        Path | None, typer.Option(help="For what is made on the way.  [default: data/wikidiverse/COURSE]")
    ] = None,
    only_train: Annotated[
        bool, typer.Option("--only-train", help="End with the language model, to be measured elsewhere.")
    ] = False,
) -> None:
    """Text-only linking on WikiDiverse's val rows with a small language model trained from nothing."""
    with _long_work():
        from research.wikidiverse.language_model import COURSES
        from research.wikidiverse.measure import run_wikidiverse

        if course not in COURSES:
            fail(f"course is {course!r}: use {' or '.join(COURSES)}")
        result = run_wikidiverse(data, course, steps, work, train_only=only_train)
        if result is not None:
            typer.echo(json.dumps(result))


@app.command()
def real(
    data: RealData,
    models: RealModels = Path("assets/real"),
    cells: Annotated[
        list[str] | None, typer.Option(metavar="CELL", help="A data set, or one cell of it; may be repeated.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete first what is cached of the cells that are run.")
    ] = False,
) -> None:
    """Linking real text with real pretrained models: one factor at a time, and end to end; each cell once."""
    with _long_work():
        from research.real.run import run_real

        typer.echo(json.dumps(run_real(data, models, cells or (), fresh=fresh)))


@app.command()
def decision(
    data: RealData,
    models: RealModels = Path("assets/real"),
) -> None:
    """What a fitted decision is worth on real text and on the drawings; a part that is linked is not linked again."""
    with _long_work():
        from research.real.decision import run_decision

        typer.echo(json.dumps(run_decision(data, models)))


@app.command()
def exact(
    data: RealData,
    models: RealModels = Path("assets/real"),
    parts: Annotated[int, typer.Option(help="Of about a hundred mentions each; fewer are a try.", min=1)] = 10,
) -> None:
    """How often beams miss the best of all names on WikiDiverse, and what it costs to know; each part once."""
    with _long_work():
        from research.real.exact import run_exact

        typer.echo(json.dumps(run_exact(data, models, parts)))


@app.command()
def baseline(
    train: Annotated[Path, typer.Argument(metavar="TRAIN.spacy", help="What the linker is trained on.")],
    test: Annotated[Path, typer.Argument(metavar="TEST.spacy", help="What to evaluate on.")],
    kb: Annotated[Path, typer.Option(metavar="KB_DIR", help="The linker's knowledge base.")],
    output: Annotated[
        list[Path], typer.Option("--output", "-o", metavar="METRICS.json", help="Where to write; again for a copy.")
    ],
    dev: Annotated[Path | None, typer.Option(metavar="DEV.spacy", help="Keep the epoch that is best on these.")] = None,
    held_out: Annotated[
        float, typer.Option(help="Choose the epoch on this share of the training texts, then train on all.", max=0.9)
    ] = 0.0,
    epochs: Annotated[int, typer.Option(help="Passes over the training docs.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Of its weights and the order of docs.", min=0)] = 0,
    vector_length: Annotated[int, typer.Option(help="Of the entities' vectors.", min=1)] = 300,
    encoder: Annotated[
        str | None, typer.Option(help="Sentence encoder of the descriptions, in place of a random projection.")
    ] = None,
    lang: Annotated[str, typer.Option(help="spaCy's language of the data.")] = "en",
    tail_share: Annotated[
        float, typer.Option(help="Share of all counts that the tail holds.", min=0.0, max=1.0)
    ] = 0.05,
    limit: Annotated[int, typer.Option(help="Read so many test docs at most, 0 for all.", min=0)] = 0,
    quiet: Quiet = False,
) -> None:
    """Train spaCy's entity_linker on the same data and measure it: METRICS.json and METRICS.mentions.jsonl.

    Its prior alone, and the share of golds among its candidates, are in the settings of METRICS.json. The simpler
    baselines are `python -m spacy_gemel evaluate --baseline`.
    """
    with _long_work():
        from functools import partial

        from research.baselines.entity_linker import make_entity_linker
        from research.baselines.spacy_linker import LinkerOptions
        from spacy_gemel.evaluation.baselines import evaluate_baseline
        from spacy_gemel.evaluation.results import write_evaluation
        from spacy_gemel.evaluation.text import metrics_text

        for path in output:
            if path.suffix != ".json":
                raise ValueError(f"{path}: the output must end in .json")
        options = LinkerOptions(
            epochs=epochs, seed=seed, vector_length=vector_length, encoder=encoder, progress=not quiet
        )
        metrics, results = evaluate_baseline(
            "entity_linker",
            train,
            test,
            kb,
            partial(make_entity_linker, options=options, dev=dev, held_out=held_out),
            lang=lang,
            tail_share=tail_share,
            limit=limit,
            progress=not quiet,
        )
        for path in output:
            write_evaluation(metrics, results, path)
        typer.echo(metrics_text(metrics))
        typer.echo("wrote " + ", ".join(str(path) for path in output))


@app.command()
def weak_labels(
    gold: Annotated[Path, typer.Argument(metavar="GOLD.spacy", help="Docs with gold ids, which only measure.")],
    kb: Annotated[Path, typer.Option(metavar="KB_DIR", help="The knowledge base whose names are searched.")],
    keep: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Also write the figures here, under GOLD.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Compare the labels of make-demonstrations with gold ones."""
    with one_line_errors():
        from research.cache import read_object
        from research.weak_labels import compare
        from spacy_gemel.utils.files import write_json

        figures = compare(gold, kb, progress=not quiet)
        if keep is not None:
            write_json(keep, {**read_object(keep), gold.stem: figures})
        typer.echo(json.dumps(figures))


if __name__ == "__main__":
    app(prog_name="python -m research")
