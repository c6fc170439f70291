"""`describe`: the meta.json with which a pipeline is packaged."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import one_line_errors


def describe(
    pipeline: Annotated[Path, typer.Argument(help="A trained pipeline's folder.", file_okay=False)],
    out: Annotated[Path, typer.Argument(metavar="META.json", help="What to write: give it to spacy package --meta.")],
    metrics: Annotated[
        Path | None, typer.Option("--metrics", metavar="METRICS.json", help="What evaluate wrote of this pipeline.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The package's name, without the language.")] = None,
    version: Annotated[str | None, typer.Option(help="The package's version.")] = None,
    description: Annotated[str | None, typer.Option(help="One sentence; default: what it does.")] = None,
    author: Annotated[str | None, typer.Option()] = None,
    email: Annotated[str | None, typer.Option()] = None,
    url: Annotated[str | None, typer.Option(help="The author's page.")] = None,
    licence: Annotated[str | None, typer.Option("--license", help="The package's licence.")] = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", metavar='"NAME <URL>"', help="A data set; again for another.")
    ] = None,
) -> None:
    """Say what a pipeline was made from and how good it is, for the README and meta.json of its package.

    Then: python -m spacy package PIPELINE OUT --meta-path META.json --build wheel
    """
    with one_line_errors():
        import srsly

        from spacy_gemel.cli.model_card import METRICS_KEYS, machine_paths, make_meta, missing_models
        from spacy_gemel.evaluation.results import read_metrics
        from spacy_gemel.pipeline.loaded_pipeline import load_pipeline
        from spacy_gemel.utils.files import write_whole

        if not pipeline.is_dir():
            raise ValueError(f"{pipeline}: no such folder; give a trained pipeline's, as training/model-best")
        results = None if metrics is None else read_metrics(metrics, METRICS_KEYS)
        nlp = load_pipeline(str(pipeline))
        info = {"name": name, "version": version, "description": description, "author": author, "email": email}
        try:
            meta = make_meta(nlp, {**info, "url": url, "license": licence}, results, sources=source or ())
        except ValueError as error:
            raise ValueError(f"{metrics or pipeline}: {error}") from None
        for model in missing_models(nlp):
            message = f"the package will not contain {model!r}, a folder: train with bundle_models = true"
            typer.echo(f"warning: {message}", err=True)
        for path in machine_paths(pipeline):
            message = f"the package will carry a path of this machine: {path}; name it relative to the config"
            typer.echo(f"warning: {message}", err=True)
        with write_whole(out) as partial:
            srsly.write_json(partial, meta)
        typer.echo(str(out))
