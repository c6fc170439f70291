"""The pipe itself: spaCy's contract around the stages."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from spacy import util
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Model, Optimizer, set_dropout_rate
from thinc.types import Floats2d

from spacy_gemel.images.image import register_msgpack_encoder
from spacy_gemel.linking.candidates import Candidate, decide
from spacy_gemel.linking.demonstrations import Demonstration
from spacy_gemel.linking.retrievers import Retriever
from spacy_gemel.linking.settings import LinkerSettings, config_parameters, default_config
from spacy_gemel.models.frozen import FrozenModel, model_lock
from spacy_gemel.models.mapper import init_to_embedding_scale
from spacy_gemel.pipeline.growth import GrowingParts
from spacy_gemel.pipeline.parts import KBLoader
from spacy_gemel.pipeline.user_data import UNREADABLE_KEY, install_extension, to_row, write_rows

if TYPE_CHECKING:
    from spacy_gemel.linking.mention import Mention

_SCALE_SAMPLE = 1024


class GemelLinker(GrowingParts, TrainablePipe):
    """Links `doc.ents` to a knowledge base from the text and from the image in `doc.user_data`.

    Writes `token.ent_kb_id_` and, for `span._.gemel_candidates`, `doc.user_data["gemel_candidates"]`.
    The frozen models load in `initialize` and `from_disk`.
    """

    def __init__(
        self,
        vocab: Vocab,
        model: Model[Any, Any],
        name: str = "gemel_linker",
        *,
        language_model: FrozenModel[Any],
        vision_encoder: FrozenModel[Any],
        retriever: Retriever,
        settings: LinkerSettings,
        bundle_models: bool = False,
        image_features: str | None = None,
        scorer: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(
            vocab,
            model,
            name,
            language_model=language_model,
            vision_encoder=vision_encoder,
            retriever=retriever,
            settings=settings,
            bundle_models=bundle_models,
            image_features=image_features,
        )
        self.scorer = scorer
        # `spacy find-threshold` writes into it besides the config, and the config is what counts
        self.cfg: dict[str, Any] = {}
        self._told_missing: set[str] = set()  # golds that the training data's warning counts
        self._said_missing = False
        install_extension()
        register_msgpack_encoder()

    # What others may ask

    @property
    def training_golds(self) -> frozenset[str]:
        """The ids of the entities that stand in the training examples."""
        return frozenset(demonstration.kb_id for demonstration in self.store)

    def demonstrations_for(self, doc: Doc, span: Any) -> list[Demonstration]:
        """What the prompt of an entity of the doc shows, least similar first.

        Raises ValueError for a span that is not in doc.ents.
        """
        for ent in doc.ents:
            if (ent.start, ent.end) == (span.start, span.end):
                if ent.label_ in self.settings.labels_discard:
                    return []
                with model_lock():
                    [mention] = self.gather([[ent]])
                    [prompt] = self.stages.prompts([mention], self.settings)
                    return [self.store[index] for index in prompt.demonstrations] if prompt else []
        raise ValueError(f"{self.name}: {span.text!r} is not among the doc's entities.")

    # Loading

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        kb_loader: KBLoader | None = None,
    ) -> None:
        """Load the knowledge base and the frozen models, and take the training examples as demonstrations.

        kb_loader: spacy_gemel.KBFromDisk.v1; not needed after set_kb.
        Raises ValueError, before any long work, where the knowledge base, a model or a usable example is missing; a
        pipe that was trained before is then as it was.
        Warns of settings that have no effect.
        """
        from spacy_gemel.pipeline.before import add_sentences, training_vectors
        from spacy_gemel.pipeline.examples import collect_demonstrations, gold_rows

        validate_get_examples(get_examples, "GemelLinker.initialize")
        self.warn_unused_settings()
        if kb_loader is None:
            self.validate_kb()
        kb = self.kb if kb_loader is None else self.load_kb(kb_loader)
        for frozen in self.frozen_models.values():
            frozen.source()  # raises for a folder that is not there
        examples = list(get_examples())
        docs: Sequence[Doc] = [example.reference for example in examples]
        predicted = [example.predicted for example in examples]
        golds, missing = gold_rows(docs, kb, self.settings, self.NIL, self.name)
        vectors = training_vectors(examples, golds, nlp, self.name) if self.retriever.wants_vectors else None
        with model_lock():
            language_model, reader = self.load_models(kb, new=True)
            if self.settings.context == "sentence":
                docs = add_sentences(docs, nlp, self.name)
            store = collect_demonstrations(docs, golds, kb, reader, self.settings, vectors, predicted)
            self.model.set_dim("nI", reader.encoder.width)
            self.model.set_dim("nO", self.model.attrs["prefix_length"] * language_model.width)
            self.assemble(kb, language_model, reader, store)
            self.model.initialize()
            sample = self.model.ops.asarray2f(cast(Floats2d, store.features[:_SCALE_SAMPLE]))
            init_to_embedding_scale(self.model, sample, language_model.embedding_size)
        self._told_missing = {*missing}

    # Training

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Learn the mapper from the examples' gold entities; those without a gold in the knowledge base are skipped.

        drop: has no effect, as the mapper is one linear layer.
        losses: the sum of the mentions' losses (mean cross-entropy over a name and its end) is added under the
            pipe's name.
        Warns, once, where golds are not in the knowledge base that `initialize` has not told of.
        """
        from spacy_gemel.pipeline.examples import usable_mentions, warn_missing_golds

        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, "GemelLinker.update")
        set_dropout_rate(self.model, drop)
        with model_lock():
            mentions, rows, missing = usable_mentions(
                examples, self.kb, self.NIL, self._image_reader(), self.settings, self.vector_reader
            )
            if not self._said_missing and not self._told_missing.issuperset(missing):
                self._said_missing = True
                warn_missing_golds(missing, len(mentions), self.name)
            if not mentions:
                return losses
            values = self.stages.learn(mentions, rows, self.settings)
        losses[self.name] += float(values.sum())
        if sgd:  # spaCy's training loop passes False to accumulate
            self.finish_update(sgd)
        return losses

    def rehearse(self, examples: Iterable[Example], **_options: Any) -> dict[str, float]:
        """Not supported: raises NotImplementedError."""
        raise NotImplementedError(f"{self.name}: rehearse is not supported; update the pipe with examples.")

    def score(self, examples: Iterable[Example], **options: Any) -> dict[str, Any]:
        """What the scorer says of the examples: golds may be ids, URLs, titles or aliases of the knowledge base.

        options: given to the scorer as they are.
        Raises ValueError where the linker was not given the images or the entities of the gold docs, as happens under
        `spacy evaluate`, and where it could read none of the images; warns where it could not read some.
        """
        from spacy_gemel.kb.resolve import resolve_gold
        from spacy_gemel.pipeline.scorer import check_scorable

        if self.scorer is None:
            return {}
        examples = list(examples)
        own = self.settings
        check_scorable(examples, name=self.name, use_image=own.use_image, labels_discard=own.labels_discard)

        def resolve(gold: str) -> str:
            row = resolve_gold(self.kb, gold)
            return gold if row is None else self.kb.entity(row).kb_id

        return self.scorer(examples, **{"resolve": resolve, **options})

    # Prediction

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Link a stream of docs, and yield them in order.

        Where a batch fails, the pipe's error handler gets the docs that fail alone, and the others are linked.
        """
        batches: Iterable[list[Doc]] = util.minibatch(stream, size=batch_size)  # type: ignore[no-untyped-call]
        for docs in batches:
            try:
                self.set_annotations(docs, self.predict(docs))
            except Exception:
                if self.get_error_handler() is util.raise_error:
                    raise
                docs = [doc for doc in map(self, docs) if doc is not None]
            yield from docs

    def predict(self, docs: Iterable[Doc]) -> list[list[tuple[int, int, list[Candidate]]]]:
        """For each doc its entities as (start token, end token, candidates best first). Changes no doc's entities."""
        from spacy_gemel.pipeline.mentions import make_images_plain, mark_unreadable

        docs = list(docs)
        self._forget_unreadable(docs)
        found: list[list[tuple[int, int, list[Candidate]]]] = [[] for _ in docs]
        if not any(doc.ents for doc in docs):
            return found
        make_images_plain(doc for doc in docs if doc.ents)
        with model_lock():
            mentions = self._mentions(docs)
            for mention, candidates in zip(mentions, self.stages.link(mentions, self.settings), strict=True):
                found[mention.doc].append((mention.start, mention.end, candidates))
        if self.settings.use_image:
            mark_unreadable(docs, mentions)
        for doc, linked in zip(docs, found, strict=True):
            linked += [(ent.start, ent.end, []) for ent in doc.ents if self._is_discarded(ent)]
            linked.sort(key=lambda entity: entity[0])
        return found

    def _mentions(self, docs: Sequence[Doc]) -> "list[Mention]":
        """The entities to be linked: none of a discarded label, and none with an id that is not to be overwritten."""
        return self.gather(
            [[ent for ent in doc.ents if self._is_open(ent) and not self._is_discarded(ent)] for doc in docs]
        )

    def _forget_unreadable(self, docs: Iterable[Doc]) -> None:
        """Take away the mark of an unreadable image from docs that get all their answers anew, or have none.

        The mark is the answers', not the image's: it stays where overwrite = False, here or in a second linker, leaves
        a doc some of what was linked from its text alone, and goes with the last such answer, also where this run
        wants no image.
        """
        for doc in docs:  # most have no mark: those without entities must cost next to nothing
            if UNREADABLE_KEY in doc.user_data and all(map(self._is_open, doc.ents)):
                del doc.user_data[UNREADABLE_KEY]

    def _is_open(self, ent: Span) -> bool:
        return self.settings.overwrite or not ent.kb_id_

    def _is_discarded(self, ent: Span) -> bool:
        """Whether it gets NIL unseen; one that keeps its id does not."""
        return self._is_open(ent) and ent.label_ in self.settings.labels_discard

    def set_annotations(
        self, docs: Iterable[Doc], scores: Sequence[Sequence[tuple[int, int, list[Candidate]]]]
    ) -> None:
        """Write what `predict` found on the docs' tokens and in their user_data."""
        for doc, linked in zip(docs, scores, strict=True):
            rows = []
            for start, end, candidates in linked:
                span = doc[start:end]
                kb_id = decide(candidates, self.settings.threshold)
                for token in span:  # an id set on the spans of doc.ents would not stay
                    if self.settings.overwrite or not token.ent_kb_id:
                        token.ent_kb_id_ = kb_id
                rows.append(to_row(span.start_char, span.end_char, candidates))
            write_rows(doc, rows, keep_others=not self.settings.overwrite)

    # Saving

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Save the pipe: mapper, demonstrations, knowledge base, and with bundle_models the frozen models.

        Files of the knowledge base and of bundled models are hard-linked where the file system allows it.
        """
        from spacy_gemel.pipeline import serialization as saving

        saving.to_disk(self, path, tuple(exclude))

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "GemelLinker":
        """Load what `to_disk` saved, and the frozen models. Raises ValueError if a model is not there."""
        from spacy_gemel.pipeline import serialization as saving

        saving.from_disk(self, path, tuple(exclude))
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """All that `to_disk` saves, as bytes."""
        from spacy_gemel.pipeline import serialization as saving

        return saving.to_bytes(self, tuple(exclude))

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> "GemelLinker":
        """Load what `to_bytes` gave, and the frozen models. Raises ValueError for other bytes."""
        from spacy_gemel.pipeline import serialization as saving

        saving.from_bytes(self, bytes_data, tuple(exclude))
        return self


DEFAULT_CONFIG = {
    **default_config(),
    "bundle_models": False,
    "image_features": None,
    "model": {"@architectures": "spacy_gemel.LinearMapper.v1", "prefix_length": 4},
    "language_model": {"@misc": "spacy_gemel.CausalLM.v1", "name": "meta-llama/Llama-2-7b-hf"},
    "vision_encoder": {"@misc": "spacy_gemel.OpenCLIP.v1", "name": "ViT-L-14-quickgelu", "pretrained": "openai"},
    "retriever": {
        "@misc": "spacy_gemel.SentenceTransformerRetriever.v1",
        "name": "princeton-nlp/sup-simcse-roberta-large",
    },
    "scorer": {"@scorers": "spacy_gemel.linker_scorer.v1"},
}


def _with_settings(factory: Callable[..., "GemelLinker"]) -> Callable[..., "GemelLinker"]:
    """Give a factory the settings as parameters: spaCy checks a config by the factory's signature."""
    signature = inspect.signature(factory)
    parameters = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    factory.__signature__ = signature.replace(parameters=[*parameters, *config_parameters()])  # type: ignore[attr-defined]
    return factory


