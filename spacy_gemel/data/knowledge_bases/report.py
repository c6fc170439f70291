"""What an import read, kept and left out, by reason, with the first places of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXAMPLES = 5


@dataclass(slots=True)
class ImportReport:
    """Counts of what was read and kept, what was left out or not taken as it stands by reason, notes on the whole.

    examples: the first places of each reason, as "file:line: content". disk_mb: the most disk that the temporary tables
    took, in MB of a million bytes.
    """

    kind: str
    sources: list[str]
    read: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    disk_mb: float = 0.0

    def drop(self, reason: str, where: str | Callable[[], str], number: int = 1) -> None:
        """Count what is left out; where it stands is asked for only while there is room for more examples."""
        if number <= 0:
            return
        self.dropped[reason] += number
        listed = self.examples.setdefault(reason, [])
        if len(listed) < EXAMPLES:
            listed.append(where() if callable(where) else where)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for OUT.jsonl.report.json."""
        dropped = {
            reason: {"count": number, "first": self.examples[reason]} for reason, number in sorted(self.dropped.items())
        }
        return {
            "kind": self.kind,
            "sources": self.sources,
            "read": dict(self.read),
            "kept": dict(self.kept),
            "dropped": dropped,
            "notes": self.notes,
            "seconds": round(self.seconds, 1),
            "temporary_disk_mb": round(self.disk_mb, 1),
        }

    def summary(self) -> str:
        """Some lines for a person."""
        lines = ["read: " + _listed(self.read), "kept: " + _listed(self.kept)]
        if self.dropped:
            lines.append("left out, or not taken as it stands:")
        for reason, number in sorted(self.dropped.items()):
            lines.append(f"  {number:,} x {reason}, such as {self.examples[reason][0]}")
        lines += self.notes
        lines.append(f"{self.seconds:.1f} s, {self.disk_mb:,.0f} MB of temporary tables, removed")
        return "\n".join(lines)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in counts.items()) or "nothing"


def report_path(out: Path) -> Path:
    """Where the report of an import to `out` lies."""
    return out.with_name(out.name + ".report.json")
