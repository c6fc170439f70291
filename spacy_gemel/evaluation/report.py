"""The HTML pages: settings side by side with linked examples, and a fitted decision. They need no other file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy_gemel.evaluation.bootstrap import paired_difference
from spacy_gemel.evaluation.examples import RULE, choose_examples
from spacy_gemel.evaluation.results import MentionResult, mentions_path, read_mentions, read_metrics, scored
from spacy_gemel.evaluation.text import DECISION_COLUMNS, decision_rows
from spacy_gemel.images.image import data_uri
from spacy_gemel.utils.files import write_json, write_whole

REFERENCE = "full"
SUBSETS = ("common", "tail", "seen", "unseen")
_REQUIRED = {"settings", "n", "accuracy", "low", "high", "nil", "mentions_per_second", *SUBSETS}

# A setting's title, and the paper's top-1 on WikiDiverse and WikiMEL (arXiv 2306.12725, tables 2, 4 and 5), by the
# stem of METRICS.json, in the table's order.
SETTINGS: dict[str, tuple[str, tuple[float, float] | None]] = {
    "full": ("Full", (86.3, 82.6)),
    "no-image": ("Without the image", (79.5, 74.2)),
    "no-demonstrations": ("Without demonstrations", (80.2, 75.2)),
    "random": ("Random demonstrations", (83.1, 78.3)),
    "bm25": ("BM25 demonstrations", (85.3, 82.5)),
    "dense": ("Dense demonstrations", (86.3, 82.6)),
    "unconstrained": ("Without the trie", None),
}
# A baseline's title and description, by the "baseline" of its settings, in the table's order.
_FREQUENT = ("Most frequent entity", "the most frequent training entity for the mention, else the entity of that name")
BASELINES = {
    "most-frequent": _FREQUENT,
    "shortcut": _FREQUENT,  # its former name
    "alias": ("Names and aliases", "the entity with the mention as its name or alias"),
    "entity_linker": ("spaCy's entity_linker", "spaCy's entity_linker trained on the same examples"),
}
_RETRIEVERS = {
    "spacy_gemel.SentenceTransformerRetriever.v1": "sentence vectors",
    "spacy_gemel.TransformerRetriever.v1": "the pipeline's own vectors",
    "spacy_gemel.BM25Retriever.v1": "BM25",
    "spacy_gemel.RandomRetriever.v1": "chance",
}

_CANDIDATES = 5  # of an example
_SIDE = 360  # pixels: sharp at the width of a card on a dense screen, and small enough to embed
_WINDOW = 240  # characters of a long text on each side of the mention


@dataclass(frozen=True, slots=True)
class Run:
    """One METRICS.json; `mentions` is None if METRICS.mentions.jsonl is not beside it."""

    name: str
    path: Path
    metrics: dict[str, Any]
    mentions: list[MentionResult] | None

    @property
    def baseline(self) -> str | None:
        """The name of the baseline that was measured; None for a pipeline."""
        settings = self.metrics["settings"]
        return settings.get("baseline", settings.get("peer"))  # its former key

    @property
    def title(self) -> str:
        """The setting's name for a reader."""
        known = BASELINES.get(self.baseline or "") or SETTINGS.get(self.name)
        return str(self.metrics["settings"].get("title") or (known[0] if known else self.name))

    @property
    def paper(self) -> tuple[float, float] | None:
        """The paper's figures for the same setting."""
        return SETTINGS.get(self.name, ("", None))[1]

    @property
    def description(self) -> str:
        """The setting as recorded in the file itself, whatever the file is called."""
        settings = self.metrics["settings"]
        if self.baseline is not None:
            if self.baseline not in BASELINES:
                return str(settings.get("description") or self.baseline)
            case = ", ignoring case" if settings.get("ignore_case") else ""
            if self.baseline == "alias" and not case:
                case = ", but for the first letter's case and underscores, as titles are compared"
            return f"text only, {BASELINES[self.baseline][1]}{case}"
        n, retriever = settings.get("n_demonstrations"), str(settings.get("retriever") or "")
        by = f" by {_RETRIEVERS.get(retriever, retriever)}" if retriever else ""
        image = "image" if settings.get("use_image", True) else "text only"
        demonstrations = f"{n} demonstrations{by}" if n else "no demonstrations"
        return f"{image}, {demonstrations}, {'trie' if settings.get('constrained', True) else 'free search'}"


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read METRICS.json files, in the table's order; raises ValueError for one that evaluate did not write, or none."""
    if not paths:
        raise ValueError("no METRICS.json given: python -m spacy_gemel evaluate writes them")
    order, stems = [*SETTINGS, *BASELINES], [path.stem for path in paths]
    runs = []
    for path in paths:
        metrics, mentions = read_metrics(path, _REQUIRED), mentions_path(path)
        name = path.stem if stems.count(path.stem) == 1 else path.as_posix()
        runs.append(Run(name, path, metrics, read_mentions(mentions) if mentions.is_file() else None))
    return sorted(runs, key=lambda run: [*order, run.baseline or run.name].index(run.baseline or run.name))


