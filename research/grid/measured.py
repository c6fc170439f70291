"""The kept figures of a trial: METRICS.json with the trial's key, and with what must be in the mentions beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research.grid.inputs import Digests
from research.grid.keeping import read_object, seconds_in, write_json
from spacy_gemel.evaluation.results import MentionResult, mentions_path, write_mentions
from spacy_gemel.kb.meta import sha256_of


def write_measured(metrics: Mapping[str, Any], results: Sequence[MentionResult], output: Path) -> None:
    """Write both files, the figures last. metrics: with `key` and `trial`."""
    mentions = mentions_path(output)
    write_mentions(results, mentions)
    write_json(output, {**metrics, "mentions": {"n": len(results), "sha256": sha256_of(mentions)}})


def adopt(made: Path, output: Path, key: str, trial: Mapping[str, Any]) -> None:
    """Keep what a command wrote at `made`, which goes. Raises ValueError where it did not write what it should."""
    metrics, mentions = read_object(made), mentions_path(output)
    if not metrics or not mentions_path(made).is_file():
        raise ValueError(f"{made}: nothing that evaluate writes is there")
    mentions_path(made).replace(mentions)
    with mentions.open("rb") as lines:
        n = sum(1 for _ in lines)
    record = {"n": n, "sha256": sha256_of(mentions)}
    write_json(output, {"key": key, **metrics, "trial": dict(trial), "mentions": record})
    made.unlink()


def read_measured(output: Path, key: str, digests: Digests) -> dict[str, Any] | None:
    """The figures that are kept under this key.

    None where there are none, or not all of it is as it was written: mentions that were cut off would give figures all
    the same.
    """
    found = read_object(output)
    mentions = found.get("mentions")
    if found.get("key") != key or not isinstance(mentions, dict) or seconds_in(found.get("trial")) is None:
        return None
    whole = digests.file(mentions_path(output)) == mentions.get("sha256") != ""
    return found if whole else None
