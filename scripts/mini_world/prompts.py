"""Pretraining text for the language model: prompts of the paper's shape and short statements.

In front of a [Text] the picture may be told in words: its kind's word, one to four times. It stands where the mapper
will later put its soft tokens. Some answers can only be copied: names invented for one document, told apart by the
picture's kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .captions import make_caption
from .names import KINDS, Reading, pick_form

MAX_PICTURE_WORDS = 4
FLATTENING = 0.6  # popularity to this power is how often the text tells of an entity


@dataclass(frozen=True, slots=True)
class Item:
    """A demonstration or query: what it shows, how it is mentioned, what it is."""

    mention: str
    kind: str
    name: str
    text: str
    picture_words: int  # 0: no picture
    knowable: bool  # whether the answer follows from what is known or stands before
    copied: bool  # whether the answer is invented and stands before


@dataclass(frozen=True, slots=True)
class _Choice:
    kind: str
    name: str
    forms: tuple[str, ...]
    known: bool  # a read entity; otherwise invented for one document
    weight: float = 1.0  # popularity, flattened


def _choice_of(reading: Reading) -> _Choice:
    return _Choice(reading.kind, reading.name, reading.forms, True, reading.weight**FLATTENING)


def question(text: str, mention: str) -> str:
    """The query segment of the paper's prompt, up to and including [Answer]."""
    return f"[Text]{text}\n[Question]What does {mention} mentioned in the text refer to?\n[Answer]"


