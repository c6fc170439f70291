"""The settings of a pipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass
class Settings:
    """The pipe's settings, as its config gives them; see `make_gemel_linker` for what each means.

    A change of a pipe's settings lasts until the process ends: what is to be saved stands in the config. name_end and
    max_name_tokens are read when the pipe is loaded.

    temperature: of the candidates' probabilities; 1 until calibrated.
    Raises ValueError for a value that makes no sense.
    """

    beam_size: int
    n_candidates: int
    max_name_tokens: int
    name_end: Literal["newline", "eos"]
    n_demonstrations: int
    n_training_demonstrations: int | None
    threshold: float | None
    use_image: bool
    constrained: bool
    batch_tokens: int
    labels_discard: Sequence[str] = ()
    use_gold_ents: bool = True
    overwrite: bool = True
    context: Literal["doc", "sentence", "window"] = "doc"
    n_sents: int = 0
    window: int = 64
    temperature: float = 1.0
    prior_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.name_end not in ("newline", "eos"):
            raise ValueError(f'gemel_linker: name_end must be "newline" or "eos", not {self.name_end!r}.')
        for name in ("beam_size", "n_candidates", "max_name_tokens", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"gemel_linker: {name} must be at least 1, not {getattr(self, name)}.")
        if self.context not in ("doc", "sentence", "window"):
            raise ValueError(f'gemel_linker: context must be "doc", "sentence" or "window", not {self.context!r}.')
        if not self.temperature > 0:
            raise ValueError(f"gemel_linker: temperature must be above 0, not {self.temperature!r}.")
        if not 0 <= self.prior_weight < float("inf"):
            raise ValueError(f"gemel_linker: prior_weight must be a number from 0 on, not {self.prior_weight!r}.")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"gemel_linker: threshold is a probability, from 0 to 1, not {self.threshold!r}.")
        for name in ("n_demonstrations", "n_training_demonstrations", "n_sents", "window"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"gemel_linker: {name} must be 0 or more, not {getattr(self, name)}.")
