"""Write the table of docs/sizes.md anew: python -m research.sizes."""

import re
from pathlib import Path
from typing import Any

from spacy_gemel.cli.common import read_config
from spacy_gemel.cli.size_estimate import GPUS, Data, estimate

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
    _, linker, training, folder = read_config(config)
    data, machine = Data(), _NAMES[gpu]

    def of(**settings: int) -> dict[str, Any]:
        return estimate({**linker, **settings}, training, GPUS[gpu], data, folder)

    figures = of()
    model = linker["language_model"]["name"].split("/")[-1].replace("-7b-hf", "-7B")
    speed = f"{figures['mentions_per_second']:.1f}, {machine}"
    if linker["batch_tokens"] < 8192:
        speed += f" ({of(batch_tokens=8192)['mentions_per_second']:.1f} with `batch_tokens = 8192`)"
    hours = (figures["evaluations"] or 0) * figures["evaluation_hours"]
    operations = ", ".join(f"{figures[key] / 1e12:.2f}" for key in ("mention_operations", "step_operations"))
    return {
        "language model": f"{model}, {_gib(figures['language_model'])} in bf16",
        "memory while linking": _gib(figures["linking"]),
        "memory while training": _gib(figures["training"]),
        "operations of a mention, of a training step": f"{operations} TFLOP",
        f"training on WikiDiverse, {data.mentions:,} mentions x {figures['epochs']:.2g} epochs": (
            f"{figures['training_hours']:.1f} hours, {machine}"
        ),
        f"evaluations meanwhile, of its {data.dev_mentions:,} dev mentions": (
            f"{figures['evaluations']}: {hours:.1f} hours"
        ),
        "mentions per second": speed,
    }


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def main() -> None:
    """Replace the table in docs/sizes.md."""
    page = ROOT / "docs" / "sizes.md"
    page.write_text(_TABLE.sub(lambda _: table(), page.read_text(encoding="utf8"), count=1), encoding="utf8")


if __name__ == "__main__":
    main()
