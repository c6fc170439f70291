"""The settings of a pipe: what each may be, and what of it has no effect."""

import math
import operator
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal


@dataclass
class Settings:
    """The pipe's settings, as its config gives them; see `make_gemel_linker` for what each means.

    A change works from the next doc on, and is saved with the pipe. Where the config that a saved pipe is loaded with
    says something else than it did when the pipe was saved (an override of `spacy.load`, an edited config.cfg), the
    config's value holds.

    Setting `n_sents`, `window` or `n_candidates` to what has no effect warns.
    temperature: of the candidates' probabilities; 1 until calibrated. No config says it.
    Raises ValueError for a value that makes no sense, AttributeError for a name that is no setting's.
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

    def __setattr__(self, name: str, value: Any) -> None:
        check = _CHECKS.get(name)
        if check is None:
            raise AttributeError(f"gemel_linker: there is no setting {name!r}, only {', '.join(_CHECKS)}.")
        made = name in vars(self)
        super().__setattr__(name, check(name, value))
        if made and (message := unused_settings(self).get(name)):
            warnings.warn(f"gemel_linker: {message}.", stacklevel=2)

    def take(self, other: "Settings") -> None:
        """Be as another, in place: all at once, and without a word on what has no effect."""
        vars(self).update(vars(other))  # which has been checked


def names() -> list[str]:
    """The settings that stand in a config."""
    return [field.name for field in fields(Settings) if field.name != "temperature"]


def unused_settings(settings: Settings) -> dict[str, str]:
    """The settings that ask for what will not be: {name: in words, with what to set}."""
    message = {}
    for name, context in CONTEXT_OF.items():
        value = getattr(settings, name)
        if settings.context != context and value != getattr(Settings, name):
            message[name] = (
                f'{name} = {value} has no effect with context = "{settings.context}": set context = "{context}", or '
                f"leave {name} out"
            )
    # the default is no wish: whoever sets fewer beams has said so
    if settings.n_candidates > settings.beam_size and settings.n_candidates != _USUAL_CANDIDATES:
        message["n_candidates"] = (
            f"n_candidates = {settings.n_candidates} names cannot be found by beam_size = {settings.beam_size} beams: "
            f"there will be {settings.beam_size} at most. Set beam_size = {settings.n_candidates}, or fewer candidates"
        )
    return message


def _attribute(name: str, meaning: str) -> Any:
    def read(pipe: "SettingAttributes") -> Any:
        return getattr(pipe.settings, name)

    def write(pipe: "SettingAttributes", value: Any) -> None:
        setattr(pipe.settings, name, value)

    return property(read, write, doc=f"{meaning} `settings.{name}`, where spaCy's EntityLinker has it.")


class SettingAttributes:
    """Those settings that spaCy's EntityLinker has as attributes of the pipe."""

    name: str
    _settings: Settings

    @property
    def settings(self) -> Settings:
        """The settings that hold. They take over what is assigned, as other parts of the pipe have them too.

        Raises ValueError where that is no Settings, and warns of what has no effect.
        """
        return self._settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        if not isinstance(settings, Settings):
            raise ValueError(
                f"gemel_linker: settings must be Settings of spacy_gemel.linking.settings, not {settings!r}."
            )
        self._settings.take(settings)
        self.warn_unused_settings()

    def warn_unused_settings(self) -> None:
        """Warn of settings that have no effect: of those that hold by now, not of those that the config began with."""
        for message in unused_settings(self.settings).values():
            warnings.warn(f"{self.name}: {message}.", stacklevel=3)

    threshold = _attribute("threshold", "The least probability of an answer that is not NIL.")
    labels_discard = _attribute("labels_discard", "The labels whose entities are NIL unseen.")
    n_sents = _attribute("n_sents", "With the sentence as context, neighbouring sentences on each side.")
    use_gold_ents = _attribute("use_gold_ents", "Whether all gold entities are trained on.")
    overwrite = _attribute("overwrite", "Whether an id that is there already is replaced.")


CONTEXT_OF = {"n_sents": "sentence", "window": "window"}
"""The one context in which a setting is heeded."""

_USUAL_CANDIDATES = 5

Check = Callable[[str, Any], Any]


def _whole(least: int) -> Check:
    def check(name: str, value: Any) -> int:
        try:
            number = None if isinstance(value, bool) else operator.index(value)
        except TypeError:
            number = None
        if number is None:
            raise ValueError(f"gemel_linker: {name} must be a whole number, not {value!r}.")
        if number < least:
            limit = f"at least {least}" if least else "0 or more"
            raise ValueError(f"gemel_linker: {name} must be {limit}, not {number}.")
        return number

    return check


def _number(what: str, fits: Callable[[float], bool]) -> Check:
    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not fits(float(value)):
            raise ValueError(f"gemel_linker: {name} {what}, not {value!r}.")
        return float(value)

    return check


def _or_none(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def _one_of(*values: str) -> Check:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            listed = [f'"{known}"' for known in values]
            raise ValueError(f"gemel_linker: {name} must be {', '.join(listed[:-1])} or {listed[-1]}, not {value!r}.")
        return value

    return check


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"gemel_linker: {name} must be true or false, not {value!r}.")
    return value


def _labels(name: str, value: Any) -> tuple[str, ...]:
    labels = None if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    if labels is None or not all(isinstance(label, str) for label in labels):
        raise ValueError(f'gemel_linker: {name} must be a list of labels, such as ["DATE"], not {value!r}.')
    return labels


_CHECKS: dict[str, Check] = {
    "beam_size": _whole(1),
    "n_candidates": _whole(1),
    "max_name_tokens": _whole(1),
    "name_end": _one_of("newline", "eos"),
    "n_demonstrations": _whole(0),
    "n_training_demonstrations": _or_none(_whole(0)),
    "threshold": _or_none(_number("is a probability, from 0 to 1", lambda number: 0 <= number <= 1)),
    "use_image": _flag,
    "constrained": _flag,
    "batch_tokens": _whole(1),
    "labels_discard": _labels,
    "use_gold_ents": _flag,
    "overwrite": _flag,
    "context": _one_of("doc", "sentence", "window"),
    "n_sents": _whole(0),
    "window": _whole(0),
    "temperature": _number("must be above 0", lambda number: number > 0),
    "prior_weight": _number("must be a number from 0 on", lambda number: 0 <= number < math.inf),
}
