"""The pipe `gemel_linker`: its factory, and spaCy's contract around the method in `linking/`."""

import inspect
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from spacy import util
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc, Span
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Model, Optimizer, get_torch_default_device, set_dropout_rate
from thinc.types import Floats2d

from spacy_gemel.images.augmentation import AlteredReader
from spacy_gemel.images.feature_store import open_features
from spacy_gemel.images.features import FeatureReader
from spacy_gemel.images.image import register_msgpack_encoder
from spacy_gemel.kb.additions import check_entities, make_entity
from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.resolve import NIL, resolve_gold
from spacy_gemel.linking.alignment import Alignment
from spacy_gemel.linking.candidates import Answer, answer_id
from spacy_gemel.linking.decision import Decision
from spacy_gemel.linking.demonstrations import Demonstration, DemonstrationStore, extend_store
from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.retrievers import Retriever, VectorRetriever
from spacy_gemel.linking.settings import (
    LinkerSettings,
    changed_threshold,
    config_parameters,
    default_config,
    unused_settings,
)
from spacy_gemel.models.frozen import FrozenModel, model_lock, one_thread_in_forks
from spacy_gemel.models.mapper import check_mapper, init_to_embedding_scale
from spacy_gemel.pipeline import serialization
from spacy_gemel.pipeline.examples import (
    add_sentences,
    aligned_span,
    collect_demonstrations,
    gold_rows,
    listed,
    new_demonstrations,
    training_vectors,
    usable_entities,
)
from spacy_gemel.pipeline.mentions import gather_mentions
from spacy_gemel.pipeline.scorer import check_scorable
from spacy_gemel.pipeline.trf_vectors import read_batch
from spacy_gemel.pipeline.user_data import (
    certificate_row,
    flag_unreadable_image,
    has_image,
    install_extension,
    to_row,
    write_reasons,
    write_rows,
)
from spacy_gemel.utils.files import folder_owner
from spacy_gemel.utils.messages import ModelWarning, UnknownEntityWarning, UnusedSettingWarning, warn, warn_once

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.linking.features import Feature  # imports pyarrow too
    from spacy_gemel.linking.model import LinkingModel
    from spacy_gemel.models.causal_lm import CausalLM

logger = logging.getLogger(__name__)

# Not KnowledgeBase, which imports pyarrow: spaCy has pydantic look at what `initialize` takes.
KBLoader = Callable[[Vocab], Any]


GetCandidates = Callable[["KnowledgeBase", Span], Iterable[Any]]


_DISCARDED = Answer(reason="its label is in labels_discard")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What `GemelLinker.predict` finds for the entity of a doc in tokens start to end (exclusive)."""

    start: int
    end: int
    answer: Answer  # without candidates if its label is discarded or the search found nothing
    unreadable_image: bool = False  # the doc has an image that could not be read, so that the text alone decided


def _setting_property(name: str) -> Any:
    """A setting as an attribute of the pipe, as spaCy's EntityLinker has it. Assigning goes through `configure`."""
    return property(
        lambda linker: getattr(linker.settings, name),
        lambda linker, value: linker.configure(**{name: value}),
        doc=f"See LinkerSettings.{name}.",
    )


