"""A dozen linked mentions for the report, with their pictures."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spacy_gemel.evaluation.results import MentionResult

RIGHT, WRONG = 8, 4
RULE = (
    f"Chosen by rule, not by hand: of the scored mentions with a picture, in the order of the data, {RIGHT} "
    f"that are right and {WRONG} that are wrong, evenly spaced, and no gold entity twice while there are others. "
    f"So they show how it links; how often it is right is in the table."
)
_SIDE = 360  # pixels: sharp at the width of a card on a dense screen, and small enough to embed
_WINDOW = 240  # characters of a long text shown on each side of the mention


@dataclass(frozen=True, slots=True)
class Example:
    """One mention as the page shows it; `picture` is a data URI, or None where there is none to show."""

    result: MentionResult
    before: str
    after: str
    picture: str | None


def choose(mentions: Sequence[MentionResult]) -> list[MentionResult]:
    """Choose by RULE.

    Where there are too few of one kind the other fills up; where no mention has a picture none is asked for.
    """
    pool = [m for m in mentions if m.image_path is not None] or list(mentions)
    right, wrong = [m for m in pool if m.correct], [m for m in pool if not m.correct]
    wrong_first = _spaced(wrong, WRONG, set())
    shown = {m.gold for m in wrong_first}
    chosen = wrong_first + _spaced(right, RIGHT + WRONG - len(wrong_first), shown)
    if len(chosen) < RIGHT + WRONG:
        rest = [m for m in wrong if m not in wrong_first]
        chosen += _spaced(rest, RIGHT + WRONG - len(chosen), {m.gold for m in chosen})
    if len(chosen) < RIGHT + WRONG:  # fewer gold entities than places
        rest = [m for m in pool if all(m is not other for other in chosen)]
        chosen += rest[: RIGHT + WRONG - len(chosen)]
    index = {id(m): number for number, m in enumerate(pool)}
    return sorted(chosen, key=lambda m: index[id(m)])


def _spaced(pool: Sequence[MentionResult], n: int, shown: set[str]) -> list[MentionResult]:
    """About n mentions at even distances; a gold entity that was shown is passed over for the next."""
    chosen: list[MentionResult] = []
    golds = set(shown)
    for number in range(min(n, len(pool))):
        start = number * len(pool) // n
        candidate = next((m for m in [*pool[start:], *pool[:start]] if m.gold not in golds), None)
        if candidate is not None:
            golds.add(candidate.gold)
            chosen.append(candidate)
    return chosen


def example_of(result: MentionResult, folder: Path) -> Example:
    """Prepare a mention for the page; `folder` is what its image path is relative to."""
    start, end = result.start, result.end
    before, after = result.text[:start], result.text[end:]
    if len(before) > _WINDOW:
        before = "… " + before[-_WINDOW:]
    if len(after) > _WINDOW:
        after = after[:_WINDOW] + " …"
    picture = None if result.image_path is None else picture_uri(folder / result.image_path)
    return Example(result, before, after, picture)


def picture_uri(path: Path) -> str | None:
    """A picture as a small JPEG in a data URI; None where it cannot be read."""
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
