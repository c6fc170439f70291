"""What a linker is made of: frozen models by name, knowledge base, demonstrations; loaded, and made into stages."""

import warnings
from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy.tokens import Span
from spacy.vocab import Vocab
from thinc.api import Model, get_torch_default_device

from spacy_gemel.kb.resolve import NIL
from spacy_gemel.linking.demonstrations import DemonstrationStore
from spacy_gemel.linking.retrievers import Retriever
from spacy_gemel.linking.settings import LinkerSettings, unused_settings
from spacy_gemel.models.frozen import FrozenModel, model_lock, one_thread_in_forks
from spacy_gemel.pipeline.blocks import check_blocks
from spacy_gemel.utils.files import folder_owner
from spacy_gemel.utils.messages import UnusedSettingWarning, warn

if TYPE_CHECKING:
    from spacy_gemel.images.features import FeatureReader
    from spacy_gemel.kb.entity import Entity
    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.linking.mention import Mention
    from spacy_gemel.linking.model import LinkingModel
    from spacy_gemel.pipeline.trf_vectors import VectorReader

# Not KnowledgeBase: spaCy has pydantic look at what `initialize` takes, which must import nothing heavy.
KBLoader = Callable[[Vocab], Any]


def _setting(name: str) -> Any:
    """A setting as an attribute of the pipe, as spaCy's EntityLinker has it. Assigning goes through `configure`."""

    def read(pipe: "LinkerParts") -> Any:
        return getattr(pipe.settings, name)

    def write(pipe: "LinkerParts", value: Any) -> None:
        pipe.configure(**{name: value})

    return property(read, write, doc=f"See LinkerSettings.{name}.")


