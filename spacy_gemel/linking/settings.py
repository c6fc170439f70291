"""The settings of a linker: name, default, check and meaning of each, once."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from inspect import Parameter
from numbers import Integral, Real
from typing import Any, Literal, get_args

Check = Callable[[Any], Any]
"""Returns a value as a setting has it. Raises ValueError with a message that goes on after the setting's name."""


def _integer(least: int) -> Check:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"must be a whole number, not {value!r}")
        if int(value) < least:
            raise ValueError(f"must be {f'at least {least}' if least else '0 or more'}, not {value}")
        return int(value)

    return check


def _number(message: str, is_valid: Callable[[float], bool]) -> Check:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not is_valid(float(value)):
            raise ValueError(f"{message}, not {value!r}")
        return float(value)

    return check


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _choice(literal: Any) -> Check:
    *choices, last = (f'"{choice}"' for choice in get_args(literal))

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in get_args(literal):
            raise ValueError(f"must be {', '.join(choices)} or {last}, not {value!r}")
        return value

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")
    return value


def _labels(value: Any) -> tuple[str, ...]:
    labels = None if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    if labels is None or not all(isinstance(label, str) for label in labels):
        raise ValueError(f'must be a list of labels, such as ["DATE"], not {value!r}')
    return labels


def _setting(default: Any, check: Check, doc: str) -> Any:
    return field(default=default, metadata={"check": check, "doc": doc})


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be a folder's path, not {value!r}")
    return value


NameEnd = Literal["newline", "eos"]
Ties = Literal["order", "picture"]
Context = Literal["doc", "sentence", "window"]
CandidateSource = Literal["names", "aliases"]
Search = Literal["beam", "exact"]


@dataclass(frozen=True)
class LinkerSettings:
    """What a linker does, as its config and `GemelLinker.configure` say. A change makes new settings.

    Raises ValueError if values make no sense; the message names all of them.
    """

    beam_size: int = _setting(5, _integer(1), "Beams of the search (the paper's 5).")
    n_candidates: int = _setting(
        5,
        _integer(1),
        "Names to find for each mention, at most `beam_size`. All entities that share a name count; those that the "
        "mention is exactly a name or alias of are candidates besides.",
    )
    search: Search = _setting(  # noqa: RUF009
        "beam",
        _choice(Search),
        'How names are found: by the beams alone, as in the paper, or, with `"exact"`, by going on after them until no '
        "name can be better than the best one. `span._.gemel_search` tells whether that is so.",
    )
    exact_tokens: int = _setting(
        256,
        _integer(1),
        'With `search = "exact"`: tokens to try for a mention after the beams. Then the search gives up, and tells by '
        "how much another name could be better.",
    )
    max_name_tokens: int = _setting(
        32, _integer(1), "The longest name, in tokens, without the token that ends it (the paper's 32)."
    )
    name_end: NameEnd = _setting(  # noqa: RUF009
        "newline",
        _choice(NameEnd),
        'What ends a name: `"newline"`, as in a demonstration, or `"eos"`, as in the paper.',
    )
    n_demonstrations: int = _setting(16, _integer(0), "Demonstrations in a prompt (the paper's 16).")
    n_training_demonstrations: int | None = _setting(
        None,
        _optional(_integer(0)),
        "At most this many demonstrations in a prompt while the mapper learns, which makes a step cheaper; `null` for "
        "`n_demonstrations`, as in the paper.",
    )
    demonstration_sets: int = _setting(
        0,
        _integer(0),
        "Instead of the demonstrations most similar to a mention show it one of so many fixed sets of them, the one "
        "nearest to it, which the language model reads once for all mentions: faster, and less accurate. 1 is a fixed "
        "prompt, 0 for none. It needs a retriever that compares vectors, and up to 2 GiB of the model's device.",
    )
    ties: Ties = _setting(  # noqa: RUF009
        "order",
        _choice(Ties),
        "Which demonstrations of the same mention are shown and stand nearest to the query: the first of the training "
        'data, or, with `"picture"`, those whose pictures are most similar to the doc\'s.',
    )
    threshold: float | None = _setting(
        None,
        _optional(_number("is a probability, from 0 to 1", lambda number: 0 <= number <= 1)),
        'A mention whose best candidate is less probable than this gets `"NIL"`; `null` for never.',
    )
    labels_discard: Sequence[str] = _setting(
        (), _labels, 'Entities with these labels get `"NIL"` without a search, and are not trained on.'
    )
    use_gold_ents: bool = _setting(
        True,
        _flag,
        "Train on all gold entities; `false` for only those that the predicted doc has too, from the components before "
        "the linker (`annotating_components`).",
    )
    overwrite: bool = _setting(True, _flag, "Replace the ids that entities already have.")
    context: Context = _setting(  # noqa: RUF009
        "doc",
        _choice(Context),
        'The text that the language model reads: all of the doc, the `"sentence"` of the mention, which needs a '
        'component that sets sentences, or a `"window"` of tokens around it, which needs none.',
    )
    n_sents: int = _setting(0, _integer(0), 'With `context = "sentence"`: neighbouring sentences on each side.')
    window: int = _setting(64, _integer(0), 'With `context = "window"`: tokens on each side.')
    use_image: bool = _setting(True, _flag, "Use the image; `false` to link from the text alone.")
    image_root: str | None = _setting(
        None,
        _optional(_path),
        "The folder that images must lie in: a path that leads elsewhere, also by a link, is not opened, and counts as "
        "unreadable; `null` for anywhere.",
    )
    constrained: bool = _setting(
        True, _flag, '`false` lets the model answer anything; an answer that is no name of an entity is then `"NIL"`.'
    )
    candidates: CandidateSource = _setting(  # noqa: RUF009
        "names",
        _choice(CandidateSource),
        'What a mention may mean: any of the `"names"` in the knowledge base, or, with `"aliases"`, only the entities '
        "with this name or alias and those that the training examples know it by, all of them scored; a mention "
        "without any may mean everything.",
    )
    prior_weight: float = _setting(
        0.0,
        _number("must be a number from 0 on", lambda number: 0 <= number < math.inf),
        "The weight of what a mention usually means, in the training examples and in the knowledge base's names and "
        "aliases; 0 for none. A decision that `python -m spacy_gemel fit-decision` has fitted weighs it itself.",
    )
    batch_tokens: int = _setting(
        8192,
        _integer(1),
        "Tokens that the language model holds at once: prompts, padding and room for the beams. Halved if memory runs "
        "out; more may be faster on a large GPU.",
    )

    def __post_init__(self) -> None:
        problems = []
        for setting in fields(self):
            try:
                object.__setattr__(self, setting.name, setting.metadata["check"](getattr(self, setting.name)))
            except ValueError as error:
                problems.append(f"{setting.name} {error}")
        if problems:
            raise ValueError(f"gemel_linker: {'; '.join(problems)}.")

    def replace(self, **changes: Any) -> "LinkerSettings":
        """These settings with some changes. Raises ValueError if a name is unknown or a value makes no sense."""
        names = [setting.name for setting in fields(self)]
        if unknown := ", ".join(repr(name) for name in changes if name not in names):
            raise ValueError(f"gemel_linker: there is no setting {unknown}, only {', '.join(names)}.")
        return replace(self, **changes)


