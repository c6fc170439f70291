"""An estimate as people read it."""

from research.sizing.estimate import Data, Estimate
from research.sizing.gpus import Gpu


def lines(found: Estimate, gpu: Gpu, data: Data) -> list[str]:
    """A table of two columns, and a verdict where the GPU's memory is known."""
    rows = [
        ("language model", f"{_count(found.parameters)} parameters, {_gib(found.language_model)}"),
        ("vision encoder, retriever's model", f"{_gib(found.encoder)}, {_gib(found.retriever)}"),
        ("mapper, its gradient and Adam", f"{_gib(found.mapper)}, {_gib(found.optimizer)}"),
        ("prompt: linking, training", f"{found.prompt} tokens, {found.training_prompt} tokens"),
        ("prompts at once: linking, training", f"{found.rows}, {found.training_rows}"),
        ("keys and values of a batch", _gib(found.cache)),
        ("activations of a training step", _gib(found.activations)),
        ("memory, linking", _gib(found.linking)),
        ("memory, training", _gib(found.training)),
        (f"trie of {data.entities / 1e6:g}M names, not on the GPU", _gib(found.trie)),
        (
            "operations: mention, training step",
            f"{_operations(found.operations_mention)}, {_operations(found.operations_step)}",
        ),
        (
            f"training, {data.mentions:,} mentions x {found.epochs:.2g} epochs"
            + ("" if found.epochs_follow else " (assumed)"),
            f"{found.training_hours:.1f} hours ({gpu.name})",
        ),
        _evaluations(found, gpu, data),
        ("linking", f"{found.mentions_per_second:.1f} mentions per second ({gpu.name})"),
    ]
    width = max(len(label) for label, _ in rows)
    message = [f"{label:<{width}}  {value}" for label, value in rows]
    if gpu.memory is not None:
        most = max(found.training, found.linking) / 2**30
        share = f"{most:.1f} of {gpu.memory:g} GiB"
        # A tenth is left for the display and for what torch's allocator cannot use.
        message.append(f"{'fits' if most <= 0.9 * gpu.memory else 'does NOT fit'}: {share}")
    return message


def _evaluations(found: Estimate, gpu: Gpu, data: Data) -> tuple[str, str]:
    mentions = f"{data.dev_mentions:,} mentions"
    if found.evaluations is None:
        return f"each evaluation, {mentions}", f"{found.evaluation_hours:.1f} hours ({gpu.name})"
    hours = found.evaluations * found.evaluation_hours
    return f"{found.evaluations} evaluations, {mentions} each", f"{hours:.1f} hours ({gpu.name})"


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size < 10 * 2**30 else f"{size / 2**30:.1f} GiB"


def _operations(operations: float) -> str:
    return f"{operations / 1e12:.2f} TFLOP" if operations >= 1e11 else f"{operations / 1e9:.2f} GFLOP"


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"
