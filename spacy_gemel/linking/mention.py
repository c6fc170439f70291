"""A mention: what the linker works on, apart from any Doc, in words that a prompt can take."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
# Blanks of other widths, of which a language model has read few.
_BLANKS = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
# Controls, and what Unicode calls format characters or ignorable: zero-width ones, marks of direction, fillers, tags.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
# Joiners belong to the spelling of scripts from Arabic to Khmer, variation selectors to symbols; elsewhere both hide.
_HIDDEN = re.compile(
    "(?<![\u0600-\u109f\u1780-\u18af])[\u200c\u200d]|(?<=[\\w\u200c\u200d\ufe00-\ufe0f])[\ufe00-\ufe0f]"
)
_MARKERS = re.compile(r"[\[<]\s*/?\s*(text|question|answer|image)\s*/?\s*[\]>]", re.IGNORECASE)
_QUESTION = re.compile(r"What does (.{1,200}?) mentioned in the text refer to\?", re.IGNORECASE)  # as `query_text`
_SIGNS = re.compile(r"[\[\]<>?]")


def prompt_text(text: str) -> str:
    """A text, a mention or a name as a prompt may hold it: one line, nothing invisible, none of its template.

    Anything else could pass for further demonstrations, or hide from a reader what the model reads.
    """
    text = _HIDDEN.sub("", _INVISIBLE.sub("", _BLANKS.sub(" ", _BREAKS.sub(" ", text))))
    text = _MARKERS.sub(" ", _QUESTION.sub(r"\1", text))
    if _MARKERS.search(text) or _QUESTION.search(text):  # one was hidden in another
        text = _SIGNS.sub(" ", text)
    return text


@dataclass(frozen=True, slots=True)
class Mention:
    """A span to be linked, with the features of the image of its doc, (d_v,); its words are a `prompt_text`."""

    doc: int  # index of its doc in the batch
    start: int  # index of its first token
    end: int  # index behind its last token
    mention: str
    text: str  # the context that the language model reads
    features: NDArray[np.float32] | None  # of the doc's image, (d_v,)
    gold: str = ""  # the gold id, if it is known
    vector: NDArray[np.float32] | None = None  # that the pipeline's transformer gave it, (width,), if it is used
    candidate_ids: tuple[str, ...] = ()  # all that it may mean; without any, every entity

    def __post_init__(self) -> None:
        object.__setattr__(self, "mention", prompt_text(self.mention))
        object.__setattr__(self, "text", prompt_text(self.text))
