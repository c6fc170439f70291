"""What went wrong with trials: kept with their keys, so that a later run can say so of a row that it does not try."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from research.grid.keeping import read_object, write_json


class Failures:
    """{trial's id: its key and the reason}, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, str]] = {
            id: {"key": str(found["key"]), "reason": str(found["reason"])}
            for id, found in read_object(path).items()
            if isinstance(found, dict) and {"key", "reason"} <= found.keys()
        }

    def reason(self, id: str, key: str) -> str | None:
        """Why the trial failed when it was last tried with these inputs; None where it did not."""
        found = self._known.get(id)
        return None if found is None or found["key"] != key else found["reason"]

    def note(self, tried: Mapping[str, str], wrong: Mapping[str, str]) -> None:
        """Write down how trials went. tried: id -> key. wrong: id -> reason, of those that failed."""
        before = {**self._known}
        self.forget(tried)
        self._known |= {id: {"key": tried[id], "reason": reason} for id, reason in wrong.items() if id in tried}
        if self._known != before:
            write_json(self._path, self._known)

    def forget(self, ids: Iterable[str]) -> None:
        """Leave these out from now on."""
        for id in ids:
            self._known.pop(id, None)
