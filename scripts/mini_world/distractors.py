"""Further titles for the KB: likely-looking combinations, and names that continue or begin other names."""

from __future__ import annotations

import numpy as np

from .names import Reading, kb_id_of

_PATTERNS = (
    "{w} River", "{w} County", "{w} Township", "Mount {w}", "Lake {w}", "Fort {w}", "{w} Bridge", "{w} railway station",
    "{w} Castle", "{w} (surname)", "{w} (disambiguation)", "{w}, Ohio", "{w}, Texas", "{w} High School", "USS {w}",
    "HMS {w}", "{w} Records", "{w} Island", "{w} Park", "{w} F.C.", "{w} (film)", "{w} (novel)", "{w} (album)",
    "New {w}", "{w} Airport", "{w} Award", "{w} Museum", "Battle of {w}", "{w} Hall", "{w} Street", "University of {w}",
    "{w} Bay", "{w} Valley", "{w} {v}", "{v} of {w}", "{w} and {v}", "The {w} {v}",
)  # fmt: skip
_LOCATIONS = (
    "Abbot", "Alder", "Ashford", "Barrow", "Beacon", "Birch", "Bristol", "Camden", "Carlton", "Cedar",
    "Clifton", "Dover",
    "Drake", "Elm", "Fairfax", "Franklin", "Garnet", "Glen", "Grant", "Greenwood", "Hamilton", "Harbor", "Hartford",
    "Hazel", "Highland", "Kent", "Kingston", "Lakeside", "Laurel", "Linden", "Logan", "Maple", "Marion",
    "Mason", "Milford",
    "Monroe", "Newport", "Norfolk", "Oakland", "Oxford", "Pearl", "Plymouth", "Quincy", "Raven", "Redwood", "Richmond",
    "Salem", "Sheridan", "Somerset", "Spencer", "Stafford", "Sterling", "Trenton", "Union", "Vernon", "Walton",
    "Warren",
    "Wayne", "Windsor", "York",
)  # fmt: skip
_SECOND = (
    "Story", "Garden", "Crossing", "Dream", "House", "Empire", "Legacy", "Trail", "Society", "Project", "Song", "Light",
    "Shadow", "Harvest", "Letter", "Journey",
)  # fmt: skip


def make_distractors(world: tuple[Reading, ...], seed: int, number: int = 3000) -> list[dict[str, object]]:
    """KB rows of count 0 that are no one's gold. Same seed, same rows; none repeats a title of the world.

    A part continues a name of the world ("Mercury (planet) in culture"), so that one name is a prefix of another.
    """
    rng = np.random.default_rng([seed, 12])
    taken = {reading.name for reading in world}
    families = sorted({reading.family for reading in world})
    names: list[str] = []
    for reading in world:
        if rng.random() < 0.2:
            tail = ("in culture", "II", "Museum", "Award")[int(rng.integers(4))]
            names.append(f"{reading.name} {tail}")
    names += [family for family in families if rng.random() < 0.6]
    seen = set(taken)
    unique = []
    while True:
        for name in names:
            if name not in seen:
                seen.add(name)
                unique.append(name)
        if len(unique) >= number:
            break
        pool = families if rng.random() < 0.7 else _LOCATIONS
        word = pool[int(rng.integers(len(pool)))]
        pattern = _PATTERNS[int(rng.integers(len(_PATTERNS)))]
        names = [pattern.format(w=word, v=_SECOND[int(rng.integers(len(_SECOND)))])]
    return [{"id": kb_id_of(name), "name": name, "count": 0} for name in unique[:number]]
