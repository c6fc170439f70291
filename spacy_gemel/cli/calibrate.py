"""`calibrate`: calibrated probabilities, and the threshold below which a mention is NIL."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import BatchSize, GpuId, Limit, Pipeline, PredictedEnts, Quiet, check_paths, one_line_errors


def calibrate(
    pipeline: Pipeline,
    data: Annotated[Path, typer.Argument(metavar="DEV.spacy", help="Dev data, best with some mentions that are NIL.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="CALIBRATION.json", help="Write the figures, and a page beside them."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the calibrated pipeline to a new folder.")
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Change PIPELINE itself.")] = False,
    missing_as_nil: Annotated[
        bool, typer.Option("--missing-as-nil", help="A gold that the knowledge base does not have is NIL.")
    ] = False,
    predicted_ents: PredictedEnts = False,
    limit: Limit = 0,
    batch_size: BatchSize = 0,
    gpu_id: GpuId = -1,
    quiet: Quiet = False,
) -> None:
    """Fit the temperature of the candidates' probabilities and the NIL threshold on dev data.

    Without --save or --in-place the pipeline is not changed.
    """
    with one_line_errors():
        from spacy_gemel.evaluation import calibration, runner
        from spacy_gemel.evaluation.report import write_calibration
        from spacy_gemel.evaluation.text import calibration_text
        from spacy_gemel.pipeline.loaded_pipeline import check_target, linker_of, load_pipeline, save_changed

        check_paths(data, *([] if output is None else [output]))
        check_target(pipeline, save, in_place=in_place)
        nlp = load_pipeline(pipeline, gpu_id=gpu_id)
        settings = linker_of(nlp).settings
        current = calibration.Decision(settings.temperature, settings.threshold)
        options = runner.EvaluateOptions(
            predicted_ents=predicted_ents,
            limit=limit,
            batch_size=batch_size or None,
            progress=not quiet,
            demonstrations=False,
        )
        metrics, results = runner.evaluate(nlp, data, options, pipeline=pipeline)
        result = calibration.calibrate(results, current, missing_as_nil=missing_as_nil)
        content = {"settings": {**metrics["settings"], "missing_as_nil": missing_as_nil}, **result}
        typer.echo(calibration_text(content))
        if output is not None:
            typer.echo(f"wrote {output} and {write_calibration(content, output)}")
        target = Path(pipeline) if in_place else save
        if target is None:
            typer.echo("the pipeline is unchanged: give --save DIR or --in-place to store these values in it")
        else:
            save_changed(nlp, {key: result["after"][key] for key in ("temperature", "threshold")}, target)
            typer.echo(f"{target}: now decides with these values")
