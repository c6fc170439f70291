"""`size`: what a config would take, before anything is downloaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_gemel.cli.common import one_line_errors

if TYPE_CHECKING:
    from spacy_gemel.cli.size_estimate import Data, Estimate, Gpu


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(size)


def size(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.cfg", help="A config, or the folder of a pipeline.")],
    component: Annotated[str | None, typer.Option(help="The linker's name, if the config has several.")] = None,
    model_config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG.json", help="The language model's config.json, if its name is not known."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            help="rtx-4060 (the default), rtx-3090, rtx-4090, a100 or h100, at half of its data sheet's operations; "
            "any other with its own figures."
        ),
    ] = None,
    tflops: Annotated[float | None, typer.Option(help="Sustained TFLOP/s, in place of the GPU's.", min=0.001)] = None,
    bandwidth: Annotated[
        float | None, typer.Option(help="Sustained GB/s of memory, in place of the GPU's.", min=0.001)
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="GiB, in place of the GPU's, to judge whether it fits.", min=0.001)
    ] = None,
    mentions: Annotated[int, typer.Option(help="Of the training set; default: WikiDiverse's.", min=1)] = 11_098,
    docs: Annotated[
        int | None, typer.Option(help="Of the training set; default: with WikiDiverse's mentions per doc.", min=1)
    ] = None,
    dev_mentions: Annotated[int, typer.Option(help="Of the dev data; default: WikiDiverse's.", min=1)] = 1_617,
    epochs: Annotated[int, typer.Option(help="If they do not follow from the config.", min=1)] = 5,
    text_tokens: Annotated[
        int, typer.Option(help="Tokens of a demonstration: text, question, answer; no visual prefix.", min=1)
    ] = 48,
    entities: Annotated[int, typer.Option(help="Of the knowledge base.", min=1)] = 6_000_000,
) -> None:
    """Compute memory, hours of training and mentions per second of a config: computed, not measured.

    Needs no GPU, no weights and no network. docs/sizes.md lists the assumptions.
    """
    with one_line_errors():
        from spacy_gemel.cli.size_estimate import Data, estimate, find_gpu

        machine = find_gpu(gpu, tflops, bandwidth, memory)
        docs = docs or max(1, round(mentions * Data().docs / Data().mentions))
        data = Data(mentions, docs, dev_mentions, text_tokens, entities=entities, epochs=epochs)
        linker, training, folder = read_config(config, component)
        result = estimate(linker, training, machine, data, folder=folder, model_config=model_config)
        typer.echo("\n".join(lines(result, machine, data)))


def read_config(config: Path, component: str | None = None) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """The linker's block and the training block of a .cfg file or a pipeline's folder, defaults filled in; its folder.

    Raises:
        ValueError: If there is no such file or linker.
    """
    from spacy import util
    from spacy.language import DEFAULT_CONFIG as SPACY_DEFAULTS
    from thinc.api import Config

    from spacy_gemel.pipeline.gemel_linker import DEFAULT_CONFIG
    from spacy_gemel.pipeline.loaded import FACTORY

    file = config / "config.cfg" if config.is_dir() else config
    if not file.is_file():
        raise ValueError(f"{config}: no config there: give a .cfg file, or the folder of a pipeline")
    try:
        content = util.load_config(file, interpolate=True)
    except ValueError as error:
        raise ValueError(f"{file}: spaCy cannot read this config: {error}") from error
    linkers = {n: block for n, block in content.get("components", {}).items() if block.get("factory") == FACTORY}
    if component is not None and component not in linkers:
        raise ValueError(f"{file}: no {FACTORY} is called {component!r} there (found: {', '.join(linkers) or 'none'})")
    if component is None and len(linkers) != 1:
        names = f"several ({', '.join(linkers)}): choose one with --component" if linkers else "none"
        raise ValueError(f"{file}: one {FACTORY} is needed, and there is {names}")
    block = linkers[component or next(iter(linkers))]
    # merged one by one: a block of another registered name has none of the default's settings
    filled = Config({"linker": DEFAULT_CONFIG}).merge({"linker": {k: v for k, v in block.items() if k != "factory"}})
    training = Config(SPACY_DEFAULTS["training"]).merge(Config(content.get("training", {})))
    return dict(filled["linker"]), dict(training), file.parent


def lines(result: "Estimate", gpu: "Gpu", data: "Data") -> list[str]:
    """A table of two columns, what is not known, and a verdict if the GPU's memory is known."""
    dev = f"{data.dev_mentions:,} mentions"
    if result.evaluations is None:
        evaluations = (f"each evaluation, {dev}", f"{result.evaluation_hours:.1f} hours ({gpu.name})")
    else:
        hours = result.evaluations * result.evaluation_hours
        evaluations = (f"{result.evaluations} evaluations, {dev} each", f"{hours:.1f} hours ({gpu.name})")
    assumed = " (assumed)" if result.epochs_assumed else ""
    rows = [
        ("language model", f"{_count(result.parameters)} parameters, {_gib(result.language_model)}"),
        ("vision encoder, retriever's model", f"{_gib(result.encoder)}, {_gib(result.retriever)}"),
        ("mapper, its gradient and Adam", f"{_gib(result.mapper)}, {_gib(result.optimizer)}"),
        ("prompt: linking, training", f"{result.prompt} tokens, {result.training_prompt} tokens"),
        ("prompts at once: linking, training", f"{result.rows}, {result.training_rows}"),
        ("keys and values of a batch", _gib(result.cache)),
        ("activations of a training step", _gib(result.activations)),
        ("memory, linking", _gib(result.linking)),
        ("memory, training", _gib(result.training)),
        (f"trie of {data.entities / 1e6:g}M names, not on the GPU", _gib(result.trie)),
        (
            "operations: mention, training step",
            f"{_operations(result.operations_mention)}, {_operations(result.operations_step)}",
        ),
        (
            f"training, {data.mentions:,} mentions x {result.epochs:.2g} epochs{assumed}",
            f"{result.training_hours:.1f} hours ({gpu.name})",
        ),
        evaluations,
        ("linking", f"{result.mentions_per_second:.1f} mentions per second ({gpu.name})"),
    ]
    width = max(len(label) for label, _ in rows)
    text = [f"{label:<{width}}  {value}" for label, value in rows]
    text += [f"not included: {problem}" for problem in result.unknown]
    if gpu.memory is not None:
        most = max(result.training, result.linking) / 2**30
        # A tenth is left for the display and for what torch's allocator cannot use.
        verdict = "fits" if most <= 0.9 * gpu.memory else "does NOT fit"
        text.append(f"{verdict}: {most:.1f} of {gpu.memory:g} GiB")
    return text


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size < 10 * 2**30 else f"{size / 2**30:.1f} GiB"


def _operations(operations: float) -> str:
    return f"{operations / 1e12:.2f} TFLOP" if operations >= 1e11 else f"{operations / 1e9:.2f} GFLOP"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"
