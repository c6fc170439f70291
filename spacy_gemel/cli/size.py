"""`size`: what a config would take, before anything is downloaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacy_gemel.cli.common import Component, one_line_errors, read_config

if TYPE_CHECKING:
    from spacy_gemel.cli.size_estimate import Data, Gpu


def size(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.cfg", help="A config, or the folder of a pipeline.")],
    component: Component = None,
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
    bandwidth: Annotated[float | None, typer.Option(help="Sustained GB/s, in place of the GPU's.", min=0.001)] = None,
    memory: Annotated[
        float | None, typer.Option(help="GiB, in place of the GPU's, to judge if it fits.", min=0.001)
    ] = None,
    mentions: Annotated[int, typer.Option(help="Of the training set; default: WikiDiverse's.", min=1)] = 11_098,
    docs: Annotated[int | None, typer.Option(help="Of the training set; default: one for two mentions.", min=1)] = None,
    dev_mentions: Annotated[int, typer.Option(help="Of the dev data; default: WikiDiverse's.", min=1)] = 1_617,
    epochs: Annotated[int, typer.Option(help="If they do not follow from the config.", min=1)] = 5,
    text_tokens: Annotated[int, typer.Option(help="Of a demonstration, without its visual prefix.", min=1)] = 48,
    entities: Annotated[int, typer.Option(help="Of the knowledge base.", min=1)] = 6_000_000,
) -> None:
    """Compute memory, hours of training and mentions per second of a config: computed, not measured.

    Needs no GPU, no weights and no network. docs/sizes.md lists the assumptions.
    """
    with one_line_errors():
        from spacy_gemel.cli.size_estimate import Data, estimate, find_gpu

        machine = find_gpu(gpu, tflops, bandwidth, memory)
        docs = docs or max(1, round(mentions * Data().docs / Data().mentions))
        data = Data(mentions, docs, dev_mentions, text_tokens, entities, epochs)
        _, linker, training, folder = read_config(config, component)
        figures = estimate(linker, training, machine, data, folder, model_config)
        typer.echo("\n".join(lines(figures, machine, data)))


def lines(figures: dict[str, Any], gpu: "Gpu", data: "Data") -> list[str]:
    """A table of two columns, what is left out, and a verdict if the GPU's memory is known."""
    sizes = {key: _gib(value) for key, value in figures.items() if isinstance(value, int | float)}
    operations = (f"{figures[key] / 1e12:.3g} TFLOP" for key in ("mention_operations", "step_operations"))
    n, hours = figures["evaluations"], figures["evaluation_hours"]
    evaluations = f"{n} evaluations, {data.dev_mentions:,} mentions each"
    if n is None:
        evaluations = f"each evaluation, {data.dev_mentions:,} mentions"
    epochs = f"{figures['epochs']:.2g} epochs" + (" (assumed)" if figures["epochs_assumed"] else "")
    table = {
        "language model": f"{figures['parameters'] / 1e9:.3g}B parameters, {sizes['language_model']}",
        "vision encoder, retriever's model": f"{sizes['encoder']}, {sizes['retriever']}",
        "mapper, its gradient and Adam": f"{sizes['mapper']}, {_gib(3 * figures['mapper'])}",
        "prompt: linking, training": f"{figures['prompt']} tokens, {figures['training_prompt']} tokens",
        "prompts at once: linking, training": f"{figures['rows']}, {figures['training_rows']}",
        "keys and values of a batch": sizes["cache"],
        "activations of a training step": sizes["activations"],
        "memory, linking": sizes["linking"],
        "memory, training": sizes["training"],
        f"trie of {data.entities / 1e6:g}M names, not on the GPU": sizes["trie"],
        "vectors of descriptions, if encoded": sizes["description_vectors"],
        "operations: mention, training step": ", ".join(operations),
        f"training, {data.mentions:,} mentions x {epochs}": f"{figures['training_hours']:.1f} hours ({gpu.name})",
        evaluations: f"{(n or 1) * hours:.1f} hours ({gpu.name})",
        "linking": f"{figures['mentions_per_second']:.1f} mentions per second ({gpu.name})",
    }
    width = max(map(len, table))
    text = [f"{label:<{width}}  {value}" for label, value in table.items()]
    text += [f"not included: {problem}" for problem in figures["unknown"]]
    if gpu.memory is not None:
        most = max(figures["training"], figures["linking"]) / 2**30
        # a tenth is left for the display and for what torch's allocator cannot use
        text.append(f"{'fits' if most <= 0.9 * gpu.memory else 'does NOT fit'}: {most:.1f} of {gpu.memory:g} GiB")
    return text


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size < 10 * 2**30 else f"{size / 2**30:.1f} GiB"
