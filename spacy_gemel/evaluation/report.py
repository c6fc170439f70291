"""The HTML pages: settings side by side with all linked mentions, and a fitted decision. They need no other file."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from spacy.vocab import Vocab
from tqdm import tqdm

from spacy_gemel.data.reader import read_docs
from spacy_gemel.evaluation.bootstrap import accuracy_of, paired_difference
from spacy_gemel.evaluation.calibration import answer_figures
from spacy_gemel.evaluation.examples import RULE
from spacy_gemel.evaluation.results import MentionResult, mentions_path, read_mentions, read_metrics, scored
from spacy_gemel.evaluation.text import DECISION_COLUMNS, decision_rows
from spacy_gemel.images.image import data_uri
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.linking.mention import prompt_text
from spacy_gemel.pipeline.user_data import IMAGE_KEY
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

_CANDIDATES = 5  # of a mention
_SIDE, _SMALL = 360, 80  # pixels of a picture, if there are few and if there are very many
_COUNTS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**4, 10**9)
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
    def is_text_only(self) -> bool:
        """Whether it is a pipeline without the image."""
        return self.baseline is None and self.metrics["settings"].get("use_image", True) is False

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


def write_report(metrics: Sequence[Path], folder: Path, train: Path | None = None) -> Path:
    """Write `folder`/index.html from METRICS.json files and the METRICS.mentions.jsonl beside them; returns the page.

    `train` is the .spacy file or folder that the demonstrations are from, whose pictures are shown with them. Raises
    ValueError for a file that evaluate did not write, OSError if one cannot be read or written.
    """
    page, runs = folder / "index.html", read_runs(metrics)
    reference = next((run for run in runs if run.name == REFERENCE), runs[0])
    rows = []
    for run in runs:
        gap = difference(run, reference)
        # if the interval contains zero the data cannot tell the two settings apart
        significant = gap is not None and (gap[1] > 0 or gap[2] < 0)
        comparison = {"difference": gap, "apart": significant, "is_reference": run is reference}
        rows.append({"run": run, "metrics": run.metrics, **comparison})
    mentions = reference.mentions or []
    without_image = next((run for run in runs if run is not reference and run.is_text_only and run.mentions), None)
    _write_page(
        page,
        "report.html",
        rows=rows,
        subsets=SUBSETS,
        reference=reference,
        metrics=reference.metrics,
        settings=reference.metrics["settings"],
        calibration=reliability_figures(mentions),
        by_count=accuracy_by_count(mentions),
        rule=RULE,
        without_image=without_image,
        cards=make_cards(reference, without_image, {} if train is None else demonstration_pictures(train)),
    )
    return page


def reliability_figures(mentions: Sequence[MentionResult]) -> dict[str, Any] | None:
    """See `answer_figures`, of the mentions that have a gold; None if none of them has a candidate."""
    rated = [m for m in mentions if m.gold and m.predicted is not None]
    best = [(m.candidates[0]["kb_id"], m.candidates[0]["probability"]) if m.candidates else (NIL, None) for m in rated]
    ids, confidences = [kb_id for kb_id, _ in best], [confidence for _, confidence in best]
    figures = answer_figures([m.gold for m in rated], [str(m.predicted) for m in rated], ids, confidences)
    return None if figures["ece"] is None else figures


def accuracy_by_count(mentions: Sequence[MentionResult]) -> list[tuple[str, dict[str, Any]]]:
    """The accuracy of scored mentions whose gold was counted about equally often; empty for files without counts."""
    counts = [(m.count, m.correct) for m in scored(mentions) if m.count is not None]
    rows = []
    for low, high in pairwise(_COUNTS):
        right = [correct for count, correct in counts if low <= count < high]
        title = str(low) if high == low + 1 else f"{low} or more" if high == _COUNTS[-1] else f"{low} to {high - 1}"
        rows += [(title, accuracy_of(right))] if right else []
    return rows


def demonstration_pictures(train: Path) -> dict[tuple[str, str, str], str | bytes]:
    """{(text, mention, id): picture} of docs that demonstrations are from, unless equal ones have several pictures."""
    pictures: defaultdict[tuple[str, str, str], set[str | bytes]] = defaultdict(set)
    for doc in read_docs(train, Vocab()):
        image = doc.user_data.get(IMAGE_KEY)
        if isinstance(image, (str, bytes)):
            for ent in doc.ents:
                pictures[prompt_text(doc.text), prompt_text(ent.text), ent.kb_id_].add(image)
    return {key: images.pop() for key, images in pictures.items() if len(images) == 1}


def make_cards(
    run: Run, without_image: Run | None, demonstrations: dict[tuple[str, str, str], str | bytes]
) -> dict[str, Any]:
    """The mentions of a run as the page's script reads them.

    Args:
        run: Whose mentions.
        without_image: The same mentions linked without the image, if they were.
        demonstrations: See `demonstration_pictures`.

    Returns:
        `mentions`, `demonstrations`, the rows of all prompts, each once, and `pictures`, data URIs or None for one
        that cannot be read. Mentions have indices into both.
    """
    blind = {m.key: m.predicted for m in (without_image and without_image.mentions) or ()}
    sources: dict[Path | bytes, int] = {}  # a picture's index
    rows: dict[tuple[str, str, str], tuple[int, list[Any]]] = {}  # a demonstration's index and row
    cards = []
    for m in run.mentions or ():
        reasons = m.explanation or {"candidates": m.candidates, "demonstrations": m.demonstrations}
        card = {
            "doc": m.doc,
            "text": _around(m),
            "gold": m.gold,
            "answer": m.predicted,
            "p": _rounded(m.probability),
            "right": m.correct if m.predicted is not None and (m.gold == NIL or (m.gold and m.in_kb)) else None,
            "seen": m.seen,
            "tail": m.tail,
            "picture": sources.setdefault(run.path.parent / m.image_path, len(sources)) if m.image_path else None,
            "blind": blind.get(m.key, reasons.get("answer_without_image")),
            "candidates": [
                [c["name"], c["kb_id"], *(_rounded(c.get(key)) for key in ("probability", "features", "parts"))]
                for c in reasons["candidates"][:_CANDIDATES]
            ],
            "nil": _rounded(reasons.get("nil")),
            "demonstrations": [],
        }
        for each in reasons["demonstrations"]:
            key = (each["text"], each["mention"], each["kb_id"])
            picture = demonstrations.get(key)
            source = Path(picture) if isinstance(picture, str) else picture
            index = None if source is None else sources.setdefault(source, len(sources))
            number, _ = rows.setdefault(key, (len(rows), [each["text"], each["mention"], each["name"], index]))
            card["demonstrations"].append([number, _rounded(each.get("similarity"))])
        cards.append({key: value for key, value in card.items() if value is not None})
    # so that all pictures together take about 16 MB, of 0.3 bytes a pixel
    side = min(_SIDE, max(_SMALL, int((16e6 / 0.3 / max(1, len(sources))) ** 0.5)))
    with ThreadPoolExecutor() as threads:
        uris = threads.map(lambda source: data_uri(source, side), sources)
        pictures = [*tqdm(uris, "pictures", total=len(sources), disable=None)]
    return {"mentions": cards, "demonstrations": [row for _, row in rows.values()], "pictures": pictures}


def _around(result: MentionResult) -> tuple[str, str, str]:
    """The text before the mention, cut if it is long, the mention, and the text after it."""
    before, after = result.text[: result.start], result.text[result.end :]
    before = before if len(before) <= _WINDOW else "… " + before[-_WINDOW:]
    return before, result.mention, after if len(after) <= _WINDOW else after[:_WINDOW] + " …"


def _rounded(value: Any) -> Any:
    """A number, or a dict's, with three decimals; None for neither."""
    if isinstance(value, dict):
        return {key: round(each, 3) for key, each in value.items()} or None
    return None if value is None else round(value, 3)


def write_decision(decision: dict[str, Any], output: Path) -> Path:
    """Write DECISION.json and the page DECISION.html beside it, each whole or not at all; returns the page."""
    page, columns = output.with_suffix(".html"), {k: title for k, title in DECISION_COLUMNS.items() if decision[k]}
    curves = [(title, decision[key]) for key, title in columns.items()]
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
    pages.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    html = pages.get_template(template).render(**values)
    with write_whole(page) as partial:
        partial.write_text(html, encoding="utf-8")


def points(value: float) -> str:
    """-0.068 as −6.8, with a sign; zero has none."""
    return "0.0" if abs(value) < 5e-4 else f"{100 * value:+.1f}".replace("-", "−")