@Language.factory(
    "gemel_linker",
    requires=["doc.ents", "token.ent_iob", "token.ent_type"],
    assigns=["token.ent_kb_id"],
    default_config=DEFAULT_CONFIG,
    default_score_weights={"nel_micro_f": 1.0, "nel_micro_r": None, "nel_micro_p": None, "nel_nil_f": 0.0},
)
@_with_settings
def make_gemel_linker(
    nlp: Language,
    name: str,
    model: Model[Any, Any],
    language_model: Any,
    vision_encoder: Any,
    retriever: Any,
    bundle_models: bool,
    image_features: str | None,
    scorer: Callable[..., Any] | None,
    **settings: Any,
) -> GemelLinker:
    """Make the pipe `gemel_linker`: GEMEL (Shi et al. 2024, arXiv 2306.12725), and what its settings add.

    Args:
        nlp: The pipeline.
        name: The name of the pipe.
        model: The mapper, the only part that is trained.
        language_model: A frozen model, by name; see spacy_gemel.registry.
        vision_encoder: A frozen model, by name.
        retriever: Chooses the demonstrations.
        bundle_models: Save the frozen models inside the pipe, so that it works where they are missing.
        image_features: A folder that `encode-images` wrote: its images are not encoded again. It only saves time.
        scorer: Scores the pipe.
        settings: See LinkerSettings.
    """
    return GemelLinker(
        nlp.vocab,
        model,
        name,
        language_model=language_model,
        vision_encoder=vision_encoder,
        retriever=retriever,
        settings=LinkerSettings(**settings),
        bundle_models=bundle_models,
        image_features=image_features,
        scorer=scorer,
    )
