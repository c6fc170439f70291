"""`calibrate`: probabilities that can be taken at their word, and the threshold below which a mention is NIL."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import Quiet, one_line_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(calibrate)


def calibrate(
    pipeline: Annotated[str, typer.Argument(help="A trained pipeline: a folder, or an installed package.")],
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
        bool, typer.Option("--missing-as-nil", help="A gold that the knowledge base does not hold is NIL.")
    ] = False,
    predicted_ents: Annotated[
        bool, typer.Option("--predicted-ents", help="Link what the pipeline's own NER finds.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Read so many docs at most, 0 for all.", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Docs per batch, 0 for the pipeline's own.", min=0)] = 0,
    gpu_id: Annotated[int, typer.Option("--gpu-id", "-g", help="GPU to run on, -1 for the CPU.")] = -1,
    quiet: Quiet = False,
) -> None:
    """Fit the temperature of the candidates' probabilities and the NIL threshold on dev data.

    Without --save or --in-place the pipeline stays as it is.
    """
    with one_line_errors():
        from spacy_gemel.evaluation import calibration, calibration_report, runner
        from spacy_gemel.pipeline import calibrated
        from spacy_gemel.pipeline.loaded import load_pipeline

        if not data.exists():
            raise ValueError(f"{data}: no such file or folder; make it with python -m spacy_gemel convert")
        if output is not None and output.suffix != ".json":
            raise ValueError(f"{output}: the output must end in .json")
        calibrated.check_target(pipeline, save, in_place=in_place)
        nlp = load_pipeline(pipeline, gpu_id=gpu_id)
        before = calibrated.decision_of(nlp)
        options = runner.EvaluateOptions(
            predicted_ents=predicted_ents,
            limit=limit,
            batch_size=batch_size or None,
            progress=not quiet,
            demonstrations=False,
        )
        metrics, results = runner.evaluate(nlp, data, options, pipeline=pipeline)
        found = calibration.calibrate(results, before, missing_as_nil=missing_as_nil)
        written = {"settings": {**metrics["settings"], "missing_as_nil": missing_as_nil}, **found.to_json()}
        typer.echo(calibration_report.table(written))
        if output is not None:
            page = calibration_report.write_calibration(written, output)
            typer.echo(f"wrote {output} and {page}")
        target = Path(pipeline) if in_place else save
        if target is None:
            typer.echo("the pipeline is as it was: give --save DIR or --in-place to have these values in it")
        else:
            calibrated.save_calibrated(nlp, found.after, target)
            typer.echo(f"{target}: decides with these values from now on")
