"""Building a prompt: x = [v_1; t_1; ...; v_n; t_n; v_q; t_q] (paper section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spacy_gemel.linking.demonstrations import NO_IMAGE, Demonstration, DemonstrationStore
from spacy_gemel.linking.mention import Mention, prompt_text
from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.models.tokenizer import NameTokenizer
from spacy_gemel.utils.cache import BoundedCache

QUERY_IMAGE = -2

_CACHED_DEMONSTRATIONS = 20_000
# About 400 demonstrations for a model of 7B parameters in bf16, all of the mini world's for its own.
_CACHE_BYTES = 256 * 2**20


def query_text(text: str, mention: str) -> str:
    """The question about a mention (paper section 3.2), which the model continues with the name."""
    return f"[Text]{text}\n[Question]What does {mention} mentioned in the text refer to?\n[Answer]"


def demonstration_text(text: str, mention: str, name: str) -> str:
    """A question with its answer, as it stands before the query (paper section 3.2)."""
    return f"{query_text(text, mention)}{prompt_text(name)}\n"


@dataclass(frozen=True, slots=True)
class Segment:
    """One visual prefix, NO_IMAGE for none, QUERY_IMAGE or a row of the store's features, and the text's token ids."""

    image: int
    ids: tuple[int, ...]

    @property
    def has_image(self) -> bool:
        """Whether a visual prefix stands before the text."""
        return self.image != NO_IMAGE


@dataclass(frozen=True, slots=True)
class Prompt:
    """A mention's prompt before it is embedded, with the features of its image, (d_v,)."""

    segments: tuple[Segment, ...]  # the demonstrations, most similar last, then the query
    features: NDArray[np.float32] | None  # of the query's image, (d_v,)
    length: int  # tokens, visual prefixes included
    demonstrations: tuple[int, ...]  # indices in the store, most similar last
    dropped: int  # demonstrations left out because the prompt would not fit the model
    shown_length: int  # tokens before the query


class PromptTooLong(ValueError):
    """A query that does not fit the language model, even without demonstrations."""


