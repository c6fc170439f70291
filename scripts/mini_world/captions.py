"""Captions of about ten words: most say nothing that tells the readings of a name apart."""

from __future__ import annotations

import numpy as np

TELLING_SHARE = 0.3

_NEUTRAL = (
    "{m} as seen by {who} {when}",
    "A picture of {m} taken by {who} {when}",
    "{who} shared this view of {m} {when}",
    "{m} in a photograph that {who} took {when}",
    "{when} {who} finally got close to {m}",
    "Everyone at {place} talked about {m} {when}",
    "{who} wrote a long story about {m} {when}",
    "This image of {m} hung at {place} {when}",
    "{m} remains the favourite of {who} at {place}",
    "{who} had been waiting to see {m} since {year}",
    "A new look at {m} from the archive of {year}",
    "Nothing in {year} was as widely discussed as {m}",
    "{m} drew the attention of {who} at {place}",
    "{place} showed {m} to {who} {when}",
    "For {who} there is only one {m} worth knowing",
    "The year {year} was a good one for {m}",
    "{who} chose {m} for the cover {when}",
    "Few things surprised {who} as much as {m}",
    "{m} appeared on the front page {when}",
    "{who} explained {m} to a small crowd at {place}",
)
_WHO = (
    "a visitor", "our reader", "the reporter", "a local family", "the students", "an old friend", "the photographer",
    "two sisters", "a teacher", "the jury", "a collector", "the neighbours", "a young writer", "the guests",
)  # fmt: skip
_WHEN = (
    "last summer", "on Sunday", "in the morning", "a year ago", "before the rain", "in early spring", "last night",
    "on a quiet day", "after lunch", "at noon", "this week", "in winter",
)  # fmt: skip
_WHERE = (
    "the museum",
    "the library",
    "our school",
    "the fair",
    "the gallery",
    "the market",
    "a small exhibition",
    "the club",
)

_TELLING: dict[str, tuple[str, ...]] = {
    "planet": ("{m} shines in the night sky through a telescope {when}",
    "{m} and its orbit as measured by astronomers in {year}"),
    "car": ("{who} drove the {m} along the motorway {when}", "The {m} stood in the garage with a new engine"),
    "island": ("{who} sailed around the coast of {m} {when}", "The beaches of {m} were empty in {year}"),
    "shuttle": ("{m} lifted off from the launch pad {when}", "The crew of {m} returned from orbit in {year}"),
    "flag": ("The flag of {m} was raised {when}", "Citizens of {m} went to vote in {year}"),
    "film": ("{who} watched {m} at the cinema {when}", "The director of {m} won a prize in {year}"),
    "player": ("{m} won the match on the home ground {when}", "A player of {m} scored twice in {year}"),
    "ship": ("The captain of {m} left the harbour {when}", "{m} sank after a storm at sea in {year}"),
    "river": ("{who} rowed down the {m} {when}", "The water of {m} flooded its banks in {year}"),
    "mountain": ("{who} climbed to the summit of {m} {when}", "Snow covered the slopes of {m} in {year}"),
    "bird": ("The {m} spread its wings above its nest {when}", "{who} heard the {m} sing from a branch {when}"),
    "cat": ("The {m} hunted its prey in the wild {when}", "{m} cubs were born at the zoo in {year}"),
    "snake": ("The {m} slid through the grass and hissed {when}", "The venom of the {m} was studied in {year}"),
    "fruit": ("{who} ate a ripe {m} for breakfast {when}", "A basket of {m} from the orchard {when}"),
    "guitar": ("{who} listened to the music of {m} {when}", "{m} played loud on the radio in {year}"),
    "book": ("{who} read the last chapter of {m} {when}", "The first edition of {m} was printed in {year}"),
    "parliament": ("Members of {m} debated the new law {when}", "{m} voted on the budget in {year}"),
    "coin": ("{who} paid with a {m} from an old purse {when}", "The mint struck the {m} in {year}"),
    "code": ("{who} installed the latest version of {m} {when}", "Programmers fixed a bug in {m} in {year}"),
    "phone": ("Shares of {m} rose after a new product {when}", "{m} opened its new store in {year}"),
    "train": ("{who} boarded the {m} at the platform {when}", "The {m} ran late on the railway in {year}"),
    "plane": ("The pilot landed the {m} on the runway {when}", "The {m} first flew in {year}"),
    "statue": ("{who} prayed to {m} in the ancient temple {when}", "The myth of {m} was carved in marble"),
    "portrait": ("{m} smiled and gave a speech {when}", "{m} was born and grew up before {year}"),
    "skyline": ("{who} walked through the streets of {m} {when}", "The mayor of {m} opened a square in {year}"),
    "badge": ("Supporters of {m} sang in the stand {when}", "{m} signed a new coach in {year}"),
    "flower": ("{who} planted {m} in the garden {when}", "The petals of the {m} opened {when}"),
    "fish": ("{who} saw a {m} swim under the boat {when}", "The {m} was caught in a net in {year}"),
}  # fmt: skip


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def fill(template: str, mention: str, rng: np.random.Generator) -> tuple[str, int]:
    """The caption and the character offset of the mention in it."""
    before, after = template.split("{m}")

    def slots(part: str) -> str:
        for slot, options in (("{who}", _WHO), ("{when}", _WHEN), ("{place}", _WHERE)):
            if slot in part:
                part = part.replace(slot, _pick(rng, options))
        return part.replace("{year}", str(1950 + int(rng.integers(75)))) if "{year}" in part else part

    before, after = slots(before), slots(after)
    text = before + mention + after
    if before:
        text = text[0].upper() + text[1:]
    return text, len(before)


def make_caption(mention: str, kind: str, rng: np.random.Generator) -> tuple[str, int, bool]:
    """A caption for `mention`, the mention's character offset, and whether the words give the kind away."""
    telling = bool(rng.random() < TELLING_SHARE)
    text, start = fill(_pick(rng, _TELLING[kind] if telling else _NEUTRAL), mention, rng)
    return text, start, telling


def all_templates() -> tuple[str, ...]:
    """Every template, for training the tokenizer."""
    return _NEUTRAL + tuple(template for options in _TELLING.values() for template in options)


def all_slot_words() -> tuple[str, ...]:
    """Every filler of a template's slots, for training the tokenizer."""
    return _WHO + _WHEN + _WHERE
