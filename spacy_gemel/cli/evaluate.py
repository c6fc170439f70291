"""`evaluate`: the figures of a trained pipeline, or of a baseline."""

from pathlib import Path
from typing import Annotated, Any

import typer

from spacy_gemel.cli.common import BatchSize, GpuId, Limit, PredictedEnts, Quiet, check_paths, one_line_errors


def evaluate(
    pipeline: Annotated[
        str, typer.Argument(help="A trained pipeline: a folder, or an installed package; with --baseline: TRAIN.spacy.")
    ],
    data: Annotated[Path, typer.Argument(metavar="DATA.spacy", help="What to evaluate on.")],
    output: Annotated[
        list[Path], typer.Option("--output", "-o", metavar="METRICS.json", help="Where to write; again for a copy.")
    ],
    no_image: Annotated[bool, typer.Option("--no-image", help="Leave the images out.")] = False,
    unconstrained: Annotated[bool, typer.Option("--unconstrained", help="Search without the KB's trie.")] = False,
    n_demonstrations: Annotated[
        int | None, typer.Option(help="Demonstrations per prompt; default: the pipeline's.", min=0)
    ] = None,
    predicted_ents: PredictedEnts = False,
    tail_share: Annotated[
        float, typer.Option(help="Share of all counts that the tail's entities hold.", min=0.0, max=1.0)
    ] = 0.05,
    limit: Limit = 0,
    batch_size: BatchSize = 0,
    gpu_id: GpuId = -1,
    baseline: Annotated[
        str | None,
        typer.Option(help="Measure this instead of a pipeline: most-frequent or alias; needs the training data, --kb."),
    ] = None,
    kb: Annotated[Path | None, typer.Option(metavar="KB_DIR", help="With --baseline: the knowledge base.")] = None,
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", help="With --baseline: compare mentions and names without regard to case.")
    ] = False,
    lang: Annotated[str | None, typer.Option(help="With --baseline: spaCy's language; default: en.")] = None,
    quiet: Quiet = False,
) -> None:
    """Measure a pipeline: METRICS.json, and every mention in METRICS.mentions.jsonl.

    Baselines need no model. most-frequent: the most frequent training entity for the mention, else the entity of that
    name. alias: the entity with the mention as its name or alias, compared as Wikipedia's titles are (the first
    letter's case does not count, underscores are blanks).
    """
    with one_line_errors():
        check_paths(data, *output)
        options_without_effect = {"--kb": kb is not None, "--ignore-case": ignore_case, "--lang": lang is not None}
        if baseline is not None:
            n_given = n_demonstrations is not None
            options_without_effect = {"--no-image": no_image, "--unconstrained": unconstrained}
            options_without_effect |= {"--n-demonstrations": n_given, "--predicted-ents": predicted_ents}
            options_without_effect |= {"--batch-size": batch_size != 0, "--gpu-id": gpu_id != -1}
        for option, is_given in options_without_effect.items():
            if is_given:
                raise ValueError(f"{option} has no effect {'without' if baseline is None else 'with'} --baseline")
        if baseline is not None and kb is None:
            raise ValueError("--baseline needs the knowledge base: give --kb KB_DIR")
        from spacy_gemel.evaluation.results import write_evaluation
        from spacy_gemel.evaluation.text import metrics_text

        shared: dict[str, Any] = {"tail_share": tail_share, "limit": limit, "progress": not quiet}
        if baseline is not None and kb is not None:
            from spacy_gemel.evaluation.baselines import evaluate_baseline

            shared |= {"ignore_case": ignore_case, "lang": lang or "en"}
            metrics, results = evaluate_baseline(baseline, Path(pipeline), data, kb, **shared)
        else:
            from spacy_gemel.evaluation import runner
            from spacy_gemel.pipeline.loaded_pipeline import load_pipeline

            options = runner.EvaluateOptions(
                use_image=False if no_image else None,
                constrained=False if unconstrained else None,
                n_demonstrations=n_demonstrations,
                predicted_ents=predicted_ents,
                batch_size=batch_size or None,
                **shared,
            )
            nlp = load_pipeline(pipeline, gpu_id=gpu_id)
            metrics, results = runner.evaluate(nlp, data, options, pipeline=pipeline)
        for path in output:
            write_evaluation(metrics, results, path)
        typer.echo(metrics_text(metrics))
        typer.echo("wrote " + ", ".join(str(path) for path in output))
