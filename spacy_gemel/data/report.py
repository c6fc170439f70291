"""Reports on what a command read and left out: counts by reason, and the file beside the output."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spacy_gemel.utils.files import write_json

EXAMPLES = 5


class ReasonCounter(Counter[str]):
    """Counts by reason; `examples` holds where the first five of each reason stand, as "file:line: content"."""

    def __init__(self) -> None:
        super().__init__()
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, where: str | Callable[[], str] = "", number: int = 1) -> None:
        """Count `number` things; `where` is called, or kept if it is not empty, while examples are missing."""
        if number <= 0:
            return
        self[reason] += number
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES and where:
            examples.append(where() if callable(where) else where)

    def lines(self, kind: str = "") -> list[str]:
        """One line per reason for a person, sorted by reason; `kind` ("row: ") stands before each reason."""
        first = {reason: f", such as {examples[0]}" for reason, examples in self.examples.items() if examples}
        return [f"  {n:,} x {kind}{reason}{first.get(reason, '')}" for reason, n in sorted(self.items())]

    def to_dict(self) -> dict[str, Any]:
        """Each reason with its count and first examples, sorted by reason, as plain data."""
        return {reason: {"count": n, "first": self.examples.get(reason, [])} for reason, n in sorted(self.items())}


def report_path(out: Path) -> Path:
    """Path of the report on what was written to `out`."""
    return out.with_name(out.name + ".report.json")


def write_report(out: Path, content: dict[str, Any]) -> None:
    """Write the report on `out` as indented JSON, whole or not at all."""
    write_json(report_path(out), content)
