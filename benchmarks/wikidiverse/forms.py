"""What people may call an entity, made from its name and its aliases: the mentions of texts made for training."""

import re
from collections.abc import Sequence

import numpy as np

from benchmarks.wikidiverse.data import Asked, Known

_QUALIFIED = re.compile(r"\s*(\([^)]*\)|,.*)$")
# How often a form is drawn; one that a name has not is the bare name.
_FORMS = {"bare": 0.28, "alias": 0.17, "last": 0.17, "part": 0.1, "titled": 0.12, "initials": 0.04, "lower": 0.12}
_TYPO, _POSSESSIVE, _PLURAL = 0.04, 0.05, 0.04


def bare_name(name: str) -> str:
    """A name without what tells it from its namesakes: "Mercury" of "Mercury (planet)"."""
    return _QUALIFIED.sub("", name) or name


def words_in_front(examples: Sequence[Asked]) -> list[str]:
    """What stands before a name in the training mentions, as often as it does: "President", "the", "Premier"."""
    found = []
    for asked in examples:
        bare = bare_name(asked.name)
        if asked.mention.endswith(" " + bare):
            found.append(asked.mention[: -len(bare) - 1])
    return found or ["the"]


def make_mention(entity: Known, titles: Sequence[str], rng: np.random.Generator) -> str:
    """One of the forms of an entity."""
    bare = bare_name(entity.name)
    words = bare.split()
    kind = str(rng.choice(list(_FORMS), p=list(_FORMS.values())))
    mention = bare
    if kind == "alias" and entity.aliases:
        mention = entity.aliases[int(rng.integers(len(entity.aliases)))]
    elif kind == "last" and len(words) > 1:
        mention = words[-1]
    elif kind == "part" and len(words) > 1:
        start = int(rng.integers(len(words)))
        mention = " ".join(words[start : start + 1 + int(rng.integers(2))])
    elif kind == "titled":
        mention = f"{titles[int(rng.integers(len(titles)))]} {bare}"
    elif kind == "initials" and len(words) > 2:
        mention = "".join(word[0] for word in words if word[0].isupper()) or bare
    elif kind == "lower":
        mention = bare[:1].lower() + bare[1:] if rng.random() < 0.5 else bare.lower()
    return _blur(mention, rng)


def _blur(mention: str, rng: np.random.Generator) -> str:
    drawn = rng.random()
    if drawn < _TYPO and len(mention) > 4:
        index = 1 + int(rng.integers(len(mention) - 2))
        return mention[:index] + mention[index + 1 :]
    if drawn < _TYPO + _POSSESSIVE:
        return mention + "'s"
    if drawn < _TYPO + _POSSESSIVE + _PLURAL:
        return mention + "s"
    return mention
