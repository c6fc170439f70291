"""Whether a training has led anywhere: an untrained mapper's figures are nobody's result."""

import re
from pathlib import Path

from spacy_gemel.experiments.keeping import read_object

WHY_NOT = (
    "no update after the first made it better on dev data, so that the best checkpoint is the mapper as it was "
    "initialized: try another learning rate"
)
_RULE = re.compile(r"-{2,}( +-{2,})+\s*")


def is_untrained(log: Path, pipeline: Path, linker: str) -> bool:
    """Whether the pipeline is the checkpoint of spaCy's first evaluation, which comes after one update.

    log: what `spacy train` printed; its table and the pipeline's meta.json both have the loss of an evaluation. False
    where that cannot be told, as with another logger.
    """
    performance = read_object(pipeline / "meta.json").get("performance")
    loss = performance.get(f"{linker}_loss") if isinstance(performance, dict) else None
    rows = _rows(log)
    return isinstance(loss, int | float) and bool(rows) and f"{loss:.2f}" in rows[0]


def _rows(log: Path) -> list[list[str]]:
    """The cells of the table's rows."""
    lines = log.read_text(encoding="utf8", errors="replace").splitlines() if log.is_file() else []
    rules = [place for place, line in enumerate(lines) if _RULE.fullmatch(line)]
    return [line.split() for line in lines[rules[-1] + 1 :] if line[:3].strip().isdigit()] if rules else []