class GemelLinker(TrainablePipe):
    """Links `doc.ents` to a knowledge base from the text and from the image in `doc.user_data`.

    Writes `token.ent_kb_id_` and, for `span._.gemel_candidates`, `doc.user_data["gemel_candidates"]`. The frozen models
    load in `initialize` and `from_disk`. Raises ValueError if a part is of another kind.
    """

    NIL = NIL

    threshold = _setting_property("threshold")
    labels_discard = _setting_property("labels_discard")
    n_sents = _setting_property("n_sents")
    use_gold_ents = _setting_property("use_gold_ents")
    overwrite = _setting_property("overwrite")

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
        features: "Sequence[Feature]" = (),
        get_candidates: GetCandidates | None = None,
        bundle_models: bool = False,
        image_features: str | None = None,
        verify: bool = False,
        scorer: Callable[..., Any] | None = None,
    ) -> None:
        check_mapper(name, model)
        self.vocab = vocab
        self.model = model
        self.name = name
        self.language_model = language_model
        self.vision_encoder = vision_encoder
        self.retriever = retriever
        for part in _EXPECTED:
            _check_part(name, part, getattr(self, part))
        self._check_retriever(settings)
        self.features = tuple(features)
        self.get_candidates = get_candidates
        self.bundle_models = bundle_models
        self.image_features = image_features
        self.verify = verify
        self.scorer = scorer
        # Unused: the settings are in `self.settings`. `spacy find-threshold` writes here besides the config.
        self.cfg: dict[str, Any] = {}
        self.config_settings = settings  # as the config has them, whatever `configure` changes
        self.store = DemonstrationStore()
        self.folders: dict[str, Path] = {}  # that frozen models and image features of a loaded pipe were found in
        self._folder_owners: list[Any] = []  # the folders may be temporary
        self._settings = settings
        self._kb: KnowledgeBase | None = None
        self._decision: Decision | None = None
        self._linking_model: LinkingModel | None = None
        self._reader: FeatureReader | None = None
        self._known_missing: set[str] = set()  # gold ids already reported
        install_extension()
        register_msgpack_encoder()

    # Settings

    @property
    def settings(self) -> LinkerSettings:
        """The settings in force; `configure` changes them."""
        return self._settings

    def configure(self, **changes: Any) -> None:
        """Change settings by name, all of them or none, from the next doc on. They are saved with the pipe.

        Warns of settings without effect. Raises ValueError if one is unknown or a value makes no sense.
        """
        with model_lock():
            previous, settings = self._settings, self._settings.replace(**changes)
            self._check_decision(settings, self._decision)
            self._check_retriever(settings)
            if self._linking_model is not None:
                self._linking_model.language_model.tokenizer.end_id(settings.name_end)  # raises if it has none
            self._settings = settings
        self._warn_unused_settings(unused_settings(previous).keys() - changes.keys())
        if message := changed_threshold(previous, settings):
            warn(f"{self.name}: {message}.", UnusedSettingWarning)

    def _check_retriever(self, settings: LinkerSettings) -> None:
        if settings.demonstration_sets and not isinstance(self.retriever, VectorRetriever):
            raise ValueError(
                f"{self.name}: demonstration_sets = {settings.demonstration_sets} needs a retriever that compares "
                "vectors: set retriever to spacy_gemel.SentenceTransformerRetriever.v1, or demonstration_sets = 0."
            )

    @property
    def decision(self) -> Decision | None:
        """What weighs the candidates' features; None to decide by the search's score, as the paper does."""
        return self._decision

    def use_decision(self, decision: Decision | None) -> None:
        """Decide so from the next doc on. It is saved with the pipe.

        Raises ValueError if it weighs a feature that the config does not name, or beside a `prior_weight`.
        """
        with model_lock():
            self._check_decision(self._settings, decision)
            self._decision = decision
            if self._linking_model is not None:
                self._linking_model.decision = decision

    def _check_decision(self, settings: LinkerSettings, decision: Decision | None) -> None:
        if decision is None:
            return
        if settings.prior_weight:
            raise ValueError(
                f"{self.name}: prior_weight = {settings.prior_weight:g} has no place beside a fitted decision, which "
                "weighs the prior itself: set prior_weight = 0, or drop the decision with use_decision(None)."
            )
        known = {column for feature in self.features for column in feature.columns}
        if missing := [name for name, weight in decision.weights.items() if weight and name not in known]:
            raise ValueError(
                f"{self.name}: the decision weighs {', '.join(missing)}, which no feature of "
                f"[components.{self.name}.features] computes: name them there as when it was fitted, or run "
                "fit-decision again."
            )

    def _warn_unused_settings(self, known: Container[str] = ()) -> None:
        for name, message in unused_settings(self._settings).items():
            if name not in known:
                warn(f"{self.name}: {message}.", UnusedSettingWarning)

    # Parts

    @property
    def kb(self) -> "KnowledgeBase":
        """The knowledge base. Raises ValueError before the pipe is initialized or has been given one."""
        return self.linking_model.kb if self._kb is None else self._kb

    @property
    def linking_model(self) -> "LinkingModel":
        """The loaded models and the method. Raises ValueError before the pipe is initialized."""
        if self._linking_model is None:
            raise ValueError(
                f"{self.name}: not ready: nothing is loaded yet. Train the pipeline with `python -m spacy train`, "
                "or load a trained one with `spacy.load`."
            )
        return self._linking_model

    @property
    def frozen_models(self) -> dict[str, FrozenModel[Any]]:
        """The frozen models by their part in the pipe."""
        models = {"language_model": self.language_model, "vision_encoder": self.vision_encoder}
        return models if self.retriever.frozen is None else {**models, "retriever": self.retriever.frozen}

    @property
    def training_gold_ids(self) -> frozenset[str]:
        """The ids of the entities in the training examples."""
        return frozenset(demonstration.kb_id for demonstration in self.store)

    @property
    def feature_folder(self) -> Path | None:
        """The folder of the image features in use, or None."""
        store = None if self._reader is None else self._reader.store
        return None if store is None else store.path

    def demonstrations_for(self, doc: Doc, span: Any) -> list[Demonstration]:
        """The demonstrations in an entity's prompt, least similar first. Raises ValueError if it is not in doc.ents."""
        ent = self._entity_at(doc, span)
        if ent.label_ in self.settings.labels_discard:
            return []
        with model_lock():
            [prompt] = self.linking_model.prompts(self.mentions_of([[ent]]), self.settings)
            return [self.store[index] for index in prompt.demonstrations] if prompt else []

    def explain(self, span: Span) -> dict[str, Any]:
        """Why an entity of a doc is linked as it is; see `spacy_gemel.linking.explanation.explain`.

        It is linked once more. Raises ValueError if it is not among the doc's entities, or its label is discarded.
        """
        from spacy_gemel.linking.explanation import explain

        ent = self._entity_at(span.doc, span)
        if ent.label_ in self.settings.labels_discard:
            raise ValueError(f"{self.name}: {ent.text!r} is not linked: its label {ent.label_} is in labels_discard.")
        ents = [each for each in span.doc.ents if each.label_ not in self.settings.labels_discard]
        with model_lock():
            return explain(self.linking_model, self.mentions_of([ents]), ents.index(ent), self.settings)

    def _entity_at(self, doc: Doc, span: Any) -> Span:
        """The entity of a doc at a span. Raises ValueError if there is none."""
        ent = next((ent for ent in doc.ents if (ent.start, ent.end) == (span.start, span.end)), None)
        if ent is None:
            raise ValueError(f"{self.name}: {span.text!r} is not among the doc's entities.")
        return ent

    # The knowledge base, and additions without training

    def set_kb(self, kb_loader: KBLoader) -> None:
        """Link to another knowledge base from now on; mapper, demonstrations and added entities stay.

        `kb_loader` is called with the pipe's vocab, such as spacy_gemel.KBFromDisk.v1. Raises KBError if it was built
        for another tokenizer than the language model's, ValueError if the loader gives no knowledge base.
        """
        kb = self._load_kb(kb_loader)
        with model_lock():  # around the linking model too, which another thread may replace meanwhile
            if self._linking_model is None:
                self._kb = kb
                return
            tokenizer = self._linking_model.language_model.tokenizer
            kb.check_tokenizer(tokenizer.fingerprint, self.language_model.name)
            added = [entity for entity in self.kb.added.entities if entity.kb_id not in kb]
            self._use_kb(kb.with_added(added, tokenizer))

    def _load_kb(self, kb_loader: KBLoader) -> "KnowledgeBase":
        from spacy_gemel.kb.knowledge_base import KnowledgeBase

        if not callable(kb_loader):
            raise ValueError(
                f"{self.name}: set_kb takes a function of the vocab that gives a knowledge base, such as "
                f"lambda vocab: KnowledgeBase.open(folder), not {type(kb_loader).__name__}."
            )
        kb = kb_loader(self.vocab)
        if not isinstance(kb, KnowledgeBase):
            raise ValueError(
                f"{self.name}: the kb_loader gave {type(kb).__name__}, not a KnowledgeBase of spacy_gemel. Use "
                "spacy_gemel.KBFromDisk.v1; an InMemoryLookupKB, saved with its to_disk, is converted by "
                "spacy_gemel.KBFromLookupKB.v1."
            )
        return kb

    def _use_kb(self, kb: "KnowledgeBase") -> None:
        self.linking_model.use_kb(kb)
        self._kb = kb

    def validate_kb(self) -> None:
        """Raise ValueError if there is no knowledge base: an empty one cannot be built."""
        if self._kb is None:
            raise ValueError(
                f"{self.name}: no knowledge base: add a block [initialize.components.{self.name}.kb_loader] with "
                '@misc = "spacy_gemel.KBFromDisk.v1" and path = the folder that `python -m spacy_gemel build-kb` '
                "wrote, or call set_kb."
            )

    def add_entity(
        self, kb_id: str, name: str, *, aliases: Iterable[str] = (), description: str | None = None, count: int = 0
    ) -> None:
        """Add an entity that the pipe can link to from the next doc on; `add_entities` is far faster for many.

        It is kept in memory and saved with the pipe; the knowledge base's own files do not change. Entities of one name
        share its probability by their counts, so that one with 0 gets nothing beside one that has been counted. Raises
        ValueError if the id exists, if the model cannot answer the name, or before the pipe is initialized.
        """
        self.add_entities([make_entity(kb_id, name, aliases, description, count)])

    def add_entities(self, entities: Iterable[Entity]) -> None:
        """Add entities (of spacy_gemel.kb.entity), all of them or none; see `add_entity`."""
        new = check_entities(entities)
        with model_lock():
            tokenizer = self.linking_model.language_model.tokenizer
            self._use_kb(self.kb.with_added(new, tokenizer, max_tokens=self.settings.max_name_tokens))

    def add_demonstrations(self, docs: Iterable[Doc]) -> int:
        """Show the linked entities of docs in prompts, from the next doc on, without training. Returns their number.

        Their entities have an id or a name of the knowledge base, and the docs an image as for linking. For
        TransformerRetriever the pipeline's transformer has read them (nlp.select_pipes(enable="transformer")). What is
        known is not added again, see `extend_store`. Raises ValueError if it is no list of docs, if no entity can be
        used, or before the pipe is initialized.
        """
        self.linking_model  # noqa: B018
        if isinstance(docs, Doc):  # type: ignore[unreachable]
            raise ValueError(f"{self.name}: add_demonstrations takes a list of docs, not one Doc: give [doc].")
        docs = list(docs)
        if other := next((doc for doc in docs if not isinstance(doc, Doc)), None):
            message = f"add_demonstrations takes a list of docs, and there is {type(other).__name__} in it"
            raise ValueError(f"{self.name}: {message}.")
        with model_lock():
            reader, wants_vectors = cast(FeatureReader, self._reader), self.retriever.wants_vectors
            new = new_demonstrations(docs, self.kb, reader, self.settings, self.name, wants_vectors=wants_vectors)
            try:
                store, number = extend_store(self.store, new, wants_vectors=wants_vectors)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from error
            if number:
                self.linking_model.use_store(store)
                self.store = store
        return number

    # Loading

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        kb_loader: KBLoader | None = None,
        alignment: Alignment | None = None,
    ) -> None:
        """Load the knowledge base and the frozen models, and take the training examples as demonstrations.

        `kb_loader` (such as spacy_gemel.KBFromDisk.v1) is not needed after set_kb. With `alignment`
        (spacy_gemel.Alignment.v1) the mapper learns image -> name first, without demonstrations. Warns of settings
        without effect. Raises ValueError, before any long work and before a trained pipe changes, if the knowledge
        base, a model or a usable example is missing.
        """
        validate_get_examples(get_examples, "GemelLinker.initialize")
        self._warn_unused_settings()
        if kb_loader is None:
            self.validate_kb()
        kb = self.kb if kb_loader is None else self._load_kb(kb_loader)
        for frozen in self.frozen_models.values():
            frozen.source()  # raises for a folder that is not there
        examples = list(get_examples())
        docs: Sequence[Doc] = [example.reference for example in examples]
        predicted = [example.predicted for example in examples]
        rows, missing = gold_rows(docs, kb, self.settings, self.name)
        vectors = training_vectors(examples, rows, nlp, self.name) if self.retriever.wants_vectors else None
        with model_lock():
            settings = self.settings
            language_model, reader = self._load_models(kb, settings, self.folders, training=True)
            if settings.context == "sentence":
                docs = add_sentences(docs, nlp, self.name)
            store = collect_demonstrations(docs, rows, kb, reader, settings, vectors, predicted)
            self.model.set_dim("nI", reader.encoder.width)
            self.model.set_dim("nO", self.model.attrs["prefix_length"] * language_model.width)
            self._assemble(kb, language_model, reader, store)
            self.model.initialize()
            sample = self.model.ops.asarray2f(cast(Floats2d, store.features[:1024]))
            init_to_embedding_scale(self.model, sample, language_model.embedding_size)
            if alignment is not None and settings.use_image:
                self._align(
                    alignment,
                    lambda altered: collect_demonstrations(docs, rows, kb, altered, settings, None, predicted),
                )
        self._known_missing = {*missing}

    def _align(self, alignment: Alignment, collect: Callable[[AlteredReader], DemonstrationStore]) -> None:
        """Align the mapper; `collect` reads the training images again as a reader alters them."""
        import torch

        altered, seed = AlteredReader(cast(FeatureReader, self._reader)), torch.initial_seed()  # the config's
        with torch.random.fork_rng(devices=[]):  # whatever loading the models has drawn
            torch.manual_seed(seed)
            copies = [collect(altered).features for _ in range(alignment.copies)]
        rng = np.random.default_rng(seed)
        losses = alignment.run(self.linking_model, [self.store.features, *copies], self.settings, rng)
        logger.info("Aligned the mapper: mean loss of each pass %s", ", ".join(f"{loss:.3f}" for loss in losses))

    def _load_models(
        self, kb: "KnowledgeBase", settings: LinkerSettings, folders: dict[str, Path], *, training: bool
    ) -> "tuple[CausalLM, FeatureReader]":
        """Load the frozen models. While training, image features that cannot be used are an error, not a warning."""
        from spacy_gemel.decoding.self_check import make_decoder  # not earlier: transformers

        one_thread_in_forks()
        device = str(get_torch_default_device())
        # the largest last, so that a small one that is missing is reported first
        self.retriever.load(device, folders.get("retriever"))
        encoder = self.vision_encoder.load(device, folders.get("vision_encoder"))
        last = folders.get("image_features")
        features = open_features(self.image_features, self.vision_encoder, encoder, last=last, strict=training)
        language_model = self.language_model.load(device, folders.get("language_model"))
        kb.check_tokenizer(language_model.tokenizer.fingerprint, self.language_model.name)
        # both raise before the training images are encoded
        language_model.tokenizer.end_id(settings.name_end)
        make_decoder(language_model)
        return language_model, FeatureReader(encoder, store=features)

    def _assemble(
        self, kb: "KnowledgeBase", language_model: "CausalLM", reader: FeatureReader, store: DemonstrationStore
    ) -> None:
        from spacy_gemel.linking.model import LinkingModel  # not earlier: pyarrow

        if self.retriever.wants_vectors and len(store) and store.vectors is None:
            warn(
                f"{self.name}: no demonstrations are shown: the pipe was trained with another retriever, and kept no "
                "vectors of their mentions. Train it again, or give it demonstrations by add_demonstrations.",
                ModelWarning,
            )
        deciding = self.features, self._decision, reader.encoder.joint
        self._linking_model = LinkingModel(self.model, kb, language_model, store, self.retriever, *deciding)
        self._kb, self._reader, self.store = kb, reader, store

    # Training

    def update(
        self,
        examples: Iterable[Example],
        *,
        drop: float = 0.0,
        sgd: Optimizer | None = None,
        losses: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """Train the mapper on the examples' gold entities; those that the knowledge base lacks are skipped.

        Adds the sum of the mentions' losses (mean cross-entropy over a name and its end) to `losses`. Without `sgd`
        gradients accumulate. `drop` has no effect, as the mapper is one linear layer. Warns once of skipped gold ids
        that the warning of `initialize` did not count.
        """
        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, "GemelLinker.update")
        set_dropout_rate(self.model, drop)
        with model_lock():
            entities, rows, missing = usable_entities(examples, self.kb, self.settings)
            if not self._known_missing.issuperset(missing):
                message = (
                    f"{len(missing)} of {len(missing) + len(rows)} gold entities of these examples are not learned: "
                    f"the knowledge base lacks the id or a usable name ({listed(missing)}). This warning is given once."
                )
                warn_once(self, f"{self.name}: {message}", UnknownEntityWarning, "update")
            if not rows:
                return losses
            values = self.linking_model.learn(self.mentions_of(entities, examples), rows, self.settings)
        losses[self.name] += float(values.sum())
        if sgd:  # spaCy's training loop passes False to accumulate
            self.finish_update(sgd)
        return losses

    def rehearse(self, examples: Iterable[Example], **_options: Any) -> dict[str, float]:
        """Not supported: raises NotImplementedError."""
        raise NotImplementedError(f"{self.name}: rehearse is not supported; update the pipe with examples.")

    def score(self, examples: Iterable[Example], **options: Any) -> dict[str, Any]:
        """The scorer's scores. Gold ids may also be URLs, titles or aliases of the knowledge base.

        Raises ValueError if the linker was not given the images or the entities of the gold docs, as under `spacy
        evaluate`, or if it could read none of the images; if some, it warns.
        """
        if self.scorer is None:
            return {}
        examples = list(examples)
        check_scorable(examples, self.name, self.settings)

        def resolve(gold: str) -> str:
            row = resolve_gold(self.kb, gold)
            return gold if row is None else self.kb.entity(row).kb_id

        return self.scorer(examples, **{"resolve": resolve, **options})

    # Prediction

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Link a stream of docs, and yield them in order.

        If a batch fails, the pipe's error handler gets only the docs that fail, and the others are linked.
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

    def predict(self, docs: Iterable[Doc]) -> list[list[Prediction]]:
        """The predictions for each doc's entities, in order; those that keep their id have none. Changes no doc."""
        docs = list(docs)
        predictions: list[list[Prediction]] = [[] for _ in docs]
        if not any(doc.ents for doc in docs):
            return predictions
        with model_lock():
            settings, mentions = self.settings, self.mentions_of(self.entities_to_link(docs))
            answers = self.linking_model.link(mentions, settings)
        for mention, answer in zip(mentions, answers, strict=True):
            unreadable = settings.use_image and mention.features is None and has_image(docs[mention.doc])
            predictions[mention.doc].append(Prediction(mention.start, mention.end, answer, unreadable))
        for doc, predicted in zip(docs, predictions, strict=True):
            discarded = [ent for ent in doc.ents if ent.label_ in settings.labels_discard and self._is_open(ent)]
            predicted += [Prediction(ent.start, ent.end, _DISCARDED) for ent in discarded]
            predicted.sort(key=lambda prediction: prediction.start)
        return predictions

    def set_annotations(self, docs: Iterable[Doc], predictions: Sequence[Sequence[Prediction]]) -> None:
        """Write predictions to the docs: ids to their tokens; candidates and the flag for an unreadable image beside.

        With `overwrite=False` a doc that keeps answers from its text alone keeps the flag too.
        """
        for doc, predicted in zip(docs, predictions, strict=True):
            keeps_answers = not all(map(self._is_open, doc.ents))
            flag_unreadable_image(doc, any(p.unreadable_image for p in predicted), keep=keeps_answers)
            rows, certificates, reasons = [], [], []
            for prediction in predicted:
                span = doc[prediction.start : prediction.end]
                kb_id = answer_id(prediction.answer, self.settings.threshold)
                for token in span:  # an id set on the spans of doc.ents would not stay
                    if self.settings.overwrite or not token.ent_kb_id:
                        token.ent_kb_id_ = kb_id
                rows.append(to_row(span.start_char, span.end_char, prediction.answer.candidates))
                if prediction.answer.certificate is not None:
                    certificates.append(certificate_row(span.start_char, span.end_char, prediction.answer.certificate))
                if prediction.answer.reason is not None:
                    reasons.append([span.start_char, span.end_char, prediction.answer.reason])
            write_rows(doc, rows, certificates, keep_others=not self.settings.overwrite)
            write_reasons(doc, reasons)

    def _is_open(self, ent: Span) -> bool:
        """Whether an entity gets an id; without `overwrite` it keeps the one that it has."""
        return self.settings.overwrite or not ent.kb_id_

    def entities_to_link(self, docs: Iterable[Doc]) -> list[list[Span]]:
        """The entities of each doc that are searched: not those that keep their id, nor those of a discarded label."""
        discarded = self.settings.labels_discard
        return [[ent for ent in doc.ents if ent.label_ not in discarded and self._is_open(ent)] for doc in docs]

    def mentions_of(self, ents: Sequence[Sequence[Span]], examples: Sequence[Example] | None = None) -> list[Mention]:
        """The mentions of each doc's entities; predicted docs of examples have what the gold docs lack, and vectors."""
        predicted = None
        spans: Sequence[Sequence[Span | None]] = ents
        if examples is not None:
            predicted = [example.predicted for example in examples]
            pairs = zip(examples, ents, strict=True)
            spans = [[aligned_span(example, ent, example.predicted) for ent in row] for example, row in pairs]
        vectors = read_batch(spans, self, self.name) if self.retriever.wants_vectors else None
        reader = self._reader if self.settings.use_image else None
        mentions = gather_mentions(ents, reader, self.settings, predicted, vectors)
        if self.get_candidates is None:
            return mentions
        ids = [
            tuple(str(getattr(each, "entity_", each)) for each in self.get_candidates(self.kb, ent))
            for row in ents
            for ent in row
        ]
        return [replace(mention, candidate_ids=candidates) for mention, candidates in zip(mentions, ids, strict=True)]

    # Serialization

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Save the pipe: mapper, demonstrations, knowledge base, and with bundle_models the frozen models.

        Files of the knowledge base and of bundled models are hard-linked if the file system allows it. Raises KBError
        or ValueError, before anything is written, if their folders no longer hold what was loaded.
        """
        exclude = tuple(exclude)
        with model_lock():  # what another thread loads or adds meanwhile is saved as a whole or not at all
            self._state(exclude).to_disk(path, self.vocab, exclude)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "GemelLinker":
        """Load what `to_disk` saved, and the frozen models.

        Raises OSError or ValueError if a file or a model is missing or damaged; only the vocab may have changed then.
        """
        self._take_over(serialization.read_folder(path, self.vocab, tuple(exclude), self.name, verify=self.verify))
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """All that `to_disk` saves, as bytes. Raises what it raises."""
        exclude = tuple(exclude)
        with model_lock():
            return self._state(exclude).to_bytes(self.vocab, exclude)

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> "GemelLinker":
        """Load what `to_bytes` gave, and the frozen models. Raises ValueError for other bytes."""
        with serialization.read_bytes(bytes_data, self.vocab, tuple(exclude), self.name, verify=self.verify) as state:
            self._take_over(state)
        return self

    def reload(self) -> None:
        """Load the frozen models anew, and forget all that is cached of docs."""
        self._take_over(serialization.LinkerState())

    def _state(self, exclude: Container[str]) -> serialization.LinkerState:
        state = serialization.LinkerState()
        if "kb" not in exclude:
            self.kb.check_in_place()
            state.kb = self.kb
        if "models" not in exclude:
            models = self.frozen_models if self.bundle_models else {}
            state.models = {part: (frozen, self.folders.get(part)) for part, frozen in models.items()}
            loaded = {
                "language_model": getattr(self._linking_model, "language_model", None),
                "vision_encoder": getattr(self._reader, "encoder", None),
                "retriever": getattr(self.retriever, "loaded", None),  # anybody may register a retriever
            }
            for part, (frozen, folder) in state.models.items():
                if isinstance(frozen, FrozenModel):  # one of another kind checks itself when it bundles
                    frozen.check_in_place(loaded[part], folder)
        if "cfg" not in exclude:
            # a bundle is to be shipped: no folder of this machine goes with it
            sources = {} if self.bundle_models else self._sources()
            state.cfg = serialization.settings_to_json(self.settings, self.config_settings, sources)
        if "model" not in exclude:
            state.mapper = self.model.to_bytes()
        if "demonstrations" not in exclude:
            state.store = self.store
        if "decision" not in exclude:
            state.decision, state.has_decision = self._decision, True
        if "added" not in exclude:
            state.added = self.kb.added.entities
        return state

    def _sources(self) -> dict[str, tuple[str, Path]]:
        sources = {}
        for part, frozen in self.frozen_models.items():
            source = Path(frozen.source(self.folders.get(part)))
            if source.is_absolute():  # no name on a hub
                sources[part] = (frozen.name, source)
        if self.image_features is not None and self.feature_folder is not None:
            sources["image_features"] = (self.image_features, self.feature_folder.resolve())
        return sources

    def _take_over(self, state: serialization.LinkerState) -> None:
        """Work with a saved state, and load the frozen models; what the state lacks stays. All of it or nothing."""
        with model_lock():  # another thread links with all of the old state or all of the new one
            kb = self._kb if state.kb is None else state.kb
            if kb is None:
                raise ValueError(
                    f"{self.name}: loaded without a knowledge base: 'kb' was excluded or is not in what was saved, and "
                    "the pipe has none of its own. Give it one before it is loaded, such as set_kb(lambda vocab: "
                    "KnowledgeBase.open(folder)), or load it with the saved one."
                )
            current = () if self._kb is None else self._kb.added.entities
            added = current if state.added is None else state.added
            settings, folders, mapper = self._settings, dict(self.folders), self.model
            decision = state.decision if state.has_decision else self._decision
            store = self.store if state.store is None else state.store
            if (cfg := state.cfg) is not None:
                settings, sources = serialization.settings_from_json(cfg, self.config_settings, self.name)
                names = {part: frozen.name for part, frozen in self.frozen_models.items()}
                names["image_features"] = self.image_features or ""
                unchanged = {part: folder for part, (name, folder) in sources.items() if names.get(part) == name}
                folders = {part: folder for part, folder in unchanged.items() if folder.exists()}
            self._check_decision(settings, decision)
            self._check_retriever(settings)
            if (bundle := state.models_folder) is not None:
                bundled = [part for part, frozen in self.frozen_models.items() if frozen.is_bundled(bundle / part)]
                folders |= {part: bundle / part for part in bundled}
            if (weights := state.mapper) is not None:
                mapper = serialization.parse(self.name, "model", lambda: self.model.copy().from_bytes(weights))
            try:
                language_model, reader = self._load_models(kb, settings, folders, training=False)
                if settings.use_image:  # for text alone neither mapper nor pictures are used
                    length = self.model.attrs["prefix_length"]
                    serialization.check_fit(self.name, mapper, length, language_model, reader.encoder, store)
                kb = kb.without_added()
                new = [entity for entity in added if entity.kb_id not in kb]
                self._assemble(kb.with_added(new, language_model.tokenizer), language_model, reader, store)
            except BaseException:
                with suppress(Exception):  # back to the encoder that made its vectors; it is in memory
                    self.retriever.load(str(get_torch_default_device()), self.folders.get("retriever"))
                raise
            self._settings, self.folders = settings, folders
            self._decision = self.linking_model.decision = decision
            self._folder_owners = [folder_owner(folder) for folder in folders.values()]
            if weights is not None:
                self.model.from_bytes(weights)
        self._warn_unused_settings()


_EXPECTED = {
    "language_model": "a language model, such as @misc = spacy_gemel.CausalLM.v1",
    "vision_encoder": "a vision encoder, such as @misc = spacy_gemel.OpenCLIP.v1 or spacy_gemel.HuggingFaceVision.v1",
    "retriever": "a retriever, such as @misc = spacy_gemel.SentenceTransformerRetriever.v1, BM25Retriever, "
    "TransformerRetriever, RandomRetriever or NoRetriever (which shows no demonstrations)",
}
# Parts are known by what they have, not by their classes: anybody may register their own.
_FROZEN = ("name", "what", "settings", "source", "load", "bundle", "is_bundled")
_RETRIEVER = ("frozen", "wants_vectors", "load", "index", "prepare", "rank")
_KINDS = ("language model", "vision encoder", "sentence encoder")


def _check_part(name: str, part: str, value: Any) -> None:
    """Raise ValueError if a block of the config is not what the part of the pipe must be."""
    message = f"[components.{name}.{part}] must be {_EXPECTED[part]}, not "
    if value is None or isinstance(value, (str, int, float, list, dict)):
        raise ValueError(f"{message}{value!r}.")
    if isinstance(value, FrozenModel) and value.what in _KINDS and value.what != part.replace("_", " "):
        raise ValueError(f"{message}the {value.what} {value.name!r}.")
    missing = [name for name in (_RETRIEVER if part == "retriever" else _FROZEN) if not hasattr(value, name)]
    if missing:
        raise ValueError(f"{message}{type(value).__name__}, which lacks {', '.join(missing)}.")


FEATURES = {
    "score": "ScoreFeature",
    "demonstrated": "DemonstratedFeature",
    "prior": "PriorFeature",
    "surface": "SurfaceFeature",
    "name_share": "NameShareFeature",
    "length": "LengthFeature",
    "description": "DescriptionFeature",
    "picture": "PictureFeature",
    "agreement": "AgreementFeature",
}
"""What a fitted decision weighs. Not NameProbabilityFeature, which needs the exact search, nor
ImageDescriptionFeature, which needs a CLIP's text tower."""

