"""Tables filled with what was run: figures over mentions and seeds, with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.grid.grid import Row, Table
from research.grid.trials import Lab
from research.paper import DATA_SETS, REPORTED
from research.statistics import BoolArray, Outcomes, Term, outcomes, seeds_and_mentions_interval
from spacy_gemel.evaluation.metrics import PARTS
from spacy_gemel.evaluation.results import mentions_path, read_mentions

RUN, NOT_RUN, FAILED = "run", "not run", "failed"


class Results:
    """The figures and outcomes of trials, each read once. failed: trial's id -> what went wrong in this run."""

    def __init__(self, lab: Lab, failed: Mapping[str, str]) -> None:
        self.lab, self._failed = lab, failed
        self._metrics: dict[str, dict[str, Any] | None] = {}
        self._read: dict[str, Outcomes | None] = {}

    def metrics(self, id: str) -> dict[str, Any] | None:
        """What `evaluate` says of a trial; None where it was not run."""
        if id not in self._metrics:
            self._metrics[id] = self.lab.found(self.lab.plan.trials[id])
        return self._metrics[id]

    def reason(self, id: str) -> str | None:
        """Why a trial failed, in this run or when it was last tried with what it reads now, or has figures that are no
        result; None where neither.
        """
        if id in self._failed:
            return self._failed[id]
        if self.metrics(id) is not None:
            return self.no_result(id)
        return self.lab.failures.reason(id, self.lab.key(self.lab.plan.trials[id]))

    def no_result(self, id: str) -> str | None:
        """Why a measured trial's figures are no result: it has images, its training led nowhere, and it is no try."""
        found, setting = self.metrics(id), self.lab.plan.trials[id].setting
        if found is None or self.lab.steps is not None or not setting.get("image"):
            return None
        return found["trial"].get("led_nowhere") or None

    def of(self, ids: Sequence[str]) -> list[Outcomes] | None:
        """One per trial; None where one is not there, or not of the same mentions as the others."""
        runs = [self._outcomes(id) for id in ids]
        found = [run for run in runs if run is not None]
        if not found or len(found) < len(runs) or any(run.mentions != found[0].mentions for run in found):
            return None
        return found

    def _outcomes(self, id: str) -> Outcomes | None:
        if id not in self._read:
            there = self.reason(id) is None and self.metrics(id) is not None
            results = read_mentions(mentions_path(self.lab.metrics(self.lab.plan.trials[id]))) if there else None
            self._read[id] = None if results is None else outcomes(results)
        return self._read[id]


def fill(table: Table, results: Results) -> dict[str, Any]:
    """The table with its rows, and `reference`: the first row that was run, which the others are compared with.

    Each row has name, part, status (RUN, NOT_RUN, FAILED), reason, trials, setting and paper; one that was run also n,
    accuracy, low, high (from 0 to 1), the same for each of PARTS, and `difference` to the reference, [difference, low,
    high], on the same mentions and kind of mention.
    """
    rows: list[dict[str, Any]] = []
    first: list[Outcomes] | None = None
    reference = None
    for index, row in enumerate(table.rows):
        ids = results.lab.plan.rows[table.id, index]
        runs = None if row.not_run else results.of(ids)
        for part in table.parts or ("",):
            rows.append(_line(row, part, ids, runs, first, results))
        if first is None and runs is not None:
            first, reference = runs, row.name
    return {"id": table.id, "title": table.title, "note": table.note, "reference": reference, "rows": rows}


def _line(
    row: Row,
    part: str,
    ids: Sequence[str],
    runs: list[Outcomes] | None,
    first: list[Outcomes] | None,
    results: Results,
) -> dict[str, Any]:
    """One line of a table: a row, or one kind of mention of a row."""
    trial = results.lab.plan.trials[ids[0]] if ids else None
    setting = dict(trial.setting) if trial else {}
    line: dict[str, Any] = {
        "name": f"{row.name}: {part.replace('_', ' ')}" if part else row.name,
        "part": part,
        "status": RUN if runs else NOT_RUN,
        "reason": row.not_run,
        "trials": list(ids),
        "setting": setting,
        "paper": _paper(row, part, setting, results.lab),
    }
    errors = [reason for id in ids if (reason := results.reason(id)) is not None]
    if errors:
        return {**line, "status": FAILED, "reason": errors[0]}
    if runs is None:
        return line
    right = np.stack([run.correct for run in runs])  # (seeds, mentions)
    keep = runs[0].part(part) if part else np.ones(right.shape[1], dtype=bool)
    line |= _figure(right, keep)
    line["parts"] = {name: _figure(right, keep & runs[0].part(name)) for name in PARTS}
    if first is not None and first[0].mentions == runs[0].mentions:
        other = np.stack([run.correct for run in first])
        seeds = max(len(right), len(other))
        same = all(len(rows) in (1, seeds) for rows in (right, other))
        terms = [Term(right, keep), Term(other, keep, sign=-1)]
        line["difference"] = seeds_and_mentions_interval(terms) if same else None
    return line


def _figure(right: BoolArray, keep: BoolArray) -> dict[str, Any]:
    """right: (seeds, mentions). keep: (mentions,)."""
    accuracy, low, high = seeds_and_mentions_interval([Term(right, keep)]) or (None, None, None)
    return {"n": int(keep.sum()), "accuracy": accuracy, "low": low, "high": high}


def _paper(row: Row, part: str, setting: Mapping[str, Any], lab: Lab) -> dict[str, Any] | None:
    """{data set: percent}, and whether the row was measured on it in the paper's own setting; None for no figure."""
    name = row.paper.get(part)
    if name is None:
        return None
    reported = REPORTED[name]
    whole = lab.steps is None and not lab.limit
    same = whole and lab.grid.dataset in DATA_SETS and bool(setting) and reported.is_setting(setting)
    return {**dict(zip(DATA_SETS, reported.figures, strict=True)), "same_setting": same}
