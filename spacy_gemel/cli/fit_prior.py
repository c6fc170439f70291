"""`fit-prior`: the weight of what a mention usually means in a candidate's score, from dev data."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import GpuId, Limit, Pipeline, Quiet, check_paths, one_line_errors


def fit_prior(
    pipeline: Pipeline,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DEV.spacy", help="Dev data. Never the training data: the prior knows what its mentions mean."
        ),
    ],
    output: Annotated[Path, typer.Argument(help="A new folder for the pipeline with the fitted prior_weight.")],
    report: Annotated[
        Path | None,
        typer.Option("--report", "-r", metavar="PRIOR.json", help="Where the figures go; default: OUTPUT.json."),
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation; no doc is split.", min=2)] = 5,
    limit: Limit = 0,
    batch_size: Annotated[int, typer.Option(help="Docs per batch.", min=1)] = 128,
    gpu_id: GpuId = -1,
    quiet: Quiet = False,
) -> None:
    """Fit prior_weight on dev data, not on training data, and write the pipeline with it to a new folder.

    The prior, P(entity | mention), comes from the training examples in the pipeline and from the names and aliases of
    its knowledge base. The report says how well the model alone, the prior alone and both do on docs that the weight
    was not fitted on.
    """
    with one_line_errors():
        from spacy_gemel.evaluation import prior_weight
        from spacy_gemel.evaluation.text import prior_text
        from spacy_gemel.pipeline.loaded_pipeline import check_new_folder, linker_of, load_pipeline, save_changed
        from spacy_gemel.utils.files import write_json

        report = report or output.with_name(output.name + ".json")
        check_paths(data, report)
        check_new_folder(pipeline, output)
        nlp = load_pipeline(pipeline, gpu_id=gpu_id)
        settings = linker_of(nlp).settings
        cases = prior_weight.collect_cases(nlp, data, limit=limit, batch_size=batch_size, progress=not quiet)
        content = {
            "settings": {"pipeline": pipeline, "data": data.as_posix(), "limit": limit, "folds": folds},
            **prior_weight.fit_prior(cases, settings, folds=folds),
        }
        typer.echo(prior_text(content))
        save_changed(nlp, {"prior_weight": content["prior_weight"]}, output)
        write_json(report, content)
        typer.echo(f"wrote {output}, which links with prior_weight = {content['prior_weight']:g}, and {report}")
