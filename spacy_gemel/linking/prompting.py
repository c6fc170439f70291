"""What a mention is shown: its demonstrations, and the prompt with them."""

import warnings
from collections.abc import Sequence

from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.linking.demonstrations import DemonstrationStore
from spacy_gemel.linking.prompt import Prompt, PromptBuilder, PromptTooLong
from spacy_gemel.linking.retrievers import Query, Retriever, Vectors
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.pipeline.mentions import Mention
from spacy_gemel.pipeline.trf_vectors import warn_changed_vectors


class Prompting:
    """The loaded parts that make prompts.

    prefix_length: soft tokens of a visual prefix. nil: what a mention without an entity is linked to.
    """

    def __init__(
        self,
        kb: KnowledgeBase,
        language_model: CausalLM,
        store: DemonstrationStore,
        retriever: Retriever,
        settings: LinkerSettings,
        nil: str,
        prefix_length: int,
    ) -> None:
        self.kb = kb
        self.language_model = language_model
        self.retriever = retriever
        self.settings = settings
        self.nil = nil
        self.prefix_length = prefix_length
        self.builder = PromptBuilder(
            language_model.tokenizer,
            store,
            prefix_length=prefix_length,
            max_tokens=self._prompt_limit(),
            bos=language_model.bos,
        )
        self._said_dropped = False
        self._said_changed = False
        self.use_store(store)

    @property
    def store(self) -> DemonstrationStore:
        """The demonstrations that may be shown."""
        return self.builder.store

    def use_store(self, store: DemonstrationStore) -> None:
        """Show these demonstrations from now on; what is kept of those that stay is kept."""
        self.retriever.index([demonstration.mention for demonstration in store], store.vectors)
        self.builder.store = store
        self._same: dict[tuple[str, str], set[int]] = {}
        for index, shown in enumerate(store):
            self._same.setdefault((shown.mention, shown.text), set()).add(index)

    def _prompt_limit(self) -> int:
        """Tokens of the longest prompt that leaves room for a name and its end."""
        longest = max(self.settings.max_name_tokens, self.kb.meta.max_name_tokens)
        return self.language_model.max_length - longest - 1

    def prompts(self, mentions: Sequence[Mention], *, training: bool = False) -> list[Prompt | None]:
        """A prompt for each mention; None, with a warning, for a text that is too long for the language model.

        training: an item never sees itself, that is no demonstration of the same mention in the same text.
        """
        prompts: list[Prompt | None] = []
        self.builder.max_tokens = self._prompt_limit()
        queries = [Query(mention.mention, mention.text, mention.vector) for mention in mentions]
        self.retriever.prepare(queries, self.settings.n_demonstrations)
        if training and not self._said_changed:
            self._said_changed = warn_changed_vectors(mentions, self.store.vectors, self._same)
        for mention in mentions:
            ranked = self.demonstrations(mention.mention, mention.text, vector=mention.vector, training=training)
            try:
                prompt = self.builder.build(
                    mention.text, mention.mention, mention.features, ranked, use_image=self.settings.use_image
                )
            except PromptTooLong as error:
                warnings.warn(
                    f"gemel_linker: {mention.mention!r} in {mention.text[:50]!r}... is "
                    f"{'skipped' if training else f'linked to {self.nil!r}'}: {error}. "
                    'Set context = "window" or "sentence", or split the document.',
                    stacklevel=2,
                )
                prompts.append(None)
                continue
            if prompt.dropped and not self._said_dropped:
                self._said_dropped = True
                warnings.warn(
                    f"gemel_linker: prompts are longer than the {self.builder.max_tokens} tokens that the language "
                    "model takes: their least similar demonstrations are dropped (said once; first for "
                    f"{mention.mention!r}: {prompt.dropped} of {len(ranked)}).",
                    stacklevel=2,
                )
            prompts.append(prompt)
        return prompts

    def demonstrations(
        self, mention: str, text: str, *, vector: Vectors | None = None, training: bool = False
    ) -> list[int]:
        """The places in the store of what a mention is shown, most similar first."""
        wanted = self.settings.n_demonstrations
        if training and self.settings.n_training_demonstrations is not None:
            wanted = min(wanted, self.settings.n_training_demonstrations)
        itself = self._same.get((mention, text), set()) if training else set()
        if wanted < 1:
            return []
        ranked = self.retriever.rank(Query(mention, text, vector), wanted + len(itself))
        return [index for index in ranked if index not in itself][:wanted]