class LinkerParts:
    """The parts of a pipe. The frozen models load in the pipe's `initialize` and `from_disk`, not before.

    Raises ValueError for a part that is of another kind.
    """

    NIL = NIL

    def __init__(
        self,
        vocab: Vocab,
        model: Model[Any, Any],
        name: str,
        *,
        language_model: FrozenModel[Any],
        vision_encoder: FrozenModel[Any],
        retriever: Retriever,
        settings: LinkerSettings,
        bundle_models: bool,
        image_features: str | None,
    ) -> None:
        check_blocks(name, model, language_model, vision_encoder, retriever)
        self.vocab = vocab
        self.model = model
        self.name = name
        self.language_model = language_model
        self.vision_encoder = vision_encoder
        self.retriever = retriever
        self._settings = settings
        self.config_settings = settings  # as the config has them, whatever `configure` changes
        self.bundle_models = bundle_models
        self.image_features = image_features
        self.store = DemonstrationStore()
        self._kb: KnowledgeBase | None = None
        self._stages: LinkingModel | None = None
        self._reader: FeatureReader | None = None
        self._vector_reader: VectorReader | None = None
        self.folders = {}

    threshold = _setting("threshold")
    labels_discard = _setting("labels_discard")
    n_sents = _setting("n_sents")
    use_gold_ents = _setting("use_gold_ents")
    overwrite = _setting("overwrite")

    @property
    def settings(self) -> LinkerSettings:
        """The settings in force; `configure` changes them."""
        return self._settings

    def configure(self, **changes: Any) -> None:
        """Change settings by name, all of them or none, from the next doc on. They are saved with the pipe.

        Warns of settings that have no effect beside the others.

        Raises:
            ValueError: if a setting is unknown or a value makes no sense.
        """
        settings = self.settings.replace(**changes)
        if self._stages is not None:
            self._stages.language_model.tokenizer.end_id(settings.name_end)  # raises if the tokenizer has none
        unused = unused_settings(self.settings)
        self.use_settings(settings)
        self.warn_unused_settings({*changes} | {name for name in unused_settings(settings) if name not in unused})

    def use_settings(self, settings: LinkerSettings) -> None:
        """Work with these settings, without a warning."""
        self._settings = settings

    def warn_unused_settings(self, names: Container[str] | None = None) -> None:
        """Warn of settings that have no effect beside the others. names: of which; all if None."""
        for name, message in unused_settings(self.settings).items():
            if names is None or name in names:
                warn(f"{self.name}: {message}.", UnusedSettingWarning)

    @property
    def folders(self) -> dict[str, Path]:
        """Where the frozen models and the image features lay, if the pipe was loaded: {part: folder}."""
        return self._folders

    @folders.setter
    def folders(self, folders: dict[str, Path]) -> None:
        self._folders = folders
        self._unpacked = [folder_owner(folder) for folder in folders.values()]  # kept: they may be temporary ones

    @property
    def kb(self) -> "KnowledgeBase":
        """The knowledge base. Raises ValueError before the pipe is initialized or has been given one."""
        return self.stages.kb if self._kb is None else self._kb

    @property
    def has_kb(self) -> bool:
        """Whether there is a knowledge base yet."""
        return self._kb is not None

    @property
    def stages(self) -> "LinkingModel":
        """The loaded parts. Raises ValueError before the pipe is initialized."""
        if self._stages is None:
            raise ValueError(
                f"{self.name}: not ready: nothing is loaded yet. Train the pipeline with `python -m spacy train`, "
                "or load a trained one with `spacy.load`."
            )
        return self._stages

    @property
    def frozen_models(self) -> dict[str, FrozenModel[Any]]:
        """The frozen models by their part in the pipe."""
        models = {"language_model": self.language_model, "vision_encoder": self.vision_encoder}
        if self.retriever.frozen is not None:
            models["retriever"] = self.retriever.frozen
        return models

    @property
    def loaded_models(self) -> dict[str, object]:
        """What the frozen models are in memory, by their part; without what is not loaded, or is not told."""
        if self._stages is None or self._reader is None:
            return {}
        models: dict[str, object] = {
            "language_model": self._stages.language_model,
            "vision_encoder": self._reader.encoder,
        }
        encoder = getattr(self.retriever, "loaded", None)  # anybody may register a retriever
        return models if encoder is None else {**models, "retriever": encoder}

    def set_kb(self, kb_loader: KBLoader) -> None:
        """Link to another knowledge base from now on; mapper, demonstrations and added entities stay as they are.

        kb_loader: called with the pipe's vocab, such as spacy_gemel.KBFromDisk.v1.
        Raises KBError where it was built for another tokenizer than the language model's, ValueError for what is no
        such function, and for one that gives another kind of knowledge base.
        """
        kb = self.load_kb(kb_loader)
        with model_lock():  # the stages too, which may be others by the time that it comes
            if self._stages is None:
                self._kb = kb
                return
            tokenizer = self._stages.language_model.tokenizer
            kb.check_tokenizer(tokenizer.fingerprint, self.language_model.name)
            kept = [entity for entity in self.kb.added.entities if entity.kb_id not in kb]
            self.use_kb(kb.with_added(kept, tokenizer))

    def load_kb(self, kb_loader: KBLoader) -> "KnowledgeBase":
        """What a loader gives for the pipe's vocab. Raises ValueError for what is no loader or gives something else."""
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

    def validate_kb(self) -> None:
        """Raise ValueError where there is no knowledge base: an empty one cannot be built."""
        if self._kb is None:
            raise ValueError(
                f"{self.name}: no knowledge base: add a block [initialize.components.{self.name}.kb_loader] with "
                '@misc = "spacy_gemel.KBFromDisk.v1" and path = the folder that `python -m spacy_gemel build-kb` '
                "wrote, or call set_kb."
            )

    def load_models(self, kb: "KnowledgeBase", *, new: bool = False) -> "tuple[Any, FeatureReader]":
        """Load the frozen models: the language model, whose tokenizer must be the KB's, and what reads images.

        What the pipe works with stays as it was, until `assemble`.
        new: the pipe is being trained, so that image features that cannot be used are an error, not a warning.
        """
        from spacy_gemel.images.feature_store import open_features
        from spacy_gemel.images.features import FeatureReader

        one_thread_in_forks()
        device = str(get_torch_default_device())
        # The largest last, so that a small one that is missing is said first.
        self.retriever.load(device, self.folders.get("retriever"))
        encoder = self.vision_encoder.load(device, self.folders.get("vision_encoder"))
        last = self.folders.get("image_features")
        store = open_features(self.image_features, self.vision_encoder, encoder, last=last, strict=new)
        language_model = self.language_model.load(device, self.folders.get("language_model"))
        kb.check_tokenizer(language_model.tokenizer.fingerprint, self.language_model.name)
        language_model.tokenizer.end_id(self.settings.name_end)  # raises: before the training images are encoded
        return language_model, FeatureReader(encoder, store=store)

    def assemble(
        self, kb: "KnowledgeBase", language_model: Any, reader: "FeatureReader", store: DemonstrationStore
    ) -> None:
        """Put the loaded parts together as stages, and work with them from now on."""
        from spacy_gemel.linking.model import LinkingModel

        if self.retriever.wants_vectors and len(store) and store.vectors is None:
            warnings.warn(
                f"{self.name}: no demonstrations are shown: the pipe was trained with another retriever, and kept no "
                "vectors of their mentions. Train it again, or give it demonstrations by add_demonstrations.",
                stacklevel=2,
            )
        stages = LinkingModel(self.model, kb, language_model, store, self.retriever)
        self._kb, self._stages, self._reader, self.store = kb, stages, reader, store

    def use_kb(self, kb: "KnowledgeBase") -> None:
        """Link to this knowledge base; all else stays as it is."""
        self._kb = kb
        self.stages.use_kb(kb)

    def load_parts(
        self, kb: "KnowledgeBase", added: Iterable["Entity"] = (), mapper: Model[Any, Any] | None = None
    ) -> None:
        """Load the frozen models and make the stages; the last step of loading a saved pipe.

        added: entities that were added to the knowledge base when the pipe was saved. mapper: as it was saved;
        None for the one there is.
        Raises ValueError where mapper or demonstrations do not fit the models or the prefix_length that the config
        names.
        """
        with model_lock():
            language_model, reader = self.load_models(kb)
            self._check_fit(self.model if mapper is None else mapper, language_model, reader, self.store)
            entities = [entity for entity in added if entity.kb_id not in kb]
            self.assemble(kb.with_added(entities, language_model.tokenizer), language_model, reader, self.store)

    def _check_fit(
        self, mapper: Model[Any, Any], language_model: Any, reader: "FeatureReader", store: DemonstrationStore
    ) -> None:
        """Raise ValueError where mapper and demonstrations, as they were trained, do not fit what the config names.

        For text alone neither is used.
        """
        if not self.settings.use_image:
            return
        trained, wanted = mapper.attrs["prefix_length"], self.model.attrs["prefix_length"]
        if trained != wanted:
            raise self._unfit("model.prefix_length", f"prefix_length = {trained}, and the config says {wanted}")
        width = reader.encoder.width
        seen = {mapper.get_dim("nI")} if mapper.has_dim("nI") else set()
        if len(store.features):
            seen.add(store.features.shape[1])
        if seen - {width}:
            numbers = " and ".join(map(str, sorted(seen)))
            raise self._unfit("vision_encoder", f"images of {numbers} numbers each, and the one named gives {width}")
        if mapper.has_dim("nO") and mapper.get_dim("nO") != wanted * language_model.width:
            sizes = f"{mapper.get_dim('nO') / wanted:g} numbers, and the one named has {language_model.width}"
            raise self._unfit("language_model", f"embeddings of {sizes}")

    def _unfit(self, setting: str, problem: str) -> ValueError:
        return ValueError(
            f"{self.name}: what is loaded was trained with {problem}: leave components.{self.name}.{setting} as it was "
            "then, or train the pipe anew."
        )

    def _image_reader(self) -> "FeatureReader | None":
        return self._reader if self.settings.use_image else None

    @property
    def vector_reader(self) -> "VectorReader | None":
        """What reads the mentions' vectors from their docs; None where the retriever does not want them."""
        from spacy_gemel.pipeline.trf_vectors import VectorReader

        if self.retriever.wants_vectors and self._vector_reader is None:
            self._vector_reader = VectorReader(self.name)
        return self._vector_reader

    def gather(self, entities: "Sequence[Sequence[Span]]") -> "list[Mention]":
        """The mentions of the entities of each doc of a batch, with images and vectors where they are wanted."""
        from spacy_gemel.pipeline.mentions import gather_mentions

        vectors = None if self.vector_reader is None else self.vector_reader.read(entities)
        return gather_mentions(entities, self._image_reader(), self.settings, vectors=vectors)

    @property
    def feature_folder(self) -> Path | None:
        """The folder of the image features that are in use, or None."""
        store = None if self._reader is None else self._reader.store
        return None if store is None else store.path
