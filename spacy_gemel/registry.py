"""The registered functions that a config names. Light on purpose: every `spacy.blank` may import this module."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from spacy_gemel.linking.retrievers import (
    BM25Retriever,
    DenseRetriever,
    NoRetriever,
    RandomRetriever,
    TransformerRetriever,
)
from spacy_gemel.models.frozen import FrozenModel
from spacy_gemel.utils.files import resolve

if TYPE_CHECKING:
    from spacy.vocab import Vocab

    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.models.causal_lm import CausalLM
    from spacy_gemel.models.sentence_encoder import SentenceEncoder
    from spacy_gemel.models.vision_encoder import VisionEncoder

SNAPSHOT = "spacy_gemel.models.frozen:link_snapshot"


def causal_lm(
    name: str,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    bos: bool = False,
    quantization: str | None = None,
) -> "FrozenModel[CausalLM]":
    """spacy_gemel.CausalLM.v1: any causal language model of transformers, by hub name or folder.

    dtype: "float32" (also null), "bfloat16" or "float16". bos: start each prompt with BOS (the paper does not).
    quantization: "8bit" or "4bit" for linear layers quantized by bitsandbytes while they load (dtype null: float16 or
        bfloat16); null for none. A bundle holds the model as it was before.
    """
    return FrozenModel(
        "language model",
        "spacy_gemel.models.loading:load_causal_lm",
        SNAPSHOT,
        name,
        device,
        (("revision", revision), ("dtype", dtype), ("bos", bos), ("quantization", quantization)),
    )


def open_clip_encoder(
    name: str,
    pretrained: str | None = None,
    projection: bool = False,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> "FrozenModel[VisionEncoder]":
    """spacy_gemel.OpenCLIP.v1: a CLIP of open_clip by model name and tag, or a local folder.

    revision: must be null: open_clip's weights are told apart by their tag. Raises ValueError otherwise.

    projection: false for the pooled hidden state before CLIP's projection (the paper's), true for the projection.
        Either is the same for a SigLIP, which has none; a tower with no such state is refused when it is loaded.
    """
    if revision is not None:
        raise ValueError("vision_encoder: open_clip has no revisions: name the weights by `pretrained`.")
    return FrozenModel(
        "vision encoder",
        "spacy_gemel.models.vision_encoder:load_open_clip",
        "spacy_gemel.models.vision_encoder:bundle_open_clip",
        name,
        device,
        (("pretrained", pretrained), ("projection", projection), ("dtype", dtype)),
    )


def hugging_face_vision(
    name: str, revision: str | None = None, device: str | None = None, dtype: str | None = None
) -> "FrozenModel[VisionEncoder]":
    """spacy_gemel.HuggingFaceVision.v1: a vision encoder of transformers (ViT, BEiT, ResNet; of a CLIP its own).

    Its features are the pooled output, the CLS token's state without one, or the mean over the patches without either.
    A model that has none of these, wants more than pixels, or is random in eval mode is refused when it is loaded.
    """
    return FrozenModel(
        "vision encoder",
        "spacy_gemel.models.vision_encoder:load_hugging_face_vision",
        SNAPSHOT,
        name,
        device,
        (("revision", revision), ("dtype", dtype)),
    )


def no_retriever() -> NoRetriever:
    """spacy_gemel.NoRetriever.v1: no demonstrations."""
    return NoRetriever()


def random_retriever(seed: int = 0) -> RandomRetriever:
    """spacy_gemel.RandomRetriever.v1: demonstrations at random, the same ones for the same mention and text."""
    return RandomRetriever(seed)


def bm25_retriever() -> BM25Retriever:
    """spacy_gemel.BM25Retriever.v1: demonstrations by BM25 over mention strings."""
    return BM25Retriever()


def sentence_transformer_retriever(
    name: str, revision: str | None = None, device: str | None = None, pooling: str | None = None
) -> DenseRetriever:
    """spacy_gemel.SentenceTransformerRetriever.v1: demonstrations by the cosine of embedded mention strings.

    pooling: null for the model's own, or BERT's pooler output where it has none (as SimCSE's); or "pooler",
        "cls" or "mean". A model without pooler output, or without weights for it, is refused: it takes the last two.
    """
    frozen: FrozenModel[SentenceEncoder] = FrozenModel(
        "sentence encoder",
        "spacy_gemel.models.sentence_encoder:load_sentence_encoder",
        SNAPSHOT,
        name,
        device,
        (("revision", revision), ("pooling", pooling)),
    )
    return DenseRetriever(frozen)


def transformer_retriever() -> TransformerRetriever:
    """spacy_gemel.TransformerRetriever.v1: demonstrations by the cosine of the pipeline's own transformer's vectors.

    A mention's vector is the mean over its wordpieces in `doc._.trf_data`, of spacy-transformers or of
    spacy-curated-transformers. The transformer stands before the linker and is the same, with the same weights, while
    the linker is trained and ever after: name it in frozen_components and annotating_components.
    """
    return TransformerRetriever()


def kb_from_disk(path: str, verify: bool = False) -> "Callable[[Vocab], KnowledgeBase]":
    """spacy_gemel.KBFromDisk.v1: the knowledge base that `build-kb` wrote.

    verify: read all of it and refuse it if a byte has changed.
    """

    def load(vocab: "Vocab") -> "KnowledgeBase":
        from spacy_gemel.kb.knowledge_base import KnowledgeBase

        return KnowledgeBase.open(resolve(path), verify=verify)

    return load


def kb_from_lookup_kb(
    path: str,
    folder: str,
    tokenizer: str,
    names: str = "alias",
    revision: str | None = None,
    max_name_tokens: int = 32,
) -> "Callable[[Vocab], KnowledgeBase]":
    """spacy_gemel.KBFromLookupKB.v1: our knowledge base, made from spaCy's InMemoryLookupKB when it is loaded.

    path: what InMemoryLookupKB.to_disk wrote, or the folder of an entity_linker in a saved pipeline.
    folder: where it is built, and kept for the next time; it is built again once its source has changed.
    tokenizer, revision: the language model's name or folder, and its revision.
    names: "alias" for each entity's most probable alias, "id", or a file (CSV, JSON lines) with id and name.
    max_name_tokens: entities with a longer name are never answered.
    """

    def load(vocab: "Vocab") -> "KnowledgeBase":
        from spacy_gemel.data.knowledge_bases.lookup_kb import LookupSource, open_lookup_kb

        return open_lookup_kb(LookupSource(path, tokenizer, names, revision, max_name_tokens), folder)

    return load
