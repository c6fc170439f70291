"""The report: one HTML page that needs nothing beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spacy_gemel.evaluation.comparison import Run, difference, read_runs, reference_of, scored
from spacy_gemel.evaluation.examples import RULE, choose, example_of
from spacy_gemel.evaluation.pages import templates
from spacy_gemel.utils.files import write_whole

PARTS = ("common", "tail", "seen", "unseen")


def write_report(metrics: Sequence[Path], folder: Path) -> Path:
    """Write `folder`/index.html from METRICS.json files and the METRICS.mentions.jsonl beside them.

    Returns the page's path. Raises ValueError for a file that evaluate did not write, OSError where one
    cannot be read or the page cannot be written.
    """
    page = folder / "index.html"
    html = render(read_runs(metrics))
    with write_whole(page) as partial:
        partial.write_text(html, encoding="utf-8")
    return page


def render(runs: Sequence[Run]) -> str:
    """The page's HTML. All text is escaped by the template; pictures are embedded."""
    environment = templates()
    environment.filters["percent"] = percent
    environment.filters["points"] = points
    reference = reference_of(runs)
    chosen = choose(scored(reference.mentions or ()))
    examples = [example_of(result, reference.path.parent) for result in chosen]
    return environment.get_template("report.html").render(
        rows=[_row(run, reference) for run in runs],
        parts=PARTS,
        reference=reference,
        metrics=reference.metrics,
        settings=reference.metrics["settings"],
        scale=_scale(runs),
        examples=examples,
        right=sum(example.result.correct for example in examples),
        rule=RULE,
    )


def percent(value: float | None) -> str:
    """0.863 as 86.3; a dash where there is no value."""
    return "–" if value is None else f"{100 * value:.1f}"


def points(value: float) -> str:
    """-0.068 as −6.8, with a sign; an exact zero has none."""
    return "0.0" if abs(value) < 5e-4 else f"{100 * value:+.1f}".replace("-", "−")


def _row(run: Run, reference: Run) -> dict[str, Any]:
    gap = difference(run, reference)
    return {
        "run": run,
        "metrics": run.metrics,
        "difference": gap,
        # an interval that holds zero says that the data cannot tell the two settings apart
        "apart": gap is not None and (gap[1] > 0 or gap[2] < 0),
        "is_reference": run is reference,
    }


def _scale(runs: Sequence[Run]) -> float:
    """Where the bars begin: a round share below the lowest interval, so that the intervals can be seen."""
    lows = [run.metrics["low"] for run in runs if run.metrics["low"] is not None]
    return max(0.0, (int(min(lows, default=0.0) * 10) - 1) / 10)