def difference(run: Run, reference: Run) -> tuple[float, float, float] | None:
    """Accuracy minus the reference's with its 95 % interval; None if the two are not on the same mentions."""
    if run is reference or run.mentions is None or reference.mentions is None:
        return None
    ours, theirs = scored(run.mentions), scored(reference.mentions)
    if [m.key for m in ours] != [m.key for m in theirs]:
        return None
    return paired_difference([m.correct for m in ours], [m.correct for m in theirs])


def write_report(metrics: Sequence[Path], folder: Path) -> Path:
    """Write `folder`/index.html from METRICS.json files and the METRICS.mentions.jsonl beside them; returns the page.

    Raises ValueError for a file that evaluate did not write, OSError if one cannot be read or written.
    """
    page, runs = folder / "index.html", read_runs(metrics)
    reference = next((run for run in runs if run.name == REFERENCE), runs[0])
    mentions = choose_examples(reference.mentions or ())
    lows = [run.metrics["low"] for run in runs if run.metrics["low"] is not None]
    rows = []
    for run in runs:
        gap = difference(run, reference)
        # if the interval contains zero the data cannot tell the two settings apart
        significant = gap is not None and (gap[1] > 0 or gap[2] < 0)
        comparison = {"difference": gap, "apart": significant, "is_reference": run is reference}
        rows.append({"run": run, "metrics": run.metrics, **comparison})
    _write_page(
        page,
        "report.html",
        rows=rows,
        subsets=SUBSETS,
        reference=reference,
        metrics=reference.metrics,
        settings=reference.metrics["settings"],
        # the bars begin at a round share below the lowest interval, so that the intervals can be seen
        scale=max(0.0, (int(min(lows, default=0.0) * 10) - 1) / 10),
        examples=[make_example(mention, reference.path.parent) for mention in mentions],
        right=sum(mention.correct for mention in mentions),
        rule=RULE,
    )
    return page


def make_example(result: MentionResult, folder: Path) -> dict[str, Any]:
    """A mention with the text around it, its picture, and what is known of why it is linked so.

    `folder` is what its image path is relative to. Without an explanation candidates have no parts.
    """
    before, after = result.text[: result.start], result.text[result.end :]
    explanation = result.explanation or {"candidates": result.candidates, "demonstrations": result.demonstrations}
    best = explanation["candidates"][:_CANDIDATES]
    return {
        "result": result,
        "candidates": [{**each, "parts": _largest(each.get("parts", {}))} for each in best],
        "nil": explanation.get("nil", 0.0),
        "without_image": explanation.get("answer_without_image"),
        "demonstrations": explanation["demonstrations"],
        "before": before if len(before) <= _WINDOW else "… " + before[-_WINDOW:],
        "after": after if len(after) <= _WINDOW else after[:_WINDOW] + " …",
        "picture": data_uri(folder / result.image_path, _SIDE) if result.image_path and result.image else None,
    }


def _largest(parts: dict[str, float]) -> list[tuple[str, float]]:
    """Those that show with two decimals, the largest first, whatever its sign."""
    return sorted(((k, v) for k, v in parts.items() if abs(v) >= 0.005), key=lambda pair: -abs(pair[1]))


def write_decision(decision: dict[str, Any], output: Path) -> Path:
    """Write DECISION.json and the page DECISION.html beside it, each whole or not at all; returns the page."""
    page, columns = output.with_suffix(".html"), {k: title for k, title in DECISION_COLUMNS.items() if decision[k]}
    curves = [
        {"title": title, "figures": decision[key], "fullest": max(row["n"] for row in decision[key]["reliability"])}
        for key, title in columns.items()
    ]
    values = {"settings": decision["settings"], "rows": decision_rows(decision), "curves": curves}
    _write_page(page, "decision.html", decision=decision, columns=list(columns.values()), **values)
    write_json(output, decision)
    return page


def _write_page(page: Path, template: str, **values: Any) -> None:
    """Fill a template of this folder in; all text is escaped, and an undefined name is an error."""
    # jinja2 comes with spaCy, but only pages need it
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("spacy_gemel", "evaluation")
    pages = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    pages.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f}"
    pages.filters["points"] = points
    pages.filters["signed"] = signed
    html = pages.get_template(template).render(**values)
    with write_whole(page) as partial:
        partial.write_text(html, encoding="utf-8")


def points(value: float) -> str:
    """-0.068 as −6.8, with a sign; zero has none."""
    return "0.0" if abs(value) < 5e-4 else signed(100 * value, 1)


def signed(value: float, decimals: int = 2) -> str:
    """-0.5 as −0.50."""
    return f"{value:+.{decimals}f}".replace("-", "−")
