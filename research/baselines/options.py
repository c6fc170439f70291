"""How a peer is made and measured."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from research.baselines.kinds import check_options


@dataclass(frozen=True, slots=True)
class LinkerOptions:
    """How spaCy's linker is trained.

    epochs: passes over the training docs; with dev docs at most so many, and the best is kept.
    vector_length: of the entities' vectors, where no encoder is given.
    encoder: a sentence encoder by name or folder, whose vectors of the descriptions the linker learns to meet.
    patience: epochs without a better one on dev before it stops.
    """

    epochs: int = 10
    seed: int = 0
    vector_length: int = 300
    encoder: str | None = None
    batch_size: int = 32
    dropout: float = 0.2
    learn_rate: float = 0.001
    patience: int = 3
    progress: bool = True


@dataclass(frozen=True, slots=True)
class PeerOptions:
    """How to measure a peer. `limit` counts test docs, 0 for all.

    ignore_case: compare mentions, names and aliases without regard to case (shortcut, alias). lang: spaCy's language of
    the data, whose tokenizer and sentences entity_linker sees.
    dev: what the epoch of entity_linker is chosen on. held_out: in place of that, a share of the training texts to
    choose it on, 0 for none; then it is trained once more, on all of them, for so many epochs.
    """

    ignore_case: bool = False
    lang: str = "en"
    dev: Path | None = None
    held_out: float = 0.0
    linker: LinkerOptions = field(default_factory=LinkerOptions)
    tail_share: float = 0.05
    limit: int = 0
    progress: bool = True

    def check(self, kind: str) -> None:
        """Raises ValueError for a kind that there is none of, for an option that it has no use for, and for options
        that do not go together.
        """
        own = {name for name in ("ignore_case", "dev", "held_out") if getattr(self, name)}
        plain = LinkerOptions()
        names = [option.name for option in fields(plain) if option.name != "progress"]
        own |= {name for name in names if getattr(self.linker, name) != getattr(plain, name)}
        check_options(kind, sorted(own))
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}: it is a share of the training texts, from 0 to below 1")
        if self.held_out and self.dev is not None:
            raise ValueError("give dev data or a share of the training texts to hold out, not both")
