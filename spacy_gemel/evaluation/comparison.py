"""Settings side by side: the rows of the report's table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.baselines.kinds import KINDS
from research.paper import REPORTED
from spacy_gemel.evaluation.bootstrap import paired_difference
from spacy_gemel.evaluation.results import MentionResult, mentions_path, read_mentions
from spacy_gemel.kb.resolve import NIL

REFERENCE = "full"
_NEEDED = {"settings", "n", "accuracy", "low", "high", "nil", "mentions_per_second"}
_NEEDED |= {"common", "tail", "seen", "unseen"}


@dataclass(frozen=True, slots=True)
class Known:
    """A setting of the design: what to call it, and the paper's top-1 on (WikiDiverse, WikiMEL) where it
    has one.
    """

    title: str
    paper: tuple[float, float] | None = None


KNOWN = {
    "full": Known("Full", REPORTED["full"].figures),
    "no-image": Known("Without the image", REPORTED["no-image"].figures),
    "no-demonstrations": Known("Without demonstrations", REPORTED["no-demonstrations"].figures),
    "random": Known("Random demonstrations", REPORTED["random"].figures),
    "bm25": Known("BM25 demonstrations", REPORTED["bm25"].figures),
    "dense": Known("Dense demonstrations", REPORTED["simcse"].figures),
    "unconstrained": Known("Without the trie"),
}
"""By the stem of METRICS.json, in the table's order; after them the peers, in theirs."""

_RETRIEVERS = {
    "spacy_gemel.SentenceTransformerRetriever.v1": "sentence vectors",
    "spacy_gemel.TransformerRetriever.v1": "the pipeline's own vectors",
    "spacy_gemel.BM25Retriever.v1": "BM25",
    "spacy_gemel.RandomRetriever.v1": "chance",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One METRICS.json; `mentions` is None where METRICS.mentions.jsonl is not beside it."""

    name: str
    path: Path
    metrics: dict[str, Any]
    mentions: list[MentionResult] | None

    @property
    def title(self) -> str:
        """The setting's name for a reader."""
        if self.name in KINDS:
            return KINDS[self.name].title
        return KNOWN[self.name].title if self.name in KNOWN else self.name

    @property
    def paper(self) -> tuple[float, float] | None:
        """The paper's figures for the same setting."""
        return KNOWN[self.name].paper if self.name in KNOWN else None

    @property
    def what(self) -> str:
        """The setting as the file itself has it, whatever the file is called."""
        settings = self.metrics["settings"]
        if peer := settings.get("peer"):
            ignore_case = bool(settings.get("ignore_case"))
            return KINDS[peer].message(ignore_case=ignore_case) if peer in KINDS else str(peer)
        shown = settings.get("n_demonstrations")
        parts = ["image" if settings.get("use_image", True) else "text only"]
        if shown:
            retriever = str(settings.get("retriever") or "")
            by = f" by {_RETRIEVERS.get(retriever, retriever)}" if retriever else ""
            parts.append(f"{shown} demonstrations{by}")
        else:
            parts.append("no demonstrations")
        parts.append("trie" if settings.get("constrained", True) else "free search")
        return ", ".join(parts)


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read METRICS.json files, in the table's order. Raises ValueError for one that is no such file, or no
    file at all.
    """
    if not paths:
        raise ValueError("no METRICS.json given: python -m spacy_gemel evaluate writes them")
    stems = [path.stem for path in paths]
    runs = []
    for path in paths:
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
            usable = set(metrics) >= _NEEDED
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: not a file that evaluate writes ({error})") from error
        if not usable:
            raise ValueError(f"{path}: not a file that evaluate writes (it lacks settings or accuracies)")
        beside = mentions_path(path)
        name = path.stem if stems.count(path.stem) == 1 else path.as_posix()
        runs.append(Run(name, path, metrics, read_mentions(beside) if beside.is_file() else None))
    order = [*KNOWN, *KINDS]
    return sorted(runs, key=lambda run: order.index(run.name) if run.name in order else len(order))


def reference_of(runs: Sequence[Run]) -> Run:
    """The run that the others are compared with: full, or the first."""
    return next((run for run in runs if run.name == REFERENCE), runs[0])


def scored(mentions: Sequence[MentionResult]) -> list[MentionResult]:
    """The mentions that the accuracy is over."""
    return [m for m in mentions if m.in_kb and m.gold not in ("", NIL) and m.predicted is not None]


def difference(run: Run, reference: Run) -> tuple[float, float, float] | None:
    """Accuracy minus the reference's with its 95 % interval; None where the two are not on the same
    mentions.
    """
    if run is reference or run.mentions is None or reference.mentions is None:
        return None
    ours, theirs = scored(run.mentions), scored(reference.mentions)
    if [m.key for m in ours] != [m.key for m in theirs]:
        return None
    return paired_difference([m.correct for m in ours], [m.correct for m in theirs])
