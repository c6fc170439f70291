"""The registered pipe `gemel_linker`: spaCy's contract around the stages."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from spacy import util
from spacy.language import Language
from spacy.pipeline import TrainablePipe
from spacy.tokens import Doc
from spacy.training import Example, validate_examples, validate_get_examples
from spacy.vocab import Vocab
from thinc.api import Config, Model, Optimizer, get_torch_default_device, set_dropout_rate
from thinc.types import Floats2d

from spacy_gemel.candidates import CANDIDATES_KEY, Candidate, decide, install_extension, to_row
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

DEFAULT_CONFIG = Config().from_str(
    """
    [gemel_linker]
    beam_size = 5
    n_candidates = 5
    max_name_tokens = 32
    name_end = "newline"
    n_demonstrations = 16
    n_training_demonstrations = null
    threshold = null
    use_image = true
    constrained = true
    batch_tokens = 8192
    bundle_models = false

    [gemel_linker.model]
    @architectures = "spacy_gemel.LinearMapper.v1"
    prefix_length = 4

    [gemel_linker.language_model]
    @misc = "spacy_gemel.CausalLM.v1"
    name = "meta-llama/Llama-2-7b-hf"

    [gemel_linker.vision_encoder]
    @misc = "spacy_gemel.OpenCLIP.v1"
    name = "ViT-L-14-quickgelu"
    pretrained = "openai"

    [gemel_linker.retriever]
    @misc = "spacy_gemel.SentenceTransformerRetriever.v1"
    name = "princeton-nlp/sup-simcse-roberta-large"

    [gemel_linker.scorer]
    @scorers = "spacy_gemel.linker_scorer.v1"
    """
)["gemel_linker"]


@Language.factory(
    "gemel_linker",
    requires=["doc.ents", "token.ent_iob", "token.ent_type"],
    assigns=["token.ent_kb_id"],
    default_config=DEFAULT_CONFIG,
    default_score_weights={"nel_micro_f": 1.0, "nel_micro_r": None, "nel_micro_p": None},
)
def make_gemel_linker(
    nlp: Language,
    name: str,
    model: Model[Any, Any],
    language_model: Any,
    vision_encoder: Any,
    retriever: Any,
    beam_size: int,
    n_candidates: int,
    max_name_tokens: int,
    name_end: Literal["newline", "eos"],
    n_demonstrations: int,
    n_training_demonstrations: int | None,
    threshold: float | None,
    use_image: bool,
    constrained: bool,
    batch_tokens: int,
    bundle_models: bool,
    scorer: Callable[..., Any] | None,
) -> "GemelLinker":
    """Make the pipe `gemel_linker`.

    model: the mapper, the only part that is trained.
    language_model, vision_encoder: frozen models, named; see spacy_gemel.registry.
    retriever: chooses the demonstrations.
    beam_size: beams of the search (the paper's 5).
    n_candidates: names to find for each mention, at most beam_size; entities that share a name all count.
    max_name_tokens: longest name, in tokens without its end (the paper's 32).
    name_end: what ends a name: "newline", as in a demonstration, or "eos", as in the paper.
    n_demonstrations: training examples shown in a prompt (the paper's 16).
    n_training_demonstrations: how many of them are shown while the mapper learns, if there are so many; null for
        all, as in the paper. Fewer make a step cheaper.
    threshold: a mention whose best candidate's probability is below it gets "NIL"; null for never.
    use_image: false to link from the text alone.
    constrained: false to let the model say anything; what is no entity's name exactly is then "NIL".
    batch_tokens: prompt tokens that go through the language model at once, padding counted.
    bundle_models: save the frozen models inside the pipe, so that it works where they are not.
    """
    settings = Settings(
        beam_size=beam_size,
        n_candidates=n_candidates,
        max_name_tokens=max_name_tokens,
        name_end=name_end,
        n_demonstrations=n_demonstrations,
        n_training_demonstrations=n_training_demonstrations,
        threshold=threshold,
        use_image=use_image,
        constrained=constrained,
        batch_tokens=batch_tokens,
    )
    return GemelLinker(
        nlp.vocab,
        model,
        name,
        language_model=language_model,
        vision_encoder=vision_encoder,
        retriever=retriever,
        settings=settings,
        bundle_models=bundle_models,
        scorer=scorer,
    )


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
        self.scorer = scorer
        self.store = DemonstrationStore()
        self._stages: Stages | None = None
        self._reader: FeatureReader | None = None
        # Where the frozen models were loaded from, if the pipe was loaded from disk: {part: folder}.
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
        """What the prompt of a span shows, least similar first."""
        places = self.stages.demonstrations(span.text, doc.text)
        return [self.store[place] for place in reversed(places)]

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
        language_model = self._load_models(kb)
        assert self._reader is not None
        self.store = collect_demonstrations(examples, golds, kb, self._reader)
        self.model.set_dim("nI", self._reader.encoder.width)
        self.model.set_dim("nO", self.model.attrs["prefix_length"] * language_model.width)
        self.model.initialize()
        sample = self.model.ops.asarray2f(cast(Floats2d, self.store.features[:_SCALE_SAMPLE]))
        start_at_the_size_of_words(self.model, sample, language_model.embedding_size)
        self._assemble(kb, language_model)

    def _load_models(self, kb: "KnowledgeBase") -> Any:
        """Load the frozen models; returns the language model, whose tokenizer must be the knowledge base's."""
        from spacy_gemel.frozen import one_thread_in_forks
        from spacy_gemel.vision.features import FeatureReader

        one_thread_in_forks()
        device = str(get_torch_default_device())
        # The largest last, so that a small one that is missing is said first.
        self.retriever.load(device, self.folders.get("retriever"))
        self._reader = FeatureReader(self.vision_encoder.load(device, self.folders.get("vision_encoder")))
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

    # Prediction

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
            doc.user_data.pop(CANDIDATES_KEY, None)
            if rows:
                doc.user_data[CANDIDATES_KEY] = rows

    def _image_reader(self) -> "FeatureReader | None":
        return self._reader if self.settings.use_image else None

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

        util.from_disk(path, saving.disk_readers(self, Path(path), tuple(exclude)), exclude)
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """All that `to_disk` saves, as bytes."""
        from spacy_gemel import saving

        return util.to_bytes(saving.bytes_writers(self, tuple(exclude)), exclude)

    def from_bytes(self, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> "GemelLinker":
        """Load what `to_bytes` gave, and the frozen models."""
        from spacy_gemel import saving

        util.from_bytes(bytes_data, saving.bytes_readers(self, tuple(exclude)), exclude)
        return self

    def load_parts(self, kb: "KnowledgeBase") -> None:
        """Load the frozen models and make the stages; the last step of loading a saved pipe."""
        self._assemble(kb, self._load_models(kb))
