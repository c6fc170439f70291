"""The reference: linking as GEMEL's official code does it, one mention at a time with `transformers.generate`.

For each mention it tokenises and embeds all demonstrations again; `generate` then reads the prompt once per beam and
asks a trie of nested dicts once per beam and step. Demonstrations and image features are given, as they are there.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.model import LinkingModel
from spacy_gemel.linking.prompt import demonstration_text, query_text
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.models.tokenizer import NameTokenizer

Answer = list[tuple[str, float]]


class Official:
    """The official way over the parts of a linker, so with the same weights and the same prompts.

    trie: of the knowledge base's names (`names_in`, `nested_dicts`).
    """

    def __init__(self, linking_model: LinkingModel, settings: LinkerSettings, trie: dict[int, Any]) -> None:
        self.linking_model = linking_model
        self.settings = settings
        self.end_id = linking_model.end_id(settings)
        self.trie = trie

    def link(self, mention: Mention, demonstrations: list[int], early_stopping: bool | str = False) -> Answer:
        """The names that `generate` finds with their scores, best first.

        demonstrations: their places in the store, most similar first. early_stopping: False is the official way, a
        heuristic; "never" finds the same names as no early stop.
        """
        prompt = self.embed(mention, demonstrations)
        return generate_names(
            self.linking_model,
            self.settings,
            prompt,
            early_stopping=early_stopping,
            prefix_allowed_tokens_fn=self._allowed,
        )

    def embed(self, mention: Mention, demonstrations: list[int]) -> Tensor:
        """The prompt, (tokens, width)."""
        pieces: list[Tensor] = []
        for index in reversed(demonstrations):
            demonstration = self.linking_model.store[index]
            if demonstration.image >= 0:
                pieces.append(self._prefix(self.linking_model.store.features[demonstration.image]))
            pieces.append(self._text(demonstration_text(demonstration.text, demonstration.mention, demonstration.name)))
        if mention.features is not None:
            pieces.append(self._prefix(mention.features))
        pieces.append(self._text(query_text(mention.text, mention.mention)))
        return torch.cat(pieces)

    def _text(self, text: str) -> Tensor:
        model = self.linking_model.language_model
        return model.embed(model.tokenizer.encode([text])[0])

    def _prefix(self, features: Any) -> Tensor:
        linking_model = self.linking_model
        row = linking_model.mapper.ops.asarray2f(features[None])
        prefix = torch.tensor(linking_model.mapper.predict(row)).view(linking_model.prompt_builder.prefix_length, -1)
        return prefix.to(linking_model.language_model.device, linking_model.language_model.dtype)

    def _allowed(self, _batch: int, ids: Tensor) -> list[int]:
        node = self.trie
        for token in ids.tolist():
            node = node.get(token, {})
        return list(node) or [self.end_id]


def names_in(kb: KnowledgeBase, tokenizer: NameTokenizer) -> dict[str, list[int]]:
    """The token ids of each name in a knowledge base's trie."""
    names = sorted({kb.entity(row).name for row in range(len(kb))})
    encoded = zip(names, tokenizer.encode(names), strict=True)
    # The others are too long, or of tokens that cannot be said.
    return {name: ids for name, ids in encoded if len(kb.trie.rows_of(ids))}


def nested_dicts(names: Iterable[Sequence[int]], end_id: int) -> dict[int, Any]:
    """The official trie of names, the token ids of each without its end."""
    root: dict[int, Any] = {}
    for ids in names:
        node = root
        for token in (*ids, end_id):
            node = node.setdefault(token, {})
    return root


def generate_names(
    linking_model: LinkingModel,
    settings: LinkerSettings,
    prompt: Tensor,
    early_stopping: bool | str = False,
    **held: Any,
) -> Answer:
    """The names that `generate` finds after a prompt, (tokens, width), with their scores, best first.

    held: the argument of `generate` that holds it to names, a `prefix_allowed_tokens_fn` or a `logits_processor`.
    """
    end_id, beams = linking_model.end_id(settings), settings.beam_size
    output = linking_model.language_model.model.generate(
        inputs_embeds=prompt[None],
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=prompt.device),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=settings.max_name_tokens + 1,
        do_sample=False,
        early_stopping=early_stopping,
        eos_token_id=end_id,
        pad_token_id=end_id,
        output_scores=True,
        return_dict_in_generate=True,
        **held,
    )
    scores: dict[str, float] = {}
    for row, score in zip(output.sequences.tolist(), output.sequences_scores.tolist(), strict=True):
        if end_id in row and score > -1e4:
            name = linking_model.language_model.tokenizer.decode(row[: row.index(end_id)])
            scores.setdefault(name, score)
    return list(scores.items())