class PromptBuilder:
    """Builds prompts (paper section 3.2) and tokenises each demonstration once.

    The store may be replaced. A visual prefix has `prefix_length` soft tokens; with `bos` each prompt starts with BOS.
    """

    def __init__(self, tokenizer: NameTokenizer, store: DemonstrationStore, *, prefix_length: int, bos: bool) -> None:
        self.tokenizer = tokenizer
        self.store = store
        self.prefix_length = prefix_length
        self.start: tuple[int, ...] = (tokenizer.tokenizer.bos_token_id,) if bos else ()
        self._ids: BoundedCache[Demonstration, tuple[int, ...]] = BoundedCache(_CACHED_DEMONSTRATIONS)

    def build(self, mention: Mention, ranked: Sequence[int], *, max_tokens: int, use_image: bool = True) -> Prompt:
        """The prompt of a mention in its text, of at most `max_tokens`; without `use_image` without visual prefixes.

        `ranked` has the indices of the demonstrations, most similar first; if they do not all fit, the last are
        dropped. Raises PromptTooLong if the query alone does not fit.
        """
        has_image = use_image and mention.features is not None
        query_ids = tuple(self.tokenizer.encode([query_text(mention.text, mention.mention)])[0])
        query = Segment(QUERY_IMAGE if has_image else NO_IMAGE, query_ids)
        length = len(self.start) + self._length(query)
        if length > max_tokens:
            raise PromptTooLong(
                f"the text is too long for the language model: its prompt has {length} tokens, {max_tokens} fit"
            )
        segments = [query]
        for index in ranked:
            segment = self._demonstration(self.store[index], use_image)
            if length + self._length(segment) > max_tokens:
                break
            segments.insert(0, segment)
            length += self._length(segment)
        indices = tuple(reversed(ranked[: len(segments) - 1]))
        if self.start:
            segments.insert(0, Segment(NO_IMAGE, self.start))
        features = mention.features if has_image else None
        dropped, shown_length = len(ranked) - len(indices), length - self._length(query)
        return Prompt(tuple(segments), features, length, indices, dropped, shown_length)

    def inputs(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """A number for each of the prompts' embeddings; equal numbers have equal embeddings."""
        # Token ids, and below them the soft tokens of the store's images, then those of the queries'.
        queries: dict[int, int] = {}
        numbers: list[list[int]] = [[] for _ in prompts]
        for prompt, of_prompt in zip(prompts, numbers, strict=True):
            for segment in prompt.segments:
                if segment.has_image:
                    row = segment.image
                    if row == QUERY_IMAGE:  # mentions of one doc share their array
                        row = queries.setdefault(id(prompt.features), len(self.store.features) + len(queries))
                    of_prompt += range(-1 - row * self.prefix_length, -1 - (row + 1) * self.prefix_length, -1)
                of_prompt += segment.ids
        return numbers

    def _length(self, segment: Segment) -> int:
        return len(segment.ids) + (self.prefix_length if segment.image != NO_IMAGE else 0)

    def _demonstration(self, demonstration: Demonstration, use_image: bool) -> Segment:
        ids = self._ids.get(demonstration)
        if ids is None:
            text = demonstration_text(demonstration.text, demonstration.mention, demonstration.name)
            ids = self._ids.put(demonstration, tuple(self.tokenizer.encode([text])[0]))
        return Segment(demonstration.image if use_image else NO_IMAGE, ids)


def collect_features(
    prompts: Sequence[Prompt], store: DemonstrationStore
) -> tuple[NDArray[np.float32], list[list[int]]]:
    """The features that the prompts need, each once, (images, d_v), and for each segment its row there or NO_IMAGE."""
    features: list[NDArray[np.float32]] = []
    rows: dict[tuple[bool, int], int] = {}
    indices = [[NO_IMAGE] * len(prompt.segments) for prompt in prompts]
    for prompt, indices_of_prompt in zip(prompts, indices, strict=True):
        for position, segment in enumerate(prompt.segments):
            if segment.image == NO_IMAGE:
                continue
            # Mentions of one doc share their array, so its identity tells images apart.
            is_query = segment.image == QUERY_IMAGE
            image = prompt.features if is_query else store.features[segment.image]
            row = rows.setdefault((is_query, id(image) if is_query else segment.image), len(features))
            if row == len(features):
                assert image is not None
                features.append(image)
            indices_of_prompt[position] = row
    return (np.stack(features) if features else np.zeros((0, 0), dtype=np.float32)), indices


class PromptEmbedder:
    """Embeds prompts and caches the embeddings of demonstrations.

    Another process gets it with an empty cache: a tensor that is sent takes shared memory and an open file.
    """

    def __init__(self, model: CausalLM) -> None:
        self.model = model
        self._texts: BoundedCache[tuple[int, ...], Tensor] = BoundedCache(_CACHE_BYTES, lambda text: text.nbytes)

    def __reduce__(self) -> tuple[object, tuple[CausalLM]]:
        return PromptEmbedder, (self.model,)

    def embed(self, segments: Sequence[tuple[int, ...]], images: Sequence[int], prefixes: Tensor) -> Tensor:
        """One prompt, (tokens, width), of the token ids of each segment, the query's last.

        `images` has the row of each segment's visual prefix, or NO_IMAGE, in `prefixes`, (images, prefix length,
        width), which may require a gradient.
        """
        embeddings: list[Tensor] = []
        for index, (ids, image) in enumerate(zip(segments, images, strict=True)):
            if image != NO_IMAGE:
                embeddings.append(prefixes[image].to(self.model.dtype))
            text = self._texts.get(ids)  # (tokens, width)
            if text is None:
                text = self.model.embed(ids)
                if index < len(segments) - 1:
                    self._texts.put(ids, text)
            embeddings.append(text)
        return torch.cat(embeddings)
