"""The peers there are: each in one place, for the command, the report and the grids.

Light on purpose: what makes a peer is imported when it is made.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from research.baselines.options import PeerOptions
    from spacy_gemel.evaluation.baselines import Baseline, TrainingData

OPTIONS: Mapping[str, type] = {
    "ignore_case": bool,
    "epochs": int,
    "seed": int,
    "vector_length": int,
    "encoder": str,
    "held_out": float,
}
"""Options of a peer that a grid may give, and the type of their values; `PeerOptions` says what they mean."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One kind.

    title: of its row in the report. what: how it links, in words, after "text only, "; case: how it compares where it
    does not ignore case, if that is not as things are written. options: those of PeerOptions and LinkerOptions that it
    takes. It is measured once per seed of a grid where it takes a `seed`, and chooses on dev data where it takes `dev`.
    """

    title: str
    what: str
    make: "Callable[[TrainingData, PeerOptions], Baseline]"
    options: Collection[str] = ()
    case: str = ""

    def message(self, *, ignore_case: bool) -> str:
        """How it links, in words."""
        return f"text only, {self.what}" + (", ignoring case" if ignore_case else self.case)


def _lookup(name: str) -> "Callable[[TrainingData, PeerOptions], Baseline]":
    def make(data: "TrainingData", options: "PeerOptions") -> "Baseline":
        from spacy_gemel.evaluation.baselines import make_lookup_baseline

        return make_lookup_baseline(name, data, ignore_case=options.ignore_case, progress=options.progress)

    return make


def _entity_linker(data: "TrainingData", options: "PeerOptions") -> "Baseline":
    from research.baselines.entity_linker import make_entity_linker

    return make_entity_linker(data, options)


KINDS: dict[str, Peer] = {
    "shortcut": Peer(
        "Most frequent entity",
        "the most frequent training entity for the mention, else the entity of that name",
        _lookup("most-frequent"),
        ("ignore_case",),
    ),
    "alias": Peer(
        "Names and aliases",
        "the entity with the mention as its name or alias",
        _lookup("alias"),
        ("ignore_case",),
        ", but for the first letter's case and underscores, as titles are compared",
    ),
    "entity_linker": Peer(
        "spaCy's entity_linker",
        "spaCy's entity_linker trained on the same examples",
        _entity_linker,
        (
            "dev",
            "held_out",
            "epochs",
            "seed",
            "vector_length",
            "encoder",
            "batch_size",
            "dropout",
            "learn_rate",
            "patience",
        ),
    ),
}
"""By the name that the command and a grid call them. Another one is another line here."""

_REFUSED = {
    "ignore_case": "compares mentions as they are written: it cannot ignore case",
    "dev": "chooses nothing on dev data: it takes no --dev",
}


def check_options(kind: str, given: Collection[str]) -> None:
    """Raises ValueError for a kind that there is none of, and for an option that it has no use for."""
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no peer: use one of {', '.join(KINDS)}")
    taken = KINDS[kind].options
    for name in given:
        if name not in taken:
            why = _REFUSED.get(name, f"has no use for --{name.replace('_', '-')}")
            raise ValueError(f"{kind} {why}; it takes {', '.join(sorted(taken)) or 'no options'}")
