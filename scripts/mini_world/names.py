"""The world's names: reads data/names.txt, gives every entity its forms, popularity and part in the world."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parent / "data" / "names.txt"
WORLD_SEED = 2  # the test sets of worlds 0 and 1 had been looked at before this one was drawn
READ_NOISE = 0.8  # of the logarithm of a popularity, where it decides whether the text tells of an entity

DESCRIPTIONS = {
    "planet": "a body in space", "car": "a car or its maker", "island": "an island",
    "shuttle": "a spacecraft or its programme",
    "flag": "a country, a state or a body with a flag", "film": "a film or a series", "player": "a team of players",
    "ship": "a ship", "river": "a river or a lake", "mountain": "a mountain", "bird": "a bird", "cat": "a big cat",
    "snake": "a snake", "fruit": "a fruit", "guitar": "a band, a song or an album", "book": "a book",
    "parliament": "an assembly or its building", "coin": "a coin or a currency", "code": "a piece of software",
    "phone": "a company or its device", "train": "a train or a line", "plane": "an aircraft",
    "statue": "a figure of myth, often seen as a statue", "portrait": "a person", "skyline": "a town or a building",
    "badge": "a club with a badge", "flower": "a flower", "fish": "an animal of the sea",
}  # fmt: skip
KINDS: tuple[str, ...] = tuple(DESCRIPTIONS)


@dataclass(frozen=True, slots=True)
class Reading:
    """One entity of the world."""

    kb_id: str
    name: str  # the Wikipedia title
    kind: str  # the kind of its pictures, one of KINDS
    family: str  # the ambiguous name it is a reading of
    forms: tuple[str, ...]  # ways to mention it; the family's name first
    weight: float  # popularity, all weights summing to one
    count: int  # the same as a count for the KB
    # "read": in the pretraining text and in training; "unread": only in training; "unseen": only read; "new": neither
    role: str

    @property
    def is_read(self) -> bool:
        """Whether the language model's pretraining text tells of it."""
        return self.role in ("read", "unseen")

    @property
    def is_seen(self) -> bool:
        """Whether it is a gold in the training split."""
        return self.role in ("read", "unread")


def parse_names(path: Path = DATA) -> list[tuple[str, list[tuple[str, str, tuple[str, ...]]]]]:
    """Families in file order: (name, [(kind, title, other forms), ...]). Raises ValueError naming a bad line."""
    families = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        family, *fields = [part.strip() for part in line.split(" | ")]
        readings = []
        for part in fields:
            kind, _, rest = part.partition(": ")
            if kind not in DESCRIPTIONS:
                raise ValueError(f"{path.name} line {number}: unknown kind {kind!r}")
            title, _, other_forms = rest.partition(" ~ ")
            readings.append((kind, title, tuple(form.strip() for form in other_forms.split(", ") if form.strip())))
        families.append((family, readings))
    return families


def kb_id_of(title: str) -> str:
    """Wikipedia's way to write a title in an address: spaces as underscores."""
    return re.sub(r"\s+", "_", title)


@lru_cache(maxsize=4)
def load_world(seed: int = WORLD_SEED) -> tuple[Reading, ...]:
    """All entities that occur, their popularity and part drawn from `seed`.

    Popularity is a flattened Zipf law over the families, times a milder one over a family's readings in file
    order. 32 % of the entities, by chance, are kept out of training; of the others a third, mostly rare ones, is kept
    out of the pretraining text, and so are 5 % of the ones kept out of training.
    """
    rng = np.random.default_rng([seed, 11])
    families = parse_names()
    ranks = rng.permutation(len(families))
    rows = []
    for rank, (family, readings) in zip(ranks, families, strict=True):
        for position, (kind, title, other_forms) in enumerate(readings):
            weight = (1.0 / (rank + 8.0) ** 0.8) / (1.0 + 0.5 * position) * float(rng.uniform(0.75, 1.25))
            rows.append((family, kind, title, (family, *other_forms), weight))
    total = sum(row[4] for row in rows)
    order = rng.permutation(len(rows))
    roles = [""] * len(rows)
    n_unseen = round(0.32 * len(rows))
    n_new = round(0.05 * n_unseen)
    n_unread = round((len(rows) - n_unseen) / 3)
    for nth, row in enumerate(order[:n_unseen]):
        roles[row] = "new" if nth < n_new else "unseen"
    # what text tells of is what is popular, with exceptions
    scores = {row: rows[row][4] * float(np.exp(rng.normal(0, READ_NOISE))) for row in order[n_unseen:]}
    for nth, row in enumerate(sorted(scores, key=lambda row: scores[row])):
        roles[row] = "unread" if nth < n_unread else "read"
    return tuple(
        Reading(kb_id_of(title), title, kind, family, forms, weight / total, max(1, round(2e5 * weight / total)), role)
        for (family, kind, title, forms, weight), role in zip(rows, roles, strict=True)
    )


def readings_by_form(world: tuple[Reading, ...]) -> dict[str, list[Reading]]:
    """Every way to mention something, with all it may mean."""
    table: dict[str, list[Reading]] = defaultdict(list)
    for reading in world:
        for form in dict.fromkeys(reading.forms):
            table[form].append(reading)
    return dict(table)


def tail_ids(world: tuple[Reading, ...], share: float = 0.2) -> frozenset[str]:
    """The least-counted entities that together hold `share` of the total count."""
    limit = share * sum(reading.count for reading in world)
    cumulated, tail = 0, []
    for reading in sorted(world, key=lambda r: (r.count, r.kb_id)):
        cumulated += reading.count
        if cumulated > limit:
            break
        tail.append(reading.kb_id)
    return frozenset(tail)


def pick_form(reading: Reading, rng: np.random.Generator) -> str:
    """How a caption mentions it: three times in four by the family's ambiguous name."""
    if len(reading.forms) == 1 or rng.random() < 0.75:
        return reading.forms[0]
    return reading.forms[1 + int(rng.integers(len(reading.forms) - 1))]
