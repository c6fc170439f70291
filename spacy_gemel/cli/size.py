"""`size`: what a config would take, before anything is downloaded."""

from pathlib import Path
from typing import Annotated

import typer

from spacy_gemel.cli.common import one_line_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(size)


def size(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.cfg", help="A config, or the folder of a pipeline.")],
    component: Annotated[str | None, typer.Option(help="The linker's name, where the config has several.")] = None,
    model_config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG.json", help="The language model's config.json, where its name is not known."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="rtx-4060 (the default), rtx-3090, rtx-4090, a100 or h100: half of its data sheet's operations; any "
            "other with its own figures."
        ),
    ] = None,
    tflops: Annotated[float | None, typer.Option(help="Sustained TFLOP/s, in place of the GPU's.", min=0.001)] = None,
    bandwidth: Annotated[
        float | None, typer.Option(help="Sustained GB/s of memory, in place of the GPU's.", min=0.001)
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="GiB, in place of the GPU's: what is judged whether it fits.", min=0.001)
    ] = None,
    mentions: Annotated[int, typer.Option(help="Of the training set; default: WikiDiverse's.", min=1)] = 11_098,
    docs: Annotated[
        int | None, typer.Option(help="Of the training set; default: with as many mentions each as there.", min=1)
    ] = None,
    dev_mentions: Annotated[int, typer.Option(help="Of the dev data; default: WikiDiverse's.", min=1)] = 1_617,
    epochs: Annotated[int, typer.Option(help="Where they do not follow from the config.", min=1)] = 5,
    text_tokens: Annotated[
        int, typer.Option(help="Tokens of a demonstration: text, question, answer; no visual prefix.", min=1)
    ] = 48,
    entities: Annotated[int, typer.Option(help="Of the knowledge base.", min=1)] = 6_000_000,
) -> None:
    """Compute memory, hours of training and mentions per second of a config: computed, not measured.

    Needs no GPU, no weights and no network. Assumed is what docs/sizes.md says.
    """
    with one_line_errors():
        from research.sizing.estimate import Data, estimate
        from research.sizing.gpus import find_gpu
        from research.sizing.plan import read_plan
        from research.sizing.table import lines

        machine = find_gpu(gpu, tflops, bandwidth, memory)
        there = Data()
        data = Data(
            mentions=mentions,
            docs=docs or max(1, round(mentions * there.docs / there.mentions)),
            dev_mentions=dev_mentions,
            text=text_tokens,
            entities=entities,
            epochs=epochs,
        )
        found = estimate(read_plan(config, component), machine, data, model_config)
        typer.echo("\n".join(lines(found, machine, data)))
