"""`fit-decision`: what weighs the search's score, the prior, descriptions and the rest, and when to answer NIL."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import GpuId, Limit, Pipeline, Quiet, check_paths, one_line_errors


def fit_decision(
    pipeline: Pipeline,
    data: Annotated[
        Path,
        typer.Argument(metavar="DEV.spacy", help="Dev data, best with some NIL mentions; never training data."),
    ],
    output: Annotated[
        Path | None, typer.Argument(help="A new folder for the pipeline with the decision; without it nothing changes.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", "-r", metavar="DECISION.json", help="Where the figures go, and a page beside them."),
    ] = None,
    missing_as_nil: Annotated[
        bool, typer.Option("--missing-as-nil", help="A gold that the knowledge base does not have is NIL.")
    ] = False,
    limit: Limit = 0,
    batch_size: Annotated[int, typer.Option(help="Docs per batch.", min=1)] = 128,
    gpu_id: GpuId = -1,
    quiet: Quiet = False,
) -> None:
    """Fit the decision on dev data: one weight for each feature of a candidate, and one for NIL.

    Says what each feature is worth on docs that it was not fitted on, and how far probabilities can be trusted before
    and after.
    """
    with one_line_errors():
        from spacy_gemel.evaluation.decision_cases import collect_cases
        from spacy_gemel.evaluation.decision_report import fit_report
        from spacy_gemel.evaluation.report import write_decision
        from spacy_gemel.evaluation.text import decision_text
        from spacy_gemel.pipeline.loaded_pipeline import check_new_folder, linker_of, load_pipeline, save_changed

        check_paths(data, *([] if report is None else [report]))
        if output is not None:
            check_new_folder(pipeline, output)
        nlp = load_pipeline(pipeline, gpu_id=gpu_id)
        linker = linker_of(nlp)
        cases, columns = collect_cases(
            nlp, data, missing_as_nil=missing_as_nil, limit=limit, batch_size=batch_size, progress=not quiet
        )
        features = {type(feature).__name__: feature.columns for feature in linker.features}
        decision, content = fit_report(cases, columns, features)
        settings = {"pipeline": pipeline, "data": data.as_posix(), "limit": limit, "missing_as_nil": missing_as_nil}
        content = {"settings": settings, **content}
        typer.echo(decision_text(content))
        if report is not None:
            typer.echo(f"wrote {report} and {write_decision(content, report)}")
        if output is None:
            typer.echo("the pipeline is unchanged: name a folder for the one that decides so")
        else:
            save_changed(nlp, {"prior_weight": 0.0, "threshold": None}, output, decision)
            typer.echo(f"wrote {output}, which decides with these weights")
