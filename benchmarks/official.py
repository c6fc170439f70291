"""The reference: linking as GEMEL's official code does it, one mention at a time with `transformers.generate`.

For each mention it tokenises and embeds all demonstrations again; `generate` then reads the prompt once per beam and
asks a trie of nested dicts once per beam and step. Demonstrations and image features are given, as they are there.
"""

from typing import Any

import torch
from torch import Tensor

from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.model import LinkingModel
from spacy_gemel.linking.prompt import demonstration_text, query_text
from spacy_gemel.linking.settings import LinkerSettings

Answer = list[tuple[str, float]]


class Official:
    """The official way over the parts of a linker, so with the same weights and the same prompts."""

    def __init__(self, linking_model: LinkingModel, settings: LinkerSettings) -> None:
        self.linking_model = linking_model
        self.settings = settings
        self.end_id = linking_model.end_id(settings)
        self.trie: dict[int, Any] = {}
        names = sorted({linking_model.kb.entity(row).name for row in range(len(linking_model.kb))})
        for ids in linking_model.language_model.tokenizer.encode(names):
            if not len(linking_model.kb.trie.rows_of(ids)):
                continue  # too long, or of tokens that cannot be said: not in the knowledge base's trie either
            node = self.trie
            for token in (*ids, self.end_id):
                node = node.setdefault(token, {})

    def link(self, mention: Mention, demonstrations: list[int], early_stopping: bool | str = False) -> Answer:
        """The names that `generate` finds with their scores, best first.

        demonstrations: their places in the store, most similar first. early_stopping: False is the official way, a
        heuristic; "never" finds the same names as no early stop.
        """
        linking_model = self.linking_model
        prompt = self.embed(mention, demonstrations)
        beams = self.settings.beam_size
        output = linking_model.language_model.model.generate(
            inputs_embeds=prompt[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=prompt.device),
            num_beams=beams,
            num_return_sequences=beams,
            max_new_tokens=self.settings.max_name_tokens + 1,
            do_sample=False,
            early_stopping=early_stopping,
            prefix_allowed_tokens_fn=self._allowed,
            eos_token_id=self.end_id,
            pad_token_id=self.end_id,
            output_scores=True,
            return_dict_in_generate=True,
        )
        names_by_score: dict[str, float] = {}
        for row, score in zip(output.sequences.tolist(), output.sequences_scores.tolist(), strict=True):
            if self.end_id in row and score > -1e4:
                name = linking_model.language_model.tokenizer.decode(row[: row.index(self.end_id)])
                names_by_score.setdefault(name, score)
        return list(names_by_score.items())

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