def _refuse_assignment(_settings: LinkerSettings, name: str, value: Any) -> None:
    raise FrozenInstanceError(f"gemel_linker: settings do not change: use linker.configure({name}={value!r}).")


LinkerSettings.__setattr__ = _refuse_assignment  # type: ignore[method-assign,assignment]


_FIELDS = {setting.name: setting for setting in fields(LinkerSettings)}


def config_names() -> list[str]:
    """The names of the settings."""
    return [*_FIELDS]


def default_config() -> dict[str, Any]:
    """The defaults of the settings, as a config has them."""
    defaults = {name: setting.default for name, setting in _FIELDS.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}


def config_parameters() -> list[Parameter]:
    """The settings as parameters of a function, by which spaCy checks a config's types."""
    types = {name: list[str] if setting.default == () else setting.type for name, setting in _FIELDS.items()}
    return [Parameter(name, Parameter.KEYWORD_ONLY, annotation=type_) for name, type_ in types.items()]


def settings_table() -> str:
    """The table of the settings in docs/settings.md."""
    rows = [
        f"| `{name}` | `{json.dumps(default)}` | {_FIELDS[name].metadata['doc']} |"
        for name, default in default_config().items()
    ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


CONTEXT_OF = {"n_sents": "sentence", "window": "window"}  # the one in which a setting has an effect
_DEFAULTS = LinkerSettings()


# Whatever changes how many candidates share the probability.
_SHARES = ("beam_size", "n_candidates", "candidates", "constrained", "search", "prior_weight")


def changed_threshold(previous: LinkerSettings, settings: LinkerSettings) -> str | None:
    """Why a threshold that stayed as it was no longer means the same; None if it does."""
    changed = [name for name in _SHARES if getattr(previous, name) != getattr(settings, name)]
    if settings.threshold is None or settings.threshold != previous.threshold or not changed:
        return None
    values = ", ".join(f"{name} = {getattr(settings, name)!r}" for name in changed)
    only = "; an only candidate has probability 1, and is never NIL" if settings.n_candidates == 1 else ""
    return (
        f"threshold = {settings.threshold:g} is a probability among the candidates, and with {values} they share it "
        f"differently{only}: choose the threshold anew, such as with `spacy find-threshold`"
    )


def unused_settings(settings: LinkerSettings) -> dict[str, str]:
    """The settings that have no effect beside the others: {name: why, and what to set}."""
    messages = {}
    for name, context in CONTEXT_OF.items():
        value = getattr(settings, name)
        if settings.context != context and value != getattr(_DEFAULTS, name):
            problem = f'{name} = {value} has no effect with context = "{settings.context}"'
            messages[name] = f'{problem}: set context = "{context}", or leave {name} out'
    if settings.search == "exact" and not settings.constrained:
        messages["search"] = 'search = "exact" has no effect with constrained = false: leave one of them out'
    if settings.search != "exact" and settings.exact_tokens != _DEFAULTS.exact_tokens:
        problem = f'exact_tokens = {settings.exact_tokens} has no effect with search = "{settings.search}"'
        messages["exact_tokens"] = f'{problem}: set search = "exact", or leave exact_tokens out'
    if settings.demonstration_sets and not settings.n_demonstrations:
        problem = f"demonstration_sets = {settings.demonstration_sets} has no effect with n_demonstrations = 0"
        messages["demonstration_sets"] = f"{problem}: leave one of them out"
    if settings.demonstration_sets and settings.ties != _DEFAULTS.ties:
        problem = f'ties = "{settings.ties}" has no effect with demonstration_sets = {settings.demonstration_sets}'
        messages["ties"] = f"{problem}: leave one of them out"
    # Leave the default alone: someone who lowers beam_size has not asked for five candidates.
    if settings.n_candidates > settings.beam_size and settings.n_candidates != _DEFAULTS.n_candidates:
        messages["n_candidates"] = (
            f"n_candidates = {settings.n_candidates} names cannot be found by beam_size = {settings.beam_size} beams: "
            f"there will be {settings.beam_size} at most. Set beam_size = {settings.n_candidates}, or fewer candidates"
        )
    return messages
