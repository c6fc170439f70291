"""`evaluate`: the figures of a trained pipeline."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import BatchSize, GpuId, Quiet, one_line_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(
    pipeline: Annotated[str, typer.Argument(help="A trained pipeline: a folder, or an installed package.")],
    data: Annotated[Path, typer.Argument(metavar="DATA.spacy", help="What to evaluate on.")],
    output: Annotated[
        list[Path],
        typer.Option("--output", "-o", metavar="METRICS.json", help="Where to write; again for a copy."),
    ],
    no_image: Annotated[bool, typer.Option("--no-image", help="Leave the images out.")] = False,
    unconstrained: Annotated[bool, typer.Option("--unconstrained", help="Search without the KB's trie.")] = False,
    n_demonstrations: Annotated[
        int | None, typer.Option(help="Demonstrations per prompt; default: the pipeline's.", min=0)
    ] = None,
    predicted_ents: Annotated[
        bool, typer.Option("--predicted-ents", help="Link what the pipeline's own NER finds.")
    ] = False,
    tail_share: Annotated[
        float, typer.Option(help="Share of all counts that the tail's entities hold.", min=0.0, max=1.0)
    ] = 0.05,
    limit: Annotated[int, typer.Option(help="Read so many docs at most, 0 for all.", min=0)] = 0,
    batch_size: BatchSize = 0,
    gpu_id: GpuId = -1,
    quiet: Quiet = False,
) -> None:
    """Measure a pipeline: METRICS.json, and every mention in METRICS.mentions.jsonl."""
    with one_line_errors():
        from spacy_gemel.evaluation import runner
        from spacy_gemel.evaluation.text import summary
        from spacy_gemel.pipeline.loaded import load_pipeline

        if not data.exists():
            raise ValueError(f"{data}: no such file or folder; make it with python -m spacy_gemel convert")
        for path in output:
            if path.suffix != ".json":
                raise ValueError(f"{path}: the output must end in .json")
        options = runner.EvaluateOptions(
            use_image=False if no_image else None,
            constrained=False if unconstrained else None,
            n_demonstrations=n_demonstrations,
            predicted_ents=predicted_ents,
            tail_share=tail_share,
            limit=limit,
            batch_size=batch_size or None,
            progress=not quiet,
        )
        nlp = load_pipeline(pipeline, gpu_id=gpu_id)
        metrics, results = runner.evaluate(nlp, data, options, pipeline=pipeline)
        for path in output:
            runner.write_evaluation(metrics, results, path)
        typer.echo(summary(metrics))
        typer.echo("wrote " + ", ".join(str(path) for path in output))
