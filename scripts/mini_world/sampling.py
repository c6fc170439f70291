"""Draws the world's mentions into splits. The test split depends on the seed alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .captions import make_caption
from .names import Reading, pick_form, readings_by_form

SPLITS = ("train", "dev", "test")
_SPLIT_SEED = {"train": 1, "dev": 2, "test": 3}


@dataclass(frozen=True, slots=True)
class Mention:
    """One doc: a caption with one mention of `reading`; its picture is drawn with `rng_key`."""

    doc_id: str
    text: str
    start: int
    form: str
    reading: Reading
    telling: bool
    rng_key: tuple[int, ...]

    @property
    def end(self) -> int:
        """The mention's end in characters."""
        return self.start + len(self.form)


def sample_split(world: tuple[Reading, ...], split: str, number: int, seed: int) -> list[Mention]:
    """`number` docs of a split. Doc i of a split is the same however many are drawn, except in train.

    Train takes each of its entities once, in chance order, then by flattened popularity (count to the power 0.6),
    and only entities that are seen; dev and test draw from all entities.
    """
    pool = [reading for reading in world if split != "train" or reading.is_seen]
    weights = np.cumsum(np.array([reading.weight for reading in pool]) ** 0.6)
    weights /= weights[-1]
    first = (
        np.random.default_rng([seed, 41]).permutation(len(pool)) if split == "train" else np.empty(0, dtype=np.int64)
    )
    mentions = []
    for index in range(number):
        key = (seed, 42, _SPLIT_SEED[split], index)
        rng = np.random.default_rng([*key, 0])
        drawn = min(int(np.searchsorted(weights, rng.random())), len(pool) - 1)
        reading = pool[int(first[index]) if index < len(first) else drawn]
        form = pick_form(reading, rng)
        text, start, telling = make_caption(form, reading.kind, rng)
        mentions.append(Mention(f"{split}-{index:04d}", text, start, form, reading, telling, (*key, 1)))
    return mentions


def figures(world: tuple[Reading, ...], mentions: list[Mention], tail: frozenset[str]) -> dict[str, float | int]:
    """Shares that say what a split is like."""
    meanings = {form: len(readings) for form, readings in readings_by_form(world).items()}
    number = max(1, len(mentions))

    def share(count: int) -> float:
        return round(count / number, 4)

    return {
        "mentions": len(mentions),
        "entities": len({m.reading.kb_id for m in mentions}),
        "ambiguous_form": share(sum(meanings[m.form] > 1 for m in mentions)),
        "caption_does_not_tell": share(sum(not m.telling for m in mentions)),
        "ambiguous_and_caption_does_not_tell": share(sum(not m.telling and meanings[m.form] > 1 for m in mentions)),
        "unseen": share(sum(not m.reading.is_seen for m in mentions)),
        "never_read": share(sum(not m.reading.is_read for m in mentions)),
        "tail": share(sum(m.reading.kb_id in tail for m in mentions)),
        "title_not_composable": share(
            sum(
                not (m.reading.name == m.reading.family or m.reading.name.startswith(m.reading.family + " ("))
                for m in mentions
            )
        ),
        "mean_words": round(sum(len(m.text.split()) for m in mentions) / number, 2),
    }
