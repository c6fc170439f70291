"""Write the table of docs/sizes.md anew: python -m research.sizes."""

import re
from pathlib import Path

from spacy_gemel.cli.size import read_config
from spacy_gemel.cli.size_estimate import GPUS, Data, Estimate, estimate

ROOT = Path(__file__).parent.parent
CONFIGS = {"small.cfg": "rtx-4060", "paper.cfg": "a100"}
_NAMES = {"rtx-4060": "RTX 4060", "a100": "A100 80 GB"}
_TABLE = re.compile(r"^\| \| small\.cfg.*?(?=\n\n)", re.MULTILINE | re.DOTALL)


def table() -> str:
    """The table in Markdown: one column per config, each on its GPU."""
    columns = {name: _column(name, gpu) for name, gpu in CONFIGS.items()}
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for label in next(iter(columns.values())):
        lines.append(f"| {label} | " + " | ".join(column[label] for column in columns.values()) + " |")
    return "\n".join(lines)


def _column(name: str, gpu: str) -> dict[str, str]:
    config = ROOT / "configs" / name
    linker, training, folder = read_config(config)

    def of(**settings: int) -> Estimate:
        return estimate({**linker, **settings}, training, GPUS[gpu], folder=folder)

    result, data, machine = of(), Data(), _NAMES[gpu]
    model = linker["language_model"]["name"].split("/")[-1].replace("-7b-hf", "-7B")
    speed = f"{result.mentions_per_second:.1f}, {machine}"
    if linker["batch_tokens"] < 8192:
        speed += f" ({of(batch_tokens=8192).mentions_per_second:.1f} with `batch_tokens = 8192`)"
    hours = (result.evaluations or 0) * result.evaluation_hours
    operations = (result.operations_mention, result.operations_step)
    return {
        "language model": f"{model}, {_gib(result.language_model)} in bf16",
        "memory while linking": _gib(result.linking),
        "memory while training": _gib(result.training),
        "operations of a mention, of a training step": ", ".join(f"{n / 1e12:.2f}" for n in operations) + " TFLOP",
        f"training on WikiDiverse, {data.mentions:,} mentions x {result.epochs:g} epochs": (
            f"{result.training_hours:.1f} hours, {machine}"
        ),
        f"evaluations meanwhile, of its {data.dev_mentions:,} dev mentions": f"{result.evaluations}: {hours:.1f} hours",
        "mentions per second": speed,
    }


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def main() -> None:
    """Replace the table in docs/sizes.md."""
    page = ROOT / "docs" / "sizes.md"
    page.write_text(_TABLE.sub(lambda _: table(), page.read_text(encoding="utf8"), count=1), encoding="utf8")


if __name__ == "__main__":
    main()
