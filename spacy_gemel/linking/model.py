"""The method: mentions -> demonstrations -> prompts -> constrained decoding -> candidates, and the mapper's loss."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from thinc.api import Model, torch2xp, xp2torch
from thinc.types import Floats2d
from torch import Tensor

from spacy_gemel.decoding.beam_search import Hypothesis, beam_search, room_for_beams
from spacy_gemel.decoding.beginnings import BeginningCache, Sharing
from spacy_gemel.decoding.constraints import Constraint, TrieConstraint, Unconstrained
from spacy_gemel.decoding.decoder import DecoderState
from spacy_gemel.decoding.exact_search import Certificate, exact_search
from spacy_gemel.decoding.score_names import score_names
from spacy_gemel.decoding.self_check import make_decoder
from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.linking.candidates import (
    Answer,
    Candidate,
    Options,
    ScoredName,
    score_name,
    share_by_count,
    to_candidates,
)
from spacy_gemel.linking.decision import Decision
from spacy_gemel.linking.demonstration_sets import DemonstrationSets
from spacy_gemel.linking.demonstrations import DemonstrationStore, order_by_picture
from spacy_gemel.linking.descriptions import DescriptionIndex, ImageDescriptions
from spacy_gemel.linking.features import Feature, FloatArray, compute, pictures_of
from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.prior import MAX_KNOWN, MentionPrior, rerank
from spacy_gemel.linking.prompt import Prompt, PromptBuilder, PromptEmbedder, PromptTooLong, collect_features
from spacy_gemel.linking.retrievers import Query, Retriever, VectorRetriever, warn_changed_vectors
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.models.mapper import standardise
from spacy_gemel.models.memory import TokenBudget
from spacy_gemel.models.vision_encoder import JointSpace
from spacy_gemel.utils.cache import BoundedCache
from spacy_gemel.utils.messages import PromptTruncatedWarning, SkippedMentionWarning, excerpt, warn, warn_once

NEAREST = 10
"""Entities whose descriptions are nearest to the mention and its text that are scored for each."""
_CACHED_MENTIONS = 65_536
_TOO_LONG = "its text is too long for the language model"
_NOTHING_FOUND = "no name was found for it, or memory ran out on its prompt"
NO_ROW = -1  # of the answer of a free search that is no entity's name


class SearchResult(NamedTuple):
    """What was found for a mention: its names, and the demonstrations in its prompt as indices in the store.

    reason: why there are no names.
    certificate: of an exact search.
    """

    names: list[ScoredName]
    demonstrations: Sequence[int]
    reason: str | None = None
    certificate: Certificate | None = None


class LinkingModel:
    """The loaded models and data of a linker. Each call takes the settings that hold for it."""

    def __init__(
        self,
        mapper: Model[Floats2d, Floats2d],  # image features -> soft tokens, (images, d_v) -> (images, prefix * width)
        kb: KnowledgeBase,  # of the language model's tokenizer
        language_model: CausalLM,
        store: DemonstrationStore,
        retriever: Retriever,
        features: Sequence[Feature] = (),
        decision: Decision | None = None,
        joint: JointSpace | None = None,  # of the vision encoder
    ) -> None:
        self.features, self.decision = features, decision
        self.image_descriptions = None if joint is None else ImageDescriptions(joint)
        self.mapper = mapper
        self.language_model = language_model
        self.decoder = make_decoder(language_model)
        self.retriever = retriever
        self.prompt_builder = PromptBuilder(
            language_model.tokenizer, store, prefix_length=mapper.attrs["prefix_length"], bos=language_model.bos
        )
        self.prompt_embedder = PromptEmbedder(language_model)
        self._beginnings = BeginningCache()
        self._end_ids: dict[str, int] = {}
        self._prior: MentionPrior | None = None
        self.descriptions: DescriptionIndex | None = None
        # Two budgets: a gradient takes several times the memory of a search.
        self._budget, self._training_budget = TokenBudget(), TokenBudget()
        self.use_kb(kb)
        self.use_store(store)

    def use_kb(self, kb: KnowledgeBase) -> None:
        """Link to another knowledge base of the same tokenizer."""
        encoder = getattr(self.retriever, "loaded", None)  # anybody may register a retriever
        # first: it may raise
        self.descriptions = None if encoder is None else DescriptionIndex(encoder, kb, self.descriptions)
        self.kb = kb
        self._prior = None
        self._bearers_of: BoundedCache[str, list[str]] = BoundedCache(_CACHED_MENTIONS)

    def use_store(self, store: DemonstrationStore) -> None:
        """Show these demonstrations from now on; what is cached of those that stay is kept."""
        self.retriever.index([demonstration.mention for demonstration in store], store.vectors)
        self.prompt_builder.store = store
        self._prior = None
        self._sets: dict[tuple[int, int], DemonstrationSets] = {}  # the last, by number and size
        self._demonstrations_of: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        self._same_string: defaultdict[str, list[int]] = defaultdict(list)
        for index, demonstration in enumerate(store):
            self._demonstrations_of[demonstration.mention, demonstration.text].add(index)
            self._same_string[demonstration.mention].append(index)
        self.pictures_of = pictures_of(store)
        self.training_counts = Counter(demonstration.kb_id for demonstration in store)

    @property
    def store(self) -> DemonstrationStore:
        """The demonstrations that may be shown."""
        return self.prompt_builder.store

    @property
    def prior(self) -> MentionPrior:
        """P(entity | mention); made when it is first needed."""
        if self._prior is None:
            training = ((demonstration.mention, demonstration.kb_id) for demonstration in self.store)
            self._prior = MentionPrior(training, self.kb)
        return self._prior

    def end_id(self, settings: LinkerSettings) -> int:
        """The token that ends a name. Raises ValueError if the tokenizer has none."""
        if settings.name_end not in self._end_ids:
            self._end_ids[settings.name_end] = self.language_model.tokenizer.end_id(settings.name_end)
        return self._end_ids[settings.name_end]

    # Prompts

    def prompts(
        self, mentions: Sequence[Mention], settings: LinkerSettings, *, training: bool = False
    ) -> list[Prompt | None]:
        """A prompt for each mention; None, with a warning, if its text is too long for the language model."""
        use_image = settings.use_image
        queries = [Query(m.mention, m.text, m.vector, m.features if use_image else None) for m in mentions]
        if sets := self._demonstration_sets(settings):
            sets.prepare(queries)
        else:
            self.retriever.prepare(queries, settings.n_demonstrations)
        if training:
            warn_changed_vectors(self, mentions, self.store.vectors, self._demonstrations_of)
        longest_name = max(settings.max_name_tokens, self.kb.meta.max_name_tokens)
        max_tokens = self.language_model.max_length - longest_name - 1  # leaves room for a name and its end
        prompts: list[Prompt | None] = []
        too_long: dict[str, list[tuple[Mention, PromptTooLong]]] = {}
        for mention, query in zip(mentions, queries, strict=True):
            ranked = self.rank_demonstrations(query, settings, training=training)
            try:
                prompt = self.prompt_builder.build(mention, ranked, max_tokens=max_tokens, use_image=use_image)
            except PromptTooLong as error:
                too_long.setdefault(mention.text, []).append((mention, error))
                prompts.append(None)
                continue
            if prompt.dropped:
                message = (
                    f"gemel_linker: prompts are longer than the {max_tokens} tokens left for a prompt: "
                    f"their least similar demonstrations are left out ({prompt.dropped} of {len(ranked)} for "
                    f"{mention.mention!r}, the first). This warning is given once."
                )
                warn_once(self, message, PromptTruncatedWarning)
            prompts.append(prompt)
        fate = "skipped" if training else f"linked to {NIL!r}"
        for text, left_out in too_long.items():  # a long doc may have hundreds
            (first, problem), more = left_out[0], len(left_out) - 1
            others = f" and {more} more mentions" if more else ""
            fate_of_all = f"{'are' if more else 'is'} {fate}"
            warn(
                f"gemel_linker: {first.mention!r}{others} in {excerpt(text)} {fate_of_all}: {problem}. "
                'Set context = "window" or "sentence", or split the document.',
                SkippedMentionWarning,
            )
        return prompts

    def rank_demonstrations(self, query: Query, settings: LinkerSettings, *, training: bool = False) -> list[int]:
        """Indices of the demonstrations to show for a mention, most similar first.

        In training a mention is never shown itself, that is a demonstration of the same mention in the same text.
        Demonstrations of the same mention string are as near as each other to a retriever that compares strings; the
        setting `ties` orders them.
        """
        count = settings.n_demonstrations
        same: set[int] = set()
        if training:
            if settings.n_training_demonstrations is not None:
                count = min(count, settings.n_training_demonstrations)
            same = self._demonstrations_of.get((query.mention, query.text), same)
        if count < 1:
            return []
        sets = self._demonstration_sets(settings)
        ranked = self.retriever.rank(query, count + len(same)) if sets is None else sets.rank(query)
        # anybody may register a retriever
        has_ties = sets is None and getattr(self.retriever, "compares_strings", False)
        if has_ties and settings.ties == "picture" and query.features is not None:
            strings = dict.fromkeys(self.store[index].mention for index in ranked)
            groups = (order_by_picture(self.store, self._same_string[each], query.features) for each in strings)
            ranked = [index for group in groups for index in group]
        return [index for index in ranked if index not in same][:count]

    def _demonstration_sets(self, settings: LinkerSettings) -> DemonstrationSets | None:
        """The sets that the settings ask for, made when they are first needed."""
        count, size = settings.demonstration_sets, settings.n_demonstrations
        if not count or not isinstance(self.retriever, VectorRetriever):
            return None
        if (count, size) not in self._sets:
            self._sets = {(count, size): DemonstrationSets(self.store, self.retriever, count, size)}
        return self._sets[count, size]

    def embed(self, prompts: Sequence[Prompt], *, train: bool) -> tuple[list[Tensor], Callable[[], None]]:
        """The embedded prompts, (tokens, width) each, and a function that brings their gradient back to the mapper.

        `train` keeps what the gradient needs.
        """
        model, prefix_length = self.language_model, self.prompt_builder.prefix_length
        features, rows = collect_features(prompts, self.store)  # (images, d_v)
        if not len(features):
            prefixes = model.embed([]).view(0, prefix_length, model.width)
        else:
            inputs = self.mapper.ops.asarray2f(cast(Floats2d, standardise(self.mapper, features)))
            outputs, backprop_mapper = self.mapper(inputs, is_train=train)  # (images, prefix_length * width)
            prefixes = xp2torch(outputs, device=model.device).view(len(features), prefix_length, model.width)
            prefixes = prefixes.detach().requires_grad_(train)
        embedded = [
            self.prompt_embedder.embed([segment.ids for segment in prompt.segments], images, prefixes)
            for prompt, images in zip(prompts, rows, strict=True)
        ]

        def backprop() -> None:
            if len(features) and prefixes.grad is not None:
                backprop_mapper(torch2xp(prefixes.grad.flatten(1).contiguous(), ops=self.mapper.ops))

        return embedded, backprop

    # Linking

    def link(self, mentions: Sequence[Mention], settings: LinkerSettings) -> list[Answer]:
        """The answer to each mention: by the decision if one was fitted, else by the search's score and the prior."""
        if self.decision is not None:
            weights = self.decision.weights
            used = [each for each in self.features if any(weights.get(name) for name in each.columns)]
            batch = self.options(mentions, settings)
            return self._decide(self.decision, batch, compute(used, batch, self, settings), settings)
        all_results = self.find(mentions, settings, with_prior=settings.prior_weight > 0)
        return self._answers_by_score(mentions, all_results, settings)

    def consider(
        self, mentions: Sequence[Mention], settings: LinkerSettings
    ) -> tuple[list[Options], list[FloatArray], list[str], list[Answer]]:
        """What each mention may mean, all features, (candidates, columns) of each mention, and the answers."""
        results = self.find(mentions, settings, with_prior=True, with_descriptions=True)
        batch = self._options_of(mentions, results)
        values, columns = compute(self.features, batch, self, settings)
        if self.decision is None:
            return batch, values, columns, self._answers_by_score(mentions, results, settings)
        return batch, values, columns, self._decide(self.decision, batch, (values, columns), settings)

    def _answers_by_score(
        self, mentions: Sequence[Mention], results: Sequence[SearchResult], settings: LinkerSettings
    ) -> list[Answer]:
        """The answers by the search's score and the prior's weight, from all names that were scored for each mention.

        Only the names count that the search found or that the prior knows; without that weight those that the search
        found or, unless it was free, that the mention is a name or alias of.
        """
        weight, answers = settings.prior_weight, []
        for mention, result in zip(mentions, results, strict=True):
            names = result.names
            bearers = {*self._bearers(mention.mention)} if settings.constrained or weight > 0 else set()
            if weight > 0:
                limit = min(settings.n_candidates, settings.beam_size)
                known = {*self.prior.known_names(mention.mention)}
                names = [name for name in names if name.searched or name.name in known]
                names = rerank(names, self.prior.of(mention.mention), weight, limit, bearers)
            else:
                names = [name for name in names if name.searched or name.name in bearers]
                names.sort(key=lambda name: -name.score)  # stable: ties keep the search's order
            candidates = to_candidates(names, lambda name, text=mention.text: self.share(name, text))  # type: ignore[misc]
            answers.append(Answer(candidates, reason=result.reason, certificate=result.certificate))
        return answers

    def share(self, name: ScoredName, text: str) -> Sequence[float]:
        """How much of a name's probability each of its entities has: by count, and by its description's similarity."""
        if len(name.entities) == 1:  # nearly always
            return [1.0]
        if self.descriptions is None or not any(entity.description for entity in name.entities):
            return share_by_count(name)
        return self.descriptions.share(text, name.entities)

    def _decide(
        self,
        decision: Decision,
        batch: Sequence[Options],
        computed: tuple[list[FloatArray], list[str]],
        settings: LinkerSettings,
    ) -> list[Answer]:
        values, columns = computed
        limit, answers = min(settings.n_candidates, settings.beam_size), []
        for options, rows in zip(batch, values, strict=True):
            utilities = decision.utilities(rows, columns)
            probabilities, nil = decision.probabilities(utilities)
            numbers = zip(utilities.tolist(), probabilities.tolist(), strict=True)
            candidates = [
                Candidate(entity.kb_id, name.name, utility, probability)
                for entity, name, (utility, probability) in zip(options.entities, options.names, numbers, strict=True)
            ]
            candidates.sort(key=lambda candidate: -candidate.probability)  # stable: ties keep the search's order
            best = [*dict.fromkeys(candidate.name for candidate in candidates)][:limit]
            listed_names = {*best, *self._bearers(options.mention.mention)}
            listed = [each for each in candidates if each.name in listed_names]
            answers.append(Answer(listed, nil, options.reason, options.certificate))
        return answers

    def options(self, mentions: Sequence[Mention], settings: LinkerSettings) -> list[Options]:
        """All that each mention may mean: what the search finds, what is known of it, and what its text describes."""
        return self._options_of(mentions, self.find(mentions, settings, with_prior=True, with_descriptions=True))

    def _options_of(self, mentions: Sequence[Mention], results: Sequence[SearchResult]) -> list[Options]:
        """The entities of the names that were scored for each mention; see `options`."""
        batch = []
        for mention, result in zip(mentions, results, strict=True):
            triples = [triple for name in result.names for triple in zip(name.entities, name.rows, repeat(name))]
            triples = [triple for triple in triples if triple[1] != NO_ROW]
            entities, rows, names = zip(*triples, strict=True) if triples else ((), (), ())
            ids = frozenset(self.store[index].kb_id for index in result.demonstrations)
            batch.append(Options(mention, entities, rows, names, ids, result.reason, result.certificate))
        return batch

    def find(
        self,
        mentions: Sequence[Mention],
        settings: LinkerSettings,
        *,
        with_prior: bool = False,
        with_descriptions: bool = False,
    ) -> list[SearchResult]:
        """The names of each mention, best first, then those that the search did not find, scored alike.

        These are the names of the entities that bear exactly the mention's name or alias; with `with_prior` of those
        that the prior knows; with `with_descriptions` of those whose descriptions are nearest to the text. Mentions
        with the same words, text, image and vector have the same prompt and are searched once.
        """
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, mention in enumerate(mentions):
            vector = b"" if mention.vector is None else mention.vector.tobytes()
            key = mention.mention, mention.text, id(mention.features), vector, mention.candidate_ids
            groups.setdefault(key, []).append(index)
        distinct = [mentions[indices[0]] for indices in groups.values()]
        prompts = self.prompts(distinct, settings)
        listed = [self._listed_names(mention, settings) for mention in distinct]
        # a free search is to be measured by what it says itself
        widened = settings.constrained or with_prior
        known = self._known_names(distinct, with_prior, with_descriptions) if widened else [[] for _ in distinct]
        searched = [None if names else prompt for names, prompt in zip(listed, prompts, strict=True)]
        scored = [prompt if names else None for names, prompt in zip(listed, prompts, strict=True)]
        all_names, certificates = self._search(distinct, searched, known, settings)
        for index, names in enumerate(self._score_by_prompt(distinct, scored, listed, settings)):
            if listed[index]:
                all_names[index] = _listed_only(distinct[index], names.values())
        results = [SearchResult([], ()) for _ in mentions]
        columns = groups.values(), all_names, prompts, certificates
        for indices, names_of_mention, prompt, certificate in zip(*columns, strict=True):
            for index in indices:
                shown = () if prompt is None else prompt.demonstrations
                reason = None if names_of_mention else _TOO_LONG if prompt is None else _NOTHING_FOUND
                results[index] = SearchResult([*names_of_mention], shown, reason, certificate)
        return results

    def _listed_names(self, mention: Mention, settings: LinkerSettings) -> list[str]:
        """The names of all that a mention may mean, if that is not everything."""
        if mention.candidate_ids:
            rows = [self.kb.row(kb_id) for kb_id in mention.candidate_ids]
            return [*dict.fromkeys(self.kb.entity(row).name for row in rows if row is not None)]
        return self.prior.known_names(mention.mention) if settings.candidates == "aliases" else []

    def _known_names(self, mentions: Sequence[Mention], with_prior: bool, with_descriptions: bool) -> list[list[str]]:
        """Names to score for each mention whether the search finds them or not."""
        nearest: Sequence[Sequence[int]] = [()] * len(mentions)
        if with_descriptions and self.descriptions is not None:
            nearest = self.descriptions.nearest([(mention.mention, mention.text) for mention in mentions], NEAREST)
        known = []
        for mention, rows in zip(mentions, nearest, strict=True):
            names = self.prior.known_names(mention.mention) if with_prior else self._bearers(mention.mention)
            known.append([*dict.fromkeys([*names, *(self.kb.entity(row).name for row in rows)])])
        return known

    def _bearers(self, mention: str) -> list[str]:
        """The names of the MAX_KNOWN most frequent entities with exactly this name or alias."""
        if (names := self._bearers_of.get(mention)) is None:
            rows = [row for group in self.kb.rows_by_surface(mention) for row in group]
            rows.sort(key=lambda row: (-self.kb.count(row), row))
            names = [*dict.fromkeys(self.kb.entity(row).name for row in rows[:MAX_KNOWN])]
            self._bearers_of.put(mention, names)
        return names

    def _search(
        self,
        mentions: Sequence[Mention],
        prompts: Sequence[Prompt | None],
        known: Sequence[Sequence[str]],
        settings: LinkerSettings,
    ) -> tuple[list[list[ScoredName]], list[Certificate | None]]:
        """Read each mention's prompt, search for names, and score those of `known` that were not found.

        Returns the names of each mention, and the certificates of an exact search.
        """
        constraint = self._constraint(settings)
        beams, max_tokens = settings.beam_size, constraint.max_tokens
        results: list[list[ScoredName]] = [[] for _ in mentions]
        certificates: list[Certificate | None] = [None] * len(mentions)

        def search(batch: Sequence[int], state: DecoderState) -> None:
            if _is_exact(settings):
                limits = {"beam_size": beams, "n_names": settings.n_candidates, "max_tokens": settings.exact_tokens}
                found = exact_search(state, constraint, **limits)
                searched = [hypotheses for hypotheses, _ in found]
                for index, (_, certificate) in zip(batch, found, strict=True):
                    certificates[index] = certificate
            else:
                searched = beam_search(state, constraint, beam_size=beams, n_names=settings.n_candidates)
            names = [self._resolve(hypotheses, constraint) for hypotheses in searched]
            missing = []
            for index, names_of_mention in zip(batch, names, strict=True):
                searched_names = {each.name for each in names_of_mention}
                missing.append([name for name in known[index] if name not in searched_names])
            for names_of_mention, scored in zip(names, self._score(missing, state, settings, max_tokens), strict=True):
                names_of_mention += scored.values()
            for index, names_of_mention in zip(batch, names, strict=True):
                results[index] = names_of_mention

        were_read = self._read(mentions, prompts, search, max_tokens, settings)
        # A free search may find nothing that ends; a trie always has a name.
        empty = [index for index in were_read if not results[index]]
        if settings.constrained and empty:
            first = mentions[empty[0]]
            warn(
                f"gemel_linker: no name was found for {len(empty)} mentions, which are linked to {NIL!r} (the first: "
                f"{first.mention!r} in {excerpt(first.text)}): either no name ends within max_name_tokens = "
                f"{settings.max_name_tokens}, or the language model's scores are not finite, as can happen in "
                "float16: use bfloat16 or float32.",
                SkippedMentionWarning,
            )
        return results, certificates

    def _read(
        self,
        mentions: Sequence[Mention],
        prompts: Sequence[Prompt | None],
        search: Callable[[Sequence[int], DecoderState], None],
        max_tokens: int,
        settings: LinkerSettings,
    ) -> list[int]:
        """Read the mentions' prompts in batches that fit the memory, and call `search` with each batch and its state.

        The state has room for the beams of a name of `max_tokens`. Returns the indices of those that were read, and
        warns of those that memory ran out on.
        """
        lengths, room = _lengths(prompts), room_for_beams(settings.beam_size, max_tokens)
        if _is_exact(settings):
            room += settings.exact_tokens

        def read(batch: Sequence[int]) -> None:
            of_batch = [prompt for index in batch if (prompt := prompts[index])]
            embedded, _ = self.embed(of_batch, train=False)
            inputs = self.prompt_builder.inputs(of_batch)
            kept = [prompt.shown_length if settings.demonstration_sets else 0 for prompt in of_batch]
            sharing = Sharing(inputs, kept, self._beginnings)
            search(batch, self.decoder.prefill(embedded, tokens=max_tokens, room=room, sharing=sharing))

        # A prompt takes its own tokens and room for its beams.
        shared, sequential = {}, {}
        for index, length in lengths.items():
            if self.decoder.can_share_prefix(length, max_tokens, room):
                shared[index] = length + room
            else:
                sequential[index] = length
        failures = self._budget.run(shared, settings.batch_tokens, read)
        # Sequential decoding takes one row at a time: a batch is one prompt, and a failure makes no batch smaller.
        failures += TokenBudget().run(sequential, 0, read)
        self._warn_out_of_memory(mentions, lengths, failures, f"linked to {NIL!r}")
        return sorted(lengths.keys() - dict(failures).keys())

    def _score(
        self, names: Sequence[Sequence[str]], state: DecoderState, settings: LinkerSettings, max_tokens: int
    ) -> list[dict[str, ScoredName]]:
        """Score each mention's names by the prompt that was read: those in the trie that are not too long."""
        results: list[dict[str, ScoredName]] = [{} for _ in names]
        encoded = [dict.fromkeys(map(tuple, self.language_model.tokenizer.encode(of_mention))) for of_mention in names]
        missing = [[ids for ids in each if 0 < len(ids) <= max_tokens and self.kb.rows_of(ids)] for each in encoded]
        if any(missing):
            scores = score_names(state, missing, self.end_id(settings))
            for scored, all_ids, values in zip(results, missing, scores, strict=True):
                for ids, score in zip(all_ids, values, strict=True):
                    if math.isfinite(score):
                        name = score_name(self.kb, self.kb.rows_of(ids), score, len(ids), searched=False)
                        scored[name.name] = name
        return results

    def _score_by_prompt(
        self,
        mentions: Sequence[Mention],
        prompts: Sequence[Prompt | None],
        names: Sequence[Sequence[str]],
        settings: LinkerSettings,
    ) -> list[dict[str, ScoredName]]:
        """Read each mention's prompt and score its names, without any search."""
        max_tokens = min(settings.max_name_tokens, self.kb.max_depth) + 1
        results: list[dict[str, ScoredName]] = [{} for _ in mentions]

        def score(batch: Sequence[int], state: DecoderState) -> None:
            scored = self._score([names[index] for index in batch], state, settings, max_tokens)
            for index, names_of_mention in zip(batch, scored, strict=True):
                results[index] = names_of_mention

        self._read(mentions, prompts, score, max_tokens, settings)
        return results

    def _constraint(self, settings: LinkerSettings) -> Constraint:
        end_id, limit = self.end_id(settings), settings.max_name_tokens
        if not settings.constrained:
            # What is longer than every name is no entity's name.
            return Unconstrained(self.language_model.vocab_size, end_id, min(limit, self.kb.max_depth))
        return TrieConstraint(self.kb.trie, end_id, limit, self.kb.added.trie)

    def _resolve(self, hypotheses: Sequence[Hypothesis], constraint: Constraint) -> list[ScoredName]:
        """The names of a mention's hypotheses with their entities; NIL if a free search found a name that none has."""
        tokenizer = self.language_model.tokenizer
        names: dict[str, ScoredName] = {}
        for hypothesis in hypotheses:
            rows = constraint.rows_at(hypothesis.edge)
            decoded = "" if rows else tokenizer.decode(hypothesis.tokens)
            if decoded:
                rows = self.kb.rows_of(tokenizer.encode([decoded])[0])
            nil = ScoredName(decoded, hypothesis.score, [Entity(NIL, decoded)], [NO_ROW])
            tokens = len(hypothesis.tokens)
            name = score_name(self.kb, rows, hypothesis.score, tokens) if rows else nil
            # A free search can find a name in several tokenisations: the best counts.
            names.setdefault(name.name, name)
        return list(names.values())

    # Learning

    def learn(self, mentions: Sequence[Mention], rows: Sequence[int], settings: LinkerSettings) -> NDArray[np.float32]:
        """Add the gradient of the mentions' mean loss (paper eq. 4) to the mapper's; `rows` are of the gold entities.

        Returns the losses, at most (mentions,), in the mentions' order. A text that is too long is left out. A mention
        that memory runs out on has neither loss nor gradient, but counts in the mean.
        """
        prompts = self.prompts(mentions, settings, training=True)
        lengths = _lengths(prompts)
        losses: dict[int, float] = {}

        def learn_batch(batch: Sequence[int]) -> None:
            embedded, backprop = self.embed([prompt for index in batch if (prompt := prompts[index])], train=True)
            names = self.language_model.tokenizer.encode([self.kb.entity(rows[index]).name for index in batch])
            values = self.language_model.name_loss(embedded, [[*name, self.end_id(settings)] for name in names])
            if values.requires_grad:  # not if neither mentions nor demonstrations have an image
                (values.sum() / len(lengths)).backward()
                backprop()  # last: if memory ran out before, nothing has been learned yet
            losses.update(zip(batch, values.detach().tolist(), strict=True))

        failures = self._training_budget.run(lengths, settings.batch_tokens, learn_batch)
        self._warn_out_of_memory(mentions, lengths, failures, "skipped")
        return np.array([losses[index] for index in sorted(losses)], dtype=np.float32)

    def _warn_out_of_memory(
        self, mentions: Sequence[Mention], lengths: dict[int, int], failures: Sequence[tuple[int, str]], fate: str
    ) -> None:
        for index, problem in failures:
            mention = mentions[index]
            warn(
                f"gemel_linker: {mention.mention!r} in {excerpt(mention.text)} is {fate}: memory ran out on its prompt "
                f'of {lengths[index]} tokens alone ({problem}). Set context = "window" or "sentence", a smaller '
                "n_demonstrations or beam_size, or a smaller dtype of the language model.",
                SkippedMentionWarning,
            )


def _is_exact(settings: LinkerSettings) -> bool:
    return settings.search == "exact" and settings.constrained


def _listed_only(mention: Mention, names: Iterable[ScoredName]) -> list[ScoredName]:
    """The names that a mention was said to mean, best first, each with the entities that were listed."""
    result = []
    for name in sorted(names, key=lambda name: -name.score):
        pairs = [*zip(name.entities, name.rows, strict=True)]
        if mention.candidate_ids:
            pairs = [pair for pair in pairs if pair[0].kb_id in mention.candidate_ids]
        entities, rows = zip(*pairs, strict=True)
        result.append(name._replace(entities=entities, rows=rows, searched=True))  # all that there was to find
    return result


def _lengths(prompts: Sequence[Prompt | None]) -> dict[int, int]:
    """Tokens of each prompt by its index, without the prompts that are None."""
    return {index: prompt.length for index, prompt in enumerate(prompts) if prompt is not None}
