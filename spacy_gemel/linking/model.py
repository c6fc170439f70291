"""The way of a mention through the stages: demonstrations -> prompt -> language model -> names -> entities."""

import warnings
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from thinc.api import Model, torch2xp, xp2torch
from thinc.types import Floats2d
from torch import Tensor

from spacy_gemel.decoding.beam_search import search_after
from spacy_gemel.decoding.constraints import Constraint, TrieConstraint, Unconstrained, UnionConstraint
from spacy_gemel.decoding.finished import Hypothesis
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.linking.candidates import Candidate, FoundName, found_name, to_candidates
from spacy_gemel.linking.demonstrations import DemonstrationStore
from spacy_gemel.linking.prior_stage import PriorStage
from spacy_gemel.linking.prompt import Prompt, gather_features
from spacy_gemel.linking.prompt_embedder import PromptEmbedder
from spacy_gemel.linking.prompting import Prompting
from spacy_gemel.linking.retrievers import Retriever
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.models.memory import TokenBudget
from spacy_gemel.pipeline.mentions import Mention


class LinkingModel(Prompting):
    """The loaded parts of a linker, and the ways through them."""

    def __init__(
        self,
        mapper: Model[Floats2d, Floats2d],
        kb: KnowledgeBase,
        language_model: CausalLM,
        store: DemonstrationStore,
        retriever: Retriever,
        settings: LinkerSettings,
        nil: str,
    ) -> None:
        self._prior: PriorStage | None = None
        super().__init__(kb, language_model, store, retriever, settings, nil, mapper.attrs["prefix_length"])
        self.mapper = mapper
        self._end_ids: dict[str, int] = {}
        self.end_id  # noqa: B018
        self.embedder = PromptEmbedder(language_model)
        # One each: a gradient takes several times the memory of a search.
        self._budget, self._training_budget = TokenBudget(), TokenBudget()

    def use_kb(self, kb: KnowledgeBase) -> None:
        """Link to another knowledge base of the same tokenizer."""
        self.kb = kb
        self._prior = None

    def use_store(self, store: DemonstrationStore) -> None:
        """See Prompting: what mentions usually mean may be something else then."""
        super().use_store(store)
        self._prior = None

    @property
    def end_id(self) -> int:
        """The token that ends a name. Raises ValueError where the tokenizer has no such one."""
        name_end = self.settings.name_end
        if name_end not in self._end_ids:
            self._end_ids[name_end] = self.language_model.tokenizer.end_id(name_end)
        return self._end_ids[name_end]

    @property
    def prior(self) -> PriorStage:
        """What mentions usually mean; made when it is first asked for."""
        if self._prior is None:
            self._prior = PriorStage(self.store, self.kb, self.language_model.tokenizer)
        return self._prior

    def link(self, mentions: Sequence[Mention]) -> list[list[Candidate]]:
        """The candidates of each mention, best first.

        Mentions that share words, text, image and vector are searched once: their prompts are the same.
        """
        groups: dict[tuple[str, str, int, bytes], list[int]] = {}
        for index, mention in enumerate(mentions):
            vector = b"" if mention.vector is None else mention.vector.tobytes()
            groups.setdefault((mention.mention, mention.text, id(mention.features), vector), []).append(index)
        found = self._link([mentions[indices[0]] for indices in groups.values()])
        candidates: list[list[Candidate]] = [[] for _ in mentions]
        for indices, shared in zip(groups.values(), found, strict=True):
            for index in indices:
                candidates[index] = list(shared)
        return candidates

    def _link(self, mentions: Sequence[Mention]) -> list[list[Candidate]]:
        weight = self.settings.prior_weight
        found = self.find(mentions, with_known=weight > 0)
        if weight > 0:
            limit = min(self.settings.n_candidates, self.settings.beam_size)
            found = self.prior.weigh([mention.mention for mention in mentions], found, weight, limit)
        return [to_candidates(names, self.settings.temperature) for names in found]

    def find(self, mentions: Sequence[Mention], *, with_known: bool) -> list[list[FoundName]]:
        """The names that the search finds for each mention, best first.

        with_known: and after them, with the score that the search would have given them, those that the prior knows.
        """
        prompts = self.prompts(mentions)
        names = self._names()
        beams = self.settings.beam_size
        found: list[list[FoundName]] = [[] for _ in mentions]

        def search(batch: Sequence[int]) -> None:
            embedded, _ = self.embed([prompt for index in batch if (prompt := prompts[index])], train=False)
            state = self.language_model.prefill(embedded, beams=beams, tokens=names.max_tokens)
            results = search_after(state, names, beam_size=beams, n_names=self.settings.n_candidates)
            searched = [self._named(hypotheses, names) for hypotheses in results]
            if with_known:
                words = [mentions[index].mention for index in batch]
                searched = self.prior.complete(
                    state, words, searched, self.end_id, beams=beams, max_tokens=names.max_tokens
                )
            for index, own in zip(batch, searched, strict=True):
                found[index] = own

        lengths = _lengths(prompts)
        fast = {
            index
            for index, length in lengths.items()
            if self.language_model.can_share_prefix(length, names.max_tokens, beams)
        }
        # What is held of a prompt: its own tokens, and room for all that its beams may say.
        held = {index: lengths[index] + beams * names.max_tokens for index in fast}
        failed = self._budget.run(held, self.settings.batch_tokens, search)
        # The slow way holds one row at a time, whatever the batch: one prompt each, and no reason for smaller batches.
        failed += TokenBudget().run({index: lengths[index] for index in lengths.keys() - fast}, 0, search)
        self._warn_too_large(mentions, lengths, failed, f"linked to {self.nil!r}")
        if self.settings.constrained:  # a free search may say nothing that ends
            self._warn_nothing_found(mentions, [index for index in lengths if not found[index]], failed)
        return found

    def learn(self, mentions: Sequence[Mention], rows: Sequence[int]) -> NDArray[np.float32]:
        """The losses, (mentions,), in the mentions' order, after adding the gradient of their mean to the mapper's.

        rows: the gold entities' rows in the knowledge base. A text that is too long is left out; one that memory runs
        out on has neither loss nor gradient, but counts in the mean.
        """
        prompts = self.prompts(mentions, training=True)
        lengths = _lengths(prompts)
        losses: dict[int, float] = {}

        def learn(batch: Sequence[int]) -> None:
            embedded, backprop = self.embed([prompt for index in batch if (prompt := prompts[index])], train=True)
            golds = [self.kb.entity(rows[index]).name for index in batch]
            names = self.language_model.tokenizer.encode(golds)
            values = self.language_model.name_loss(embedded, [[*name, self.end_id] for name in names])
            if values.requires_grad:  # not where no mention and no demonstration has an image
                (values.sum() / len(lengths)).backward()
                backprop()  # last: where memory ran out before, nothing has been learned yet
            losses.update(zip(batch, values.detach().tolist(), strict=True))

        failed = self._training_budget.run(lengths, self.settings.batch_tokens, learn)
        self._warn_too_large(mentions, lengths, failed, "skipped")
        return np.array([losses[index] for index in sorted(losses)], dtype=np.float32)

    def embed(self, prompts: Sequence[Prompt], *, train: bool) -> tuple[list[Tensor], Callable[[], None]]:
        """The prompts embedded, (tokens, width) each, and what brings their gradient back to the mapper."""
        features, indices = gather_features(prompts, self.store)
        model = self.language_model
        if not len(features):
            prefixes = model.embed([]).view(0, self.prefix_length, model.width)
        else:
            inputs = self.mapper.ops.asarray2f(cast(Floats2d, features))
            outputs, backprop_mapper = self.mapper(inputs, is_train=train)  # (images, k x width)
            prefixes = xp2torch(outputs, device=model.device).view(len(features), self.prefix_length, model.width)
            prefixes = prefixes.detach().requires_grad_(train)
        embedded = [
            self.embedder.embed([segment.ids for segment in prompt.segments], images, prefixes)
            for prompt, images in zip(prompts, indices, strict=True)
        ]

        def backprop() -> None:
            if len(features) and prefixes.grad is not None:
                gradient = torch2xp(prefixes.grad.flatten(1).contiguous(), ops=self.mapper.ops)
                backprop_mapper(gradient)

        return embedded, backprop

    def _warn_too_large(
        self, mentions: Sequence[Mention], lengths: dict[int, int], failed: Sequence[tuple[int, str]], fate: str
    ) -> None:
        """One warning for each mention whose prompt found no room, even alone."""
        for index, problem in failed:
            mention = mentions[index]
            warnings.warn(
                f"gemel_linker: {mention.mention!r} in {mention.text[:50]!r}... is {fate}: memory ran out on its "
                f"prompt of {lengths[index]} tokens alone ({problem}). "
                'Set context = "window" or "sentence", a smaller '
                "n_demonstrations or beam_size, or a smaller dtype of the language model.",
                stacklevel=4,
            )

    def _warn_nothing_found(
        self, mentions: Sequence[Mention], empty: Sequence[int], failed: Sequence[tuple[int, str]]
    ) -> None:
        """One warning for all mentions that the search ended without a name for: a trie always has one."""
        empty = sorted(set(empty) - {index for index, _ in failed})
        if empty:
            first = mentions[empty[0]]
            warnings.warn(
                f"gemel_linker: no name was found for {len(empty)} mentions, which are linked to {self.nil!r} (the "
                f"first: {first.mention!r} in {first.text[:50]!r}): either no name ends within max_name_tokens = "
                f"{self.settings.max_name_tokens}, or the language model's scores are no numbers, as float16 may make "
                "them: use bfloat16 or float32.",
                stacklevel=4,
            )

    def _named(self, hypotheses: Sequence[Hypothesis], names: Constraint) -> list[FoundName]:
        # A free search can find a name in several tokenisations: the best of them counts.
        found: dict[str, FoundName] = {}
        for hypothesis in hypotheses:
            name = self._found(hypothesis, names)
            found.setdefault(name.name, name)
        return list(found.values())

    def _names(self) -> Constraint:
        limit = self.settings.max_name_tokens
        if self.settings.constrained:
            added = self.kb.added.trie
            if added is not None:
                return UnionConstraint(self.kb.trie, added, self.end_id, limit)
            return TrieConstraint(self.kb.trie, self.end_id, limit)
        # What is longer than every name is no entity's name.
        limit = min(limit, self.kb.max_depth)
        return Unconstrained(self.language_model.vocab_size, self.end_id, limit)

    def _found(self, hypothesis: Hypothesis, names: Constraint) -> FoundName:
        """The entities of a name; for a free search's name that no entity has, the NIL entity."""
        rows = names.rows_at(hypothesis.edge)
        if not rows:
            name = self.language_model.tokenizer.decode(hypothesis.tokens)
            rows = self.kb.rows_of(self.language_model.tokenizer.encode([name])[0]) if name else []
            if not rows:
                return FoundName(name, hypothesis.score, [(self.nil, 0)])
        return found_name(self.kb, rows, hypothesis.score)


def _lengths(prompts: Sequence[Prompt | None]) -> dict[int, int]:
    """Tokens of each prompt that there is, by its place."""
    return {index: prompt.length for index, prompt in enumerate(prompts) if prompt is not None}
