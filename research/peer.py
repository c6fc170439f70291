"""`peer`: what a linker without a language model scores on the same data."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spacy_gemel.cli.common import Quiet, one_line_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(peer)


def peer(
    kind: Annotated[str, typer.Argument(help="shortcut, alias or entity_linker (spaCy's own).")],
    train: Annotated[Path, typer.Argument(metavar="TRAIN.spacy", help="What the linker was trained on.")],
    test: Annotated[Path, typer.Argument(metavar="TEST.spacy", help="What to evaluate on.")],
    kb: Annotated[Path, typer.Option(metavar="KB_DIR", help="The linker's knowledge base.")],
    output: Annotated[
        list[Path],
        typer.Option("--output", "-o", metavar="METRICS.json", help="Where to write; again for a copy."),
    ],
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", help="Compare mentions and names without regard to case.")
    ] = False,
    dev: Annotated[
        Path | None, typer.Option(metavar="DEV.spacy", help="entity_linker: keep the epoch that is best on these.")
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            help="entity_linker: choose the epoch on this share of the training texts, then train on all.", max=0.9
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="entity_linker: passes over the training docs.  [default: 10]", min=1)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="entity_linker: of its weights and the order of docs.  [default: 0]", min=0)
    ] = None,
    vector_length: Annotated[
        int | None, typer.Option(help="entity_linker: of the entities' vectors.  [default: 300]", min=1)
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="entity_linker: sentence encoder of the descriptions, in place of a random projection."),
    ] = None,
    lang: Annotated[str, typer.Option(help="spaCy's language of the data.")] = "en",
    tail_share: Annotated[
        float, typer.Option(help="Share of all counts that the tail's entities hold.", min=0.0, max=1.0)
    ] = 0.05,
    limit: Annotated[int, typer.Option(help="Read so many test docs at most, 0 for all.", min=0)] = 0,
    quiet: Quiet = False,
) -> None:
    """Measure a simpler linker on the same data: METRICS.json and METRICS.mentions.jsonl as evaluate writes them.

    shortcut: the most frequent training entity for the mention, else the entity of that name. alias: the entity that
    bears the mention as name or alias, compared as Wikipedia's titles are (the first letter's case does not count,
    underscores are blanks). entity_linker: spaCy's, trained on the same examples with the same aliases; its prior alone
    and the share of golds among its candidates are in the settings of METRICS.json.
    """
    with one_line_errors():
        from dataclasses import replace

        from research.baselines.kinds import check_options
        from research.baselines.options import LinkerOptions, PeerOptions
        from research.baselines.runner import evaluate_peer
        from spacy_gemel.evaluation.results import write_evaluation
        from spacy_gemel.evaluation.text import metrics_text

        for path in output:
            if path.suffix != ".json":
                raise ValueError(f"{path}: the output must end in .json")
        message: dict[str, Any] = {"epochs": epochs, "seed": seed, "vector_length": vector_length, "encoder": encoder}
        of_linker = {name: value for name, value in message.items() if value is not None}
        others = {"ignore_case": ignore_case or None, "dev": dev, "held_out": held_out}
        check_options(kind, [*(name for name, value in others.items() if value is not None), *of_linker])
        linker = replace(LinkerOptions(progress=not quiet), **of_linker)
        options = PeerOptions(ignore_case, lang, dev, held_out or 0.0, linker, tail_share, limit, not quiet)
        try:
            metrics, results = evaluate_peer(kind, train, test, kb, options)
        except KeyboardInterrupt:
            typer.echo("interrupted: nothing was written; run it again", err=True)
            raise typer.Exit(130) from None
        for path in output:
            write_evaluation(metrics, results, path)
        typer.echo(metrics_text(metrics))
        typer.echo("wrote " + ", ".join(str(path) for path in output))