DEFAULT_CONFIG = {
    **default_config(),
    "bundle_models": False,
    "image_features": None,
    "verify": False,
    "get_candidates": None,
    "model": {"@architectures": "spacy_gemel.LinearMapper.v1", "prefix_length": 4},
    "language_model": {"@misc": "spacy_gemel.CausalLM.v1", "name": "meta-llama/Llama-2-7b-hf"},
    "vision_encoder": {"@misc": "spacy_gemel.OpenCLIP.v1", "name": "ViT-L-14-quickgelu", "pretrained": "openai"},
    "retriever": {
        "@misc": "spacy_gemel.SentenceTransformerRetriever.v1",
        "name": "princeton-nlp/sup-simcse-roberta-large",
    },
    "features": {name: {"@misc": f"spacy_gemel.{feature}.v1"} for name, feature in FEATURES.items()},
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
    features: dict[str, Any],
    get_candidates: Callable[..., Any] | None,
    bundle_models: bool,
    image_features: str | None,
    verify: bool,
    scorer: Callable[..., Any] | None,
    **settings: Any,
) -> GemelLinker:
    """Make the pipe `gemel_linker`: GEMEL (Shi et al. 2024, arXiv 2306.12725), and what its settings add.

    See docs/settings.md for the keys of the config, LinkerSettings for `settings`, and spacy_gemel.registry for the
    models, retrievers and features. `get_candidates` is called with the knowledge base and an entity's span, as spaCy's
    entity_linker does, and gives the ids, or objects with `entity_`, that the span may mean. A feature that is None is
    left out, which a config says by null, as spaCy adds the defaults that it does not name. With `bundle_models` the
    pipe works without the frozen models' own folders. `image_features` is a folder that `encode-images` wrote; it only
    saves time. With `verify` all bytes of the knowledge base and of bundled models are compared with their checksums
    when a saved pipe is loaded; those of the smaller parts always are.
    """
    models = {"language_model": language_model, "vision_encoder": vision_encoder, "retriever": retriever}
    options: dict[str, Any] = {"bundle_models": bundle_models, "image_features": image_features, "verify": verify}
    options |= {
        "features": [each for each in features.values() if each is not None],
        "get_candidates": get_candidates,
        "scorer": scorer,
    }
    return GemelLinker(nlp.vocab, model, name, settings=LinkerSettings(**settings), **models, **options)
