"""Putting a prompt together: x = [v_1; t_1; ...; v_n; t_n; v_q; t_q] (paper section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.linking.demonstrations import NO_IMAGE, Demonstration, DemonstrationStore
from spacy_gemel.linking.template import demonstration_text, query_text
from spacy_gemel.models.tokenizer import NameTokenizer
from spacy_gemel.utils.cache import BoundedCache

QUERY_IMAGE = -2

_KEPT_DEMONSTRATIONS = 20_000


@dataclass(frozen=True, slots=True)
class Segment:
    """One visual prefix and the text after it.

    image: row of the demonstration store's features, QUERY_IMAGE for the query's own, NO_IMAGE for none.
    ids: token ids of the text.
    """

    image: int
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A mention's prompt before it is embedded.

    segments: the demonstrations, most similar last, then the query.
    features: the features (d_v,) of the query's image, or None.
    length: tokens, visual prefixes included.
    demonstrations: the shown demonstrations' places in the store.
    dropped: demonstrations left out because the prompt was too long for the model.
    """

    segments: tuple[Segment, ...]
    features: NDArray[np.float32] | None
    length: int
    demonstrations: tuple[int, ...]
    dropped: int


class PromptTooLong(ValueError):
    """A query that does not fit the language model, even without demonstrations."""


class PromptBuilder:
    """Builds prompts (paper section 3.2) of at most max_tokens tokens; each demonstration is tokenised once.

    store: may be exchanged for one that has more. prefix_length: soft tokens of a visual prefix.
    """

    def __init__(
        self,
        tokenizer: NameTokenizer,
        store: DemonstrationStore,
        *,
        prefix_length: int,
        max_tokens: int,
        bos: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.store = store
        self.prefix_length = prefix_length
        self.max_tokens = max_tokens
        self.start: tuple[int, ...] = (tokenizer.tokenizer.bos_token_id,) if bos else ()
        self._segments: BoundedCache[Demonstration, Segment] = BoundedCache(_KEPT_DEMONSTRATIONS)

    def build(
        self,
        text: str,
        mention: str,
        features: NDArray[np.float32] | None,
        ranked: Sequence[int],
        *,
        use_image: bool = True,
    ) -> Prompt:
        """The prompt of a mention in its text.

        features: of the text's image, (d_v,), or None.
        ranked: the demonstrations to show, most similar first; the last of them go where all do not fit.
        Raises PromptTooLong if the query alone does not fit.
        """
        has_image = use_image and features is not None
        query = Segment(
            QUERY_IMAGE if has_image else NO_IMAGE,
            tuple(self.tokenizer.encode([query_text(text, mention)])[0]),
        )
        length = len(self.start) + self._length(query)
        if length > self.max_tokens:
            raise PromptTooLong(
                f"the text is too long for the language model: its prompt has {length} tokens, {self.max_tokens} fit"
            )
        segments = [query]
        shown = 0
        for index in ranked:
            segment = self._demonstration(self.store[index], use_image)
            if length + self._length(segment) > self.max_tokens:
                break
            segments.insert(0, segment)
            length += self._length(segment)
            shown += 1
        if self.start:
            segments.insert(0, Segment(NO_IMAGE, self.start))
        return Prompt(
            segments=tuple(segments),
            features=features if has_image else None,
            length=length,
            demonstrations=tuple(reversed(ranked[:shown])),
            dropped=len(ranked) - shown,
        )

    def _length(self, segment: Segment) -> int:
        return len(segment.ids) + (self.prefix_length if segment.image != NO_IMAGE else 0)

    def _demonstration(self, shown: Demonstration, use_image: bool) -> Segment:
        segment = self._segments.get(shown)
        if segment is None:
            text = demonstration_text(shown.text, shown.mention, shown.name)
            ids = tuple(self.tokenizer.encode([text])[0])
            segment = self._segments.put(shown, Segment(shown.image, ids))
        return segment if use_image else Segment(NO_IMAGE, segment.ids)


def gather_features(
    prompts: Sequence[Prompt], store: DemonstrationStore
) -> tuple[NDArray[np.float32], list[list[int]]]:
    """The features that some prompts need, each once, (images, d_v), and for each segment its row there or -1."""
    rows: list[NDArray[np.float32]] = []
    of_store: dict[int, int] = {}
    of_query: dict[int, int] = {}  # by identity: mentions of one doc share their array
    indices: list[list[int]] = []
    for prompt in prompts:
        place_of = []
        for segment in prompt.segments:
            if segment.image == NO_IMAGE:
                place_of.append(-1)
            elif segment.image == QUERY_IMAGE:
                assert prompt.features is not None
                if id(prompt.features) not in of_query:
                    of_query[id(prompt.features)] = len(rows)
                    rows.append(prompt.features)
                place_of.append(of_query[id(prompt.features)])
            else:
                if segment.image not in of_store:
                    of_store[segment.image] = len(rows)
                    rows.append(store.features[segment.image])
                place_of.append(of_store[segment.image])
        indices.append(place_of)
    return (np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)), indices
