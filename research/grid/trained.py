"""Whether a training has led anywhere: an untrained mapper's figures are nobody's result."""

import re
from pathlib import Path

from research.grid.keeping import read_object

NO_BETTER = (
    "no update after the first made it better on dev data, so that the best checkpoint is the mapper as it was "
    "initialized: try another learning rate"
)
NEVER_LOOKED = (
    "it was evaluated on dev data once, after the first update, so that the best checkpoint is the mapper as it was "
    "initialized: give it a smaller eval_frequency, or more steps"
)
_RULE = re.compile(r"-{2,}( +-{2,})+\s*")


def led_nowhere(log: Path, pipeline: Path, linker: str) -> str:
    """Why the pipeline is the checkpoint of spaCy's first evaluation, which comes after one update; "" where it is not.

    log: what `spacy train` printed; its table and the pipeline's meta.json both have the loss of an evaluation. "" too
    where that cannot be told, as with another logger.
    """
    performance = read_object(pipeline / "meta.json").get("performance")
    loss = performance.get(f"{linker}_loss") if isinstance(performance, dict) else None
    losses = _losses(log)
    if not isinstance(loss, int | float) or not losses or f"{loss:.2f}" not in losses[0]:
        return ""
    return NO_BETTER if len(losses) > 1 else NEVER_LOOKED


def _losses(log: Path) -> list[list[str]]:
    """The losses in the table's rows, one of each pipe."""
    lines = log.read_text(encoding="utf8", errors="replace").splitlines() if log.is_file() else []
    rules = [index for index, line in enumerate(lines) if _RULE.fullmatch(line)]
    if not rules or not rules[-1]:
        return []
    pipes = lines[rules[-1] - 1].count("LOSS ")
    # epoch and step come first
    return [line.split()[2 : 2 + pipes] for line in lines[rules[-1] + 1 :] if line[:3].strip().isdigit()]
