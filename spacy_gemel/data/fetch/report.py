"""What came of a fetch: counts by reason, and a file that lists every failure."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from spacy_gemel.utils.files import write_whole

FAILED = "failed.jsonl"


@dataclass(frozen=True, slots=True)
class Failure:
    """A URL that was not fetched. where: its place in the source, where it never was a URL; tries: requests made."""

    url: str
    reason: str
    detail: str = ""
    where: str = ""
    tries: int = 0


@dataclass(slots=True)
class FetchReport:
    """How many URLs there were, which of them are in the folder, and why the others are not."""

    urls: int = 0
    before: int = 0
    fetched: int = 0
    bytes: int = 0
    files: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)

    def lines(self, folder: Path) -> list[str]:
        """A few lines for a person."""
        there = self.before + self.fetched
        lines = [
            f"{folder}: {there} of {self.urls} URLs are there, {self.before} of them were before; "
            f"{len(self.files)} files, {self.bytes / 2**20:.1f} MiB fetched now"
        ]
        lines += [f"  {n} x {reason}" for reason, n in Counter(item.reason for item in self.failures).most_common()]
        if self.failures:
            lines.append(f"what failed, and why, is in {folder / FAILED}; the same command tries again")
        return lines


def write_failures(folder: Path, failures: list[Failure]) -> None:
    """Write failed.jsonl of a folder, empty where all is well."""
    with write_whole(folder / FAILED) as partial:
        text = "".join(json.dumps(asdict(failure), ensure_ascii=True) + "\n" for failure in failures)
        partial.write_text(text, encoding="ascii")
