"""`fit-prior`: how much a candidate's score should heed what its mention usually means, from dev data."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import Quiet, one_line_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fit-prior")(fit_prior)


def fit_prior(
    pipeline: Annotated[str, typer.Argument(help="A trained pipeline: a folder, or an installed package.")],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DEV.spacy", help="Dev data. Never the training data: the prior knows what its mentions mean."
        ),
    ],
    output: Annotated[Path, typer.Argument(help="A new folder for the pipeline with the fitted prior_weight.")],
    report: Annotated[
        Path | None,
        typer.Option("--report", "-r", metavar="PRIOR.json", help="Where the figures go; without it, to OUTPUT.json."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation; no doc is split.", min=2)] = 5,
    limit: Annotated[int, typer.Option(help="Read so many docs at most, 0 for all.", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Docs per batch.", min=1)] = 128,
    gpu_id: Annotated[int, typer.Option("--gpu-id", "-g", help="GPU to run on, -1 for the CPU.")] = -1,
    quiet: Quiet = False,
) -> None:
    """Fit prior_weight on dev data, that is not the training data, and write the pipeline with it to a new folder.

    The prior, P(entity | mention), comes from the training examples in the pipeline and from the names and aliases of
    its knowledge base. The report tells what the model alone, the prior alone and both are worth on docs that the
    weight was not fitted on.
    """
    with one_line_errors():
        from spacy_gemel.evaluation import prior_cases, prior_report
        from spacy_gemel.pipeline import calibrated
        from spacy_gemel.pipeline.loaded import linker_of, load_pipeline

        report = output.with_name(output.name + ".json") if report is None else report
        if not data.exists():
            raise ValueError(f"{data}: no such file or folder; make it with python -m spacy_gemel convert")
        if report.suffix != ".json":
            raise ValueError(f"{report}: the report must end in .json")
        calibrated.check_new_folder(pipeline, output)
        nlp = load_pipeline(pipeline, gpu_id=gpu_id)
        settings = linker_of(nlp).settings
        cases = prior_cases.collect_cases(nlp, data, limit=limit, batch_size=batch_size, progress=not quiet)
        written = {
            "settings": {"pipeline": pipeline, "data": data.as_posix(), "limit": limit, "folds": folds},
            **prior_report.fitted(cases, settings, folds=folds),
        }
        typer.echo(prior_report.table(written))
        calibrated.save_changed(nlp, {"prior_weight": written["prior_weight"]}, output)
        prior_report.write_report(written, report)
        typer.echo(f"wrote {output}, which links with prior_weight = {written['prior_weight']:g}, and {report}")
