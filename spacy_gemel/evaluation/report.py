"""The HTML pages: settings side by side with linked examples, and calibration curves. They need no other file."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_gemel.evaluation.bootstrap import paired_difference
from spacy_gemel.evaluation.results import MentionResult, mentions_path, read_mentions, scored
from spacy_gemel.evaluation.text import CALIBRATION_COLUMNS, calibration_rows
from spacy_gemel.utils.files import write_json, write_whole

if TYPE_CHECKING:
    from jinja2 import Environment

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
# A baseline's title and description, by the "peer" of its settings, in the table's order.
_MOST_FREQUENT = (
    "Most frequent entity",
    "the most frequent training entity for the mention, else the entity of that name",
)
BASELINES = {
    "most-frequent": _MOST_FREQUENT,
    "shortcut": _MOST_FREQUENT,  # its former name
    "alias": ("Names and aliases", "the entity with the mention as its name or alias"),
    "entity_linker": ("spaCy's entity_linker", "spaCy's entity_linker trained on the same examples"),
}
_RETRIEVERS = {
    "spacy_gemel.SentenceTransformerRetriever.v1": "sentence vectors",
    "spacy_gemel.TransformerRetriever.v1": "the pipeline's own vectors",
    "spacy_gemel.BM25Retriever.v1": "BM25",
    "spacy_gemel.RandomRetriever.v1": "chance",
}

_RIGHT, _WRONG = 8, 4
_RULE = (
    f"Chosen by rule, not by hand: of the scored mentions with a picture, in the order of the data, {_RIGHT} "
    f"that are right and {_WRONG} that are wrong, evenly spaced, and no gold entity twice if there are others. "
    "They illustrate how it links; how often it is right is in the table."
)
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
        return self.metrics["settings"].get("peer")

    @property
    def title(self) -> str:
        """The setting's name for a reader."""
        if title := self.metrics["settings"].get("title"):
            return str(title)
        if self.baseline in BASELINES:
            return BASELINES[self.baseline][0]
        return SETTINGS[self.name][0] if self.name in SETTINGS else self.name

    @property
    def paper(self) -> tuple[float, float] | None:
        """The paper's figures for the same setting."""
        return SETTINGS[self.name][1] if self.name in SETTINGS else None

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
        return ", ".join(
            [
                "image" if settings.get("use_image", True) else "text only",
                f"{n} demonstrations{by}" if n else "no demonstrations",
                "trie" if settings.get("constrained", True) else "free search",
            ]
        )


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read METRICS.json files, in the table's order.

    Raises:
        ValueError: For a file that evaluate did not write, or no file at all.
    """
    if not paths:
        raise ValueError("no METRICS.json given: python -m spacy_gemel evaluate writes them")
    stems = [path.stem for path in paths]
    runs = []
    for path in paths:
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
            complete = set(metrics) >= _REQUIRED
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: not a file that evaluate writes ({error})") from error
        if not complete:
            raise ValueError(f"{path}: not a file that evaluate writes (settings or accuracies are missing)")
        mentions = mentions_path(path)
        name = path.stem if stems.count(path.stem) == 1 else path.as_posix()
        runs.append(Run(name, path, metrics, read_mentions(mentions) if mentions.is_file() else None))
    order = [*SETTINGS, *BASELINES]

    def position(run: Run) -> int:
        name = run.baseline or run.name
        return order.index(name) if name in order else len(order)

    return sorted(runs, key=position)


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
    mentions = choose_examples(scored(reference.mentions or ()))
    lows = [run.metrics["low"] for run in runs if run.metrics["low"] is not None]
    _write_page(
        page,
        "report.html",
        rows=[_row(run, reference) for run in runs],
        subsets=SUBSETS,
        reference=reference,
        metrics=reference.metrics,
        settings=reference.metrics["settings"],
        # the bars begin at a round share below the lowest interval, so that the intervals can be seen
        scale=max(0.0, (int(min(lows, default=0.0) * 10) - 1) / 10),
        examples=[make_example(mention, reference.path.parent) for mention in mentions],
        right=sum(mention.correct for mention in mentions),
        rule=_RULE,
    )
    return page


def _row(run: Run, reference: Run) -> dict[str, Any]:
    gap = difference(run, reference)
    # if the interval contains zero the data cannot tell the two settings apart
    significant = gap is not None and (gap[1] > 0 or gap[2] < 0)
    is_reference = run is reference
    return {"run": run, "metrics": run.metrics, "difference": gap, "apart": significant, "is_reference": is_reference}


def choose_examples(mentions: Sequence[MentionResult]) -> list[MentionResult]:
    """Choose a dozen mentions by _RULE.

    If there are too few right or wrong ones the others fill up; if no mention has a picture it is not required.
    """
    pool = [m for m in mentions if m.image_path is not None] or list(mentions)
    right, wrong = [m for m in pool if m.correct], [m for m in pool if not m.correct]
    chosen = _spaced(wrong, _WRONG, set())
    chosen += _spaced(right, _RIGHT + _WRONG - len(chosen), {m.gold for m in chosen})
    more_wrong = [m for m in wrong if all(m is not other for other in chosen)]
    chosen += _spaced(more_wrong, _RIGHT + _WRONG - len(chosen), {m.gold for m in chosen})
    rest = [m for m in pool if all(m is not other for other in chosen)]
    chosen += rest[: _RIGHT + _WRONG - len(chosen)]  # if there are fewer gold entities than examples
    index = {id(m): number for number, m in enumerate(pool)}
    return sorted(chosen, key=lambda m: index[id(m)])


def _spaced(pool: Sequence[MentionResult], n: int, used: set[str]) -> list[MentionResult]:
    """About n mentions at even distances; a mention whose gold entity was used is skipped for the next."""
    chosen: list[MentionResult] = []
    gold_ids = set(used)
    for number in range(min(n, len(pool))):
        start = number * len(pool) // n
        candidate = next((m for m in [*pool[start:], *pool[:start]] if m.gold not in gold_ids), None)
        if candidate is not None:
            gold_ids.add(candidate.gold)
            chosen.append(candidate)
    return chosen


def make_example(result: MentionResult, folder: Path) -> dict[str, Any]:
    """A mention with the text around it and its picture; `folder` is what its image path is relative to."""
    before, after = result.text[: result.start], result.text[result.end :]
    return {
        "result": result,
        "before": before if len(before) <= _WINDOW else "… " + before[-_WINDOW:],
        "after": after if len(after) <= _WINDOW else after[:_WINDOW] + " …",
        "picture": None if result.image_path is None else picture_uri(folder / result.image_path),
    }


def picture_uri(path: Path) -> str | None:
    """A picture as a small JPEG in a data URI; None if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((_SIDE, _SIDE))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=82, optimize=True)
    # a truncated file, one that is no picture, one that would unpack to gigabytes
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def write_calibration(calibration: dict[str, Any], output: Path) -> Path:
    """Write CALIBRATION.json and the page CALIBRATION.html beside it, each whole or not at all; returns the page."""
    page = output.with_suffix(".html")
    curves = [
        {"title": title, "figures": figures, "fullest": max(row["n"] for row in figures["reliability"])}
        for key, title in CALIBRATION_COLUMNS.items()
        if (figures := calibration[key])
    ]
    _write_page(
        page,
        "calibration.html",
        calibration=calibration,
        settings=calibration["settings"],
        columns=list(CALIBRATION_COLUMNS.values()),
        rows=calibration_rows(calibration),
        curves=curves,
    )
    write_json(output, calibration)
    return page


def _write_page(page: Path, template: str, **values: Any) -> None:
    html = templates().get_template(template).render(**values)
    with write_whole(page) as partial:
        partial.write_text(html, encoding="utf-8")


def templates(package: str = "spacy_gemel", folder: str = "evaluation") -> "Environment":
    """The templates in a package's folder; all text is escaped, and an undefined name is an error."""
    # jinja2 comes with spaCy, but only pages need it
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f}"
    environment.filters["points"] = points
    return environment


def points(value: float) -> str:
    """-0.068 as −6.8, with a sign; zero has none."""
    return "0.0" if abs(value) < 5e-4 else f"{100 * value:+.1f}".replace("-", "−")