class PromptMaker:
    """Draws pretraining documents from a world, reading no entity outside its read ones."""

    def __init__(self, world: tuple[Reading, ...], distractor_names: list[str]) -> None:
        self.read = [reading for reading in world if reading.is_read]
        self.by_family: dict[str, list[Reading]] = {}
        for reading in self.read:
            self.by_family.setdefault(reading.family, []).append(reading)
        self.families = sorted(self.by_family)
        weights = np.array([reading.weight for reading in self.read]) ** FLATTENING
        self.weights = np.cumsum(weights / weights.sum())
        self.titles = {reading.name for reading in world} | set(distractor_names)
        names = [reading.name for reading in world] + distractor_names
        words = {word.strip("(),:") for name in names for word in name.split()}
        self.words = sorted(word for word in words if word and word[0].isalnum())
        self.big_words = [word for word in self.words if word[0].isupper()]
        self.small_words = [word for word in self.words if word[0].islower()] + list(KINDS)

    def any_reading(self, rng: np.random.Generator) -> Reading:
        """A read entity by popularity, flattened."""
        return self.read[min(int(np.searchsorted(self.weights, rng.random())), len(self.read) - 1)]

    def invent_name(self, mention: str, rng: np.random.Generator) -> str:
        """A title that no entity has, like the real ones in shape; half do not begin with the mention."""

        def big() -> str:
            return self.any_word(rng)

        def small() -> str:
            return self.small_words[int(rng.integers(len(self.small_words)))]

        while True:
            shape = int(rng.integers(13))
            name = (
                f"{mention} ({small()})", f"{mention} ({small()})", f"{big()} {mention}", f"{mention} {big()}",
                f"{big()} {big()}", f"{big()} {big()} {mention}", f"{big()} {mention} {big()}", f"{mention}, {big()}",
                big(), f"{big()} ({small()})", f"{mention} ({small()} {small()})", f"{mention} {small()}",
                f"{big()} {mention.lower()}",
            )[shape]  # fmt: skip
            if name not in self.titles:
                return name

    def _item(
        self, form: str, choice: _Choice, rng: np.random.Generator, picture: bool, stands: bool, first: bool
    ) -> Item:
        text, _, telling = make_caption(form, choice.kind, rng)
        words = 1 + int(rng.integers(MAX_PICTURE_WORDS)) if picture else 0
        knowable = not first and (choice.known or (stands and (picture or telling)))
        return Item(form, choice.kind, choice.name, text, words, knowable, stands and not choice.known)

    def _invent(self, rng: np.random.Generator, mention: str, taken: set[str]) -> list[_Choice]:
        """One to three invented readings of `mention`, of kinds that are not `taken`; sometimes with a second form."""
        free = [kind for kind in KINDS if kind not in taken]
        invented = []
        for position in rng.permutation(len(free))[: 1 + int(rng.integers(3))]:
            forms = (mention, self.any_word(rng)) if rng.random() < 0.2 else (mention,)
            invented.append(_Choice(free[int(position)], self.invent_name(mention, rng), forms, False))
        return invented

    def any_word(self, rng: np.random.Generator) -> str:
        """A capital word of the world's titles."""
        return self.big_words[int(rng.integers(len(self.big_words)))]

    def _choices(self, rng: np.random.Generator, copy_share: float) -> tuple[list[_Choice], list[_Choice]]:
        """What a document is about: readings that are known, and readings invented for it."""
        family = self.any_reading(rng).family
        known = [_choice_of(reading) for reading in self.by_family[family]]
        if rng.random() >= copy_share:
            return known, []
        if rng.random() < 0.5 and copy_share < 1:  # a real name with further readings, as never-read entities have them
            return known, self._invent(rng, family, {choice.kind for choice in known})
        invented = self._invent(rng, self.any_word(rng) if rng.random() < 0.5 else family, set())
        if rng.random() < 0.5:  # another name with the same kinds: both the name and the kind must be matched
            other = self.any_word(rng)
            invented += [_Choice(c.kind, self.invent_name(other, rng), (other,), False) for c in invented]
        return [], invented

    def document(
        self, rng: np.random.Generator, copy_share: float = 0.5, longest: int = 9, picture: bool | None = None
    ) -> list[Item]:
        """Two to `longest` + 1 items; each one's answer is asked but the first's.

        A lone question never occurs, and a first answer is not asked: in text like this, examples come in rows and
        the first one shows the form. One row in eight is of unrelated items, as chance would draw them. Where there
        are pictures, some rows end with a known reading that none of their examples shows: what stands there is not
        all there is. `picture` True or False gives all items one or none.
        """
        n_items = 2 + int(rng.integers(longest))
        pictured = rng.random() < 0.8 if picture is None else picture
        known, invented = self._choices(rng, copy_share)
        if invented:
            n_items = max(n_items, min(4, longest + 1))
        other_share = 0.0 if copy_share == 1 else 1.0 if rng.random() < 0.125 else 0.1 if invented else 0.3
        last = None
        if pictured and known and len(known) + len(invented) > 1 and rng.random() < 0.4:
            last = self._pick(known, rng)
        examples = [choice for choice in known if choice is not last]
        items: list[Item] = []
        earlier: set[str] = set()
        for position in range(n_items):
            has_picture = pictured and (picture is True or rng.random() < 0.94)
            if last is not None and position == n_items - 1:
                choice = last
            elif rng.random() < other_share:  # about any reading at all
                choice = _choice_of(self.any_reading(rng))
            else:
                choice = self._pick(invented if invented and (not examples or rng.random() < 0.7) else examples, rng)
            forms = choice.forms
            form = forms[0] if len(forms) == 1 or rng.random() < 0.75 else forms[1 + int(rng.integers(len(forms) - 1))]
            items.append(self._item(form, choice, rng, has_picture, choice.name in earlier, first=not items))
            earlier.add(choice.name)
        return items

    @staticmethod
    def _pick(choices: list[_Choice], rng: np.random.Generator) -> _Choice:
        """One of them by its weight."""
        bounds = np.cumsum([choice.weight for choice in choices])
        return choices[min(int(np.searchsorted(bounds, rng.random() * bounds[-1])), len(choices) - 1)]

    def statement(self, rng: np.random.Generator) -> str:
        """Some lines of plain text about a read entity."""
        r = self.any_reading(rng)
        form = pick_form(r, rng)
        return (
            f"{r.name} is a {r.kind} known as {form}.\n",
            f"In the picture of a {r.kind}, {form} is {r.name}.\n",
            f"A {r.kind} called {form}: {r.name}\n",
        )[int(rng.integers(3))]
