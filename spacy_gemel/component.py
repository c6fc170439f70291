"""The pipe itself: spaCy's contract around the stages."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from spacy import util
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Model, Optimizer, get_torch_default_device, set_dropout_rate
from thinc.types import Floats2d

from spacy_gemel.candidates import Candidate, decide, install_extension, to_row, write_rows
from spacy_gemel.frozen import FrozenModel
from spacy_gemel.prompt.demonstrations import Demonstration, DemonstrationStore
from spacy_gemel.prompt.retrievers import Retriever
from spacy_gemel.settings import Settings
from spacy_gemel.vision.mapper import start_at_the_size_of_words

if TYPE_CHECKING:
    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.stages import Stages
    from spacy_gemel.vision.features import FeatureReader

_SCALE_SAMPLE = 1024


class GemelLinker(TrainablePipe):
    """Links `doc.ents` to a knowledge base from the text and from the image in `doc.user_data`.

    Writes `token.ent_kb_id_` and, for `span._.gemel_candidates`, `doc.user_data["gemel_candidates"]`.
    The frozen models load in `initialize` and `from_disk`.
    """

    NIL = "NIL"

    def __init__(
        self,
        vocab: Vocab,
        model: Model[Any, Any],
        name: str = "gemel_linker",
        *,
        language_model: FrozenModel[Any],
        vision_encoder: FrozenModel[Any],
        retriever: Retriever,
        settings: Settings,
        bundle_models: bool = False,
        image_features: str | None = None,
        scorer: Callable[..., Any] | None = None,
    ) -> None:
        self.vocab = vocab
        self.model = model
        self.name = name
        self.language_model = language_model
        self.vision_encoder = vision_encoder
        self.retriever = retriever
        self.settings = settings
        self.bundle_models = bundle_models
        self.image_features = image_features
        self.scorer = scorer
        self.store = DemonstrationStore()
        self._stages: Stages | None = None
        self._reader: FeatureReader | None = None
        # Where the frozen models and the image features lay, if the pipe was loaded from disk: {part: folder}.
        self.folders: dict[str, Path] = {}
        install_extension()

    # What others may ask and set

    @property
    def kb(self) -> "KnowledgeBase":
        """The knowledge base. Raises ValueError before the pipe is initialized."""
        return self.stages.kb

    @property
    def stages(self) -> "Stages":
        """The loaded parts. Raises ValueError before the pipe is initialized."""
        if self._stages is None:
            raise ValueError(
                f"{self.name}: not ready: nothing is loaded yet. Train the pipeline with `python -m spacy train`, "
                "or load a trained one with `spacy.load`."
            )
        return self._stages

    @property
    def training_golds(self) -> frozenset[str]:
        """The ids of the entities that stand in the training examples."""
        return frozenset(demonstration.kb_id for demonstration in self.store)

    def demonstrations_for(self, doc: Doc, span: Any) -> list[Demonstration]:
        """What the prompt of an entity of the doc shows, least similar first.

        Raises ValueError for a span that is not in doc.ents.
        """
        from spacy_gemel.gather import gather_mentions

        for mention in gather_mentions([doc], self._image_reader()):
            if (mention.start, mention.end) == (span.start, span.end):
                [prompt] = self.stages.prompts([mention])
                return [self.store[place] for place in prompt.demonstrations] if prompt else []
        raise ValueError(f"{self.name}: {span.text!r} is not among the doc's entities.")

    # Loading

    @property
    def frozen_models(self) -> dict[str, FrozenModel[Any]]:
        """The frozen models by their part in the pipe."""
        models = {"language_model": self.language_model, "vision_encoder": self.vision_encoder}
        if self.retriever.frozen is not None:
            models["retriever"] = self.retriever.frozen
        return models

    def initialize(
        self,
        get_examples: Callable[[], Iterable[Example]],
        *,
        nlp: Language | None = None,
        kb_loader: Callable[[Vocab], Any] | None = None,
    ) -> None:
        """Load the knowledge base and the frozen models, and take the training examples as demonstrations.

        kb_loader: spacy_gemel.KBFromDisk.v1.
        Raises ValueError, before any long work, where the knowledge base, a model or a usable example is missing.
        """
        from spacy_gemel.training import collect_demonstrations, gold_mentions

        validate_get_examples(get_examples, "GemelLinker.initialize")
        if kb_loader is None:
            raise ValueError(
                f"{self.name}: no knowledge base: add a block [initialize.components.{self.name}.kb_loader] with "
                '@misc = "spacy_gemel.KBFromDisk.v1" and path = the folder that `python -m spacy_gemel build-kb` '
                "wrote."
            )
        kb = kb_loader(self.vocab)
        for frozen in self.frozen_models.values():
            frozen.source()  # raises for a folder that is not there
        examples = list(get_examples())
        golds = gold_mentions(examples, kb, self.NIL, self.name)
        language_model = self._load_models(kb, new=True)
        assert self._reader is not None
        self.store = collect_demonstrations(examples, golds, kb, self._reader)
        self.model.set_dim("nI", self._reader.encoder.width)
        self.model.set_dim("nO", self.model.attrs["prefix_length"] * language_model.width)
        self.model.initialize()
        sample = self.model.ops.asarray2f(cast(Floats2d, self.store.features[:_SCALE_SAMPLE]))
        start_at_the_size_of_words(self.model, sample, language_model.embedding_size)
        self._assemble(kb, language_model)

    def _load_models(self, kb: "KnowledgeBase", *, new: bool = False) -> Any:
        """Load the frozen models; returns the language model, whose tokenizer must be the knowledge base's.

        new: the pipe is being trained, so that image features that cannot be used are an error, not a warning.
        """
        from spacy_gemel.frozen import one_thread_in_forks
        from spacy_gemel.vision.features import FeatureReader
        from spacy_gemel.vision.stored import open_features

        one_thread_in_forks()
        device = str(get_torch_default_device())
        # The largest last, so that a small one that is missing is said first.
        self.retriever.load(device, self.folders.get("retriever"))
        encoder = self.vision_encoder.load(device, self.folders.get("vision_encoder"))
        last = self.folders.get("image_features")
        store = open_features(self.image_features, self.vision_encoder, encoder, last=last, strict=new)
        self._reader = FeatureReader(encoder, store=store)
        language_model = self.language_model.load(device, self.folders.get("language_model"))
        kb.check_tokenizer(language_model.tokenizer.fingerprint, self.language_model.name)
        return language_model

    def _assemble(self, kb: "KnowledgeBase", language_model: Any) -> None:
        from spacy_gemel.stages import Stages

        self._stages = Stages(self.model, kb, language_model, self.store, self.retriever, self.settings, self.NIL)

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
        """
        from spacy_gemel.training import usable_mentions

        losses = {} if losses is None else losses
        losses.setdefault(self.name, 0.0)
        examples = list(examples)
        validate_examples(examples, "GemelLinker.update")
        set_dropout_rate(self.model, drop)
        mentions, rows = usable_mentions(examples, self.kb, self.NIL, self._image_reader())
        if not mentions:
            return losses
        values = self.stages.learn(mentions, rows)
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
        `spacy evaluate`.
        """
        from spacy_gemel.evaluation.scorer import check_scorable
        from spacy_gemel.golds import gold_row

        if self.scorer is None:
            return {}
        examples = list(examples)
        check_scorable(examples, name=self.name, use_image=self.settings.use_image)

        def resolve(gold: str) -> str:
            row = gold_row(self.kb, gold)
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
        from spacy_gemel.gather import encode_pil_images, gather_mentions

        docs = list(docs)
        encode_pil_images(docs)
        found: list[list[tuple[int, int, list[Candidate]]]] = [[] for _ in docs]
        if not any(len(doc.ents) for doc in docs):
            return found
        stages = self.stages
        mentions = gather_mentions(docs, self._image_reader())
        for mention, candidates in zip(mentions, stages.link(mentions), strict=True):
            found[mention.doc].append((mention.start, mention.end, candidates))
        return found

    def set_annotations(
        self, docs: Iterable[Doc], scores: Sequence[Sequence[tuple[int, int, list[Candidate]]]]
    ) -> None:
        """Write what `predict` found on the docs' tokens and in their user_data."""
        for doc, linked in zip(docs, scores, strict=True):
            rows = []
            for start, end, candidates in linked:
                span = doc[start:end]
                kb_id = decide(candidates, self.settings.threshold, self.NIL)
                for token in span:  # an id set on the spans of doc.ents would not stay
                    token.ent_kb_id_ = kb_id
                rows.append(to_row(span.start_char, span.end_char, candidates))
            write_rows(doc, rows)

    def _image_reader(self) -> "FeatureReader | None":
        return self._reader if self.settings.use_image else None

    @property
    def feature_folder(self) -> Path | None:
        """The folder of the image features that are in use, or None."""
        store = None if self._reader is None else self._reader.store
        return None if store is None else store.path

    # Saving

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Save the pipe: mapper, demonstrations, knowledge base, and with bundle_models the frozen models.

        Files of the knowledge base and of bundled models are hard-linked where the file system allows it.
        """
        from spacy_gemel import saving

        util.to_disk(path, saving.disk_writers(self, tuple(exclude)), exclude)

    def from_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> "GemelLinker":
        """Load what `to_disk` saved, and the frozen models. Raises ValueError if a model is not there."""
        from spacy_gemel import saving

        readers, load = saving.disk_readers(self, tuple(exclude))
        util.from_disk(path, readers, exclude)
        load()
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """All that `to_disk` saves, as bytes."""
        from spacy_gemel import saving

        return util.to_bytes(saving.bytes_writers(self, tuple(exclude)), exclude)

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> "GemelLinker":
        """Load what `to_bytes` gave, and the frozen models."""
        from spacy_gemel import saving

        readers, load = saving.bytes_readers(self, tuple(exclude))
        util.from_bytes(bytes_data, readers, exclude)
        load()
        return self

    def load_parts(self, kb: "KnowledgeBase") -> None:
        """Load the frozen models and make the stages; the last step of loading a saved pipe."""
        self._assemble(kb, self._load_models(kb))
