"""The peers there are: each in one place, for the command, the report and the grids.

Light on purpose: what makes a peer is imported when it is made.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc
    from spacy.training import Example

    from research.baselines.options import PeerOptions
    from research.baselines.training_mentions import TrainingMentions
    from spacy_gemel.evaluation.judge import Judge
    from spacy_gemel.kb.knowledge_base import KnowledgeBase

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
class Task:
    """What a peer is made of. nlp: blank, of the data's language. train_docs: what `training` was counted on."""

    nlp: "Language"
    kb: "KnowledgeBase"
    training: "TrainingMentions"
    train_docs: "Sequence[Doc]"
    options: "PeerOptions"


@dataclass(frozen=True, slots=True)
class Made:
    """A peer that has learnt. link: docs with mentions to docs with their entities. settings: what of it a reader must
    know. also: what else there is to tell, from the test examples as it linked them.
    """

    link: "Callable[[Sequence[Doc]], Iterator[Doc]]"
    settings: Mapping[str, Any] = field(default_factory=dict)
    also: "Callable[[Sequence[Example], Judge], dict[str, Any]] | None" = None


@dataclass(frozen=True, slots=True)
class Peer:
    """One kind.

    title: of its row in the report. what: how it links, in words, after "text only, "; case: how it compares where it
    does not ignore case, if that is not as things are written. options: those of PeerOptions and LinkerOptions that it
    takes. It is measured once per seed of a grid where it takes a `seed`, and chooses on dev data where it takes `dev`.
    """

    title: str
    what: str
    make: Callable[[Task], Made]
    options: Collection[str] = ()
    case: str = ""

    def message(self, *, ignore_case: bool) -> str:
        """How it links, in words."""
        return f"text only, {self.what}" + (", ignoring case" if ignore_case else self.case)


def _shortcut(task: Task) -> Made:
    from research.baselines.surfaces import surfaces
    from spacy_gemel.evaluation.baselines import MostFrequentEntity, looked_up

    names = surfaces(task.kb, task.options, exact=True)
    return Made(looked_up(MostFrequentEntity(task.kb, task.training, names)), {"ignore_case": task.options.ignore_case})


def _alias(task: Task) -> Made:
    from research.baselines.surfaces import surfaces
    from spacy_gemel.evaluation.baselines import AliasMatch, looked_up

    names = surfaces(task.kb, task.options, exact=False)
    return Made(looked_up(AliasMatch(task.kb, names)), {"ignore_case": task.options.ignore_case})


def _entity_linker(task: Task) -> Made:
    from research.baselines.entity_linker import make_entity_linker

    return make_entity_linker(task)


KINDS: dict[str, Peer] = {
    "shortcut": Peer(
        "Shortcut",
        "the most frequent training entity for the mention, else the entity of that name",
        _shortcut,
        ("ignore_case",),
    ),
    "alias": Peer(
        "Names and aliases",
        "the entity with the mention as its name or alias",
        _alias,
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
