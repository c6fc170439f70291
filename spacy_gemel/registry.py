"""The registered functions that a config names.

Importing this module is cheap, as every `spacy.blank` may do so: each function imports what it needs.
To add a model, an encoder or a retriever, add one function here and its entry point to setup.py.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from spacy_gemel.models.frozen import FrozenModel, is_gguf
from spacy_gemel.utils.files import resolve

if TYPE_CHECKING:
    from spacy.vocab import Vocab

    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.linking import retrievers
    from spacy_gemel.linking.alignment import Alignment
    from spacy_gemel.linking.features import Feature
    from spacy_gemel.models.causal_lm import CausalLM
    from spacy_gemel.models.sentence_encoder import SentenceEncoder
    from spacy_gemel.models.vision_encoder import VisionEncoder

_MODELS = "spacy_gemel.models"
_SNAPSHOT = f"{_MODELS}.frozen:link_snapshot"


def causal_lm(
    name: str,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    bos: bool = False,
    quantization: str | None = None,
) -> "FrozenModel[CausalLM]":
    """spacy_gemel.CausalLM.v1: any causal language model of transformers.

    Args:
        name: its name on the hub, a folder, or a GGUF file (needs the extra "gguf"), whose weights are dequantised when
            they load. A bundle of a GGUF file holds safetensors in `dtype`.
        revision: its revision on the hub.
        device: where it runs; null for spaCy's default.
        dtype: "float32" (also null), "bfloat16" or "float16".
        bos: start each prompt with BOS (the paper does not).
        quantization: "8bit" or "4bit" to quantize the linear layers by bitsandbytes while they load (dtype null then
            means float16 or bfloat16), or null. A bundle holds the unquantized model.
    """
    settings = (("revision", revision), ("dtype", dtype), ("bos", bos), ("quantization", quantization))
    loader, bundler = f"{_MODELS}.causal_lm:load_causal_lm", f"{_MODELS}.causal_lm:save_gguf"
    return FrozenModel("language model", loader, bundler if is_gguf(name) else _SNAPSHOT, name, device, settings)


def open_clip_encoder(
    name: str,
    pretrained: str | None = None,
    projection: bool = False,
    revision: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    text: bool = False,
) -> "FrozenModel[VisionEncoder]":
    """spacy_gemel.OpenCLIP.v1: a CLIP of open_clip by its name and the tag of its weights, or by its folder.

    With `projection` false the features are the pooled hidden state before CLIP's projection (the paper's), with true
    the projection. A SigLIP has no projection: both are the same. A tower without such a state is refused when it is
    loaded. `revision` must be null, as open_clip names weights by their tag; device and dtype are as in `causal_lm`.
    `text` keeps the text tower, which ImageDescriptionFeature needs.
    """
    if revision is not None:
        raise ValueError("vision_encoder: open_clip has no revisions: name the weights by `pretrained`.")
    settings = (("pretrained", pretrained), ("projection", projection), ("dtype", dtype), ("text", text))
    loader, bundler = f"{_MODELS}.open_clip:load_open_clip", f"{_MODELS}.open_clip:bundle_open_clip"
    return FrozenModel("vision encoder", loader, bundler, name, device, settings)


def hugging_face_vision(
    name: str, revision: str | None = None, device: str | None = None, dtype: str | None = None
) -> "FrozenModel[VisionEncoder]":
    """spacy_gemel.HuggingFaceVision.v1: a vision encoder of transformers (ViT, BEiT, ResNet), also that of a CLIP.

    Its features are the pooled output, without one the CLS token's state, without either the mean over the patches.
    A model that has none of these, needs more than pixels, or is random in eval mode is refused when it is loaded.
    """
    settings = (("revision", revision), ("dtype", dtype))
    loader = f"{_MODELS}.vision_encoder:load_hugging_face_vision"
    return FrozenModel("vision encoder", loader, _SNAPSHOT, name, device, settings)


def no_retriever() -> "retrievers.NoRetriever":
    """spacy_gemel.NoRetriever.v1: no demonstrations."""
    from spacy_gemel.linking.retrievers import NoRetriever

    return NoRetriever()


def random_retriever(seed: int = 0) -> "retrievers.RandomRetriever":
    """spacy_gemel.RandomRetriever.v1: random demonstrations, the same ones for the same mention and text."""
    from spacy_gemel.linking.retrievers import RandomRetriever

    return RandomRetriever(seed)


def bm25_retriever() -> "retrievers.BM25Retriever":
    """spacy_gemel.BM25Retriever.v1: demonstrations by BM25 over mention strings."""
    from spacy_gemel.linking.retrievers import BM25Retriever

    return BM25Retriever()


def sentence_transformer_retriever(
    name: str, revision: str | None = None, device: str | None = None, pooling: str | None = None
) -> "retrievers.DenseRetriever":
    """spacy_gemel.SentenceTransformerRetriever.v1: demonstrations by the cosine of embedded mention strings.

    `pooling` is "pooler", "cls" or "mean"; null for the model's own pooling, or BERT's pooler output (as SimCSE's) if
    it has none. A model without pooler output, or without weights for it, needs "cls" or "mean".
    """
    from spacy_gemel.linking.retrievers import DenseRetriever

    loader = f"{_MODELS}.sentence_encoder:load_sentence_encoder"
    settings = (("revision", revision), ("pooling", pooling))
    frozen: FrozenModel[SentenceEncoder] = FrozenModel("sentence encoder", loader, _SNAPSHOT, name, device, settings)
    return DenseRetriever(frozen)


def transformer_retriever() -> "retrievers.TransformerRetriever":
    """spacy_gemel.TransformerRetriever.v1: demonstrations by the cosine of the pipeline's own transformer's vectors.

    A mention's vector is the mean over its wordpieces in `doc._.trf_data`, from spacy-transformers or
    spacy-curated-transformers. The transformer comes before the linker, and its weights must not change once the
    linker is trained: list it in frozen_components and annotating_components.
    """
    from spacy_gemel.linking.retrievers import TransformerRetriever

    return TransformerRetriever()


def _feature(name: str) -> "Callable[[], Feature]":
    """spacy_gemel.NAME.v1: a feature of the decision; its class says what it computes."""

    def make() -> "Feature":
        from spacy_gemel.linking import features

        feature: Feature = getattr(features, name)()
        return feature

    return make


score_feature = _feature("ScoreFeature")
name_probability_feature = _feature("NameProbabilityFeature")
demonstrated_feature = _feature("DemonstratedFeature")
prior_feature = _feature("PriorFeature")
surface_feature = _feature("SurfaceFeature")
name_share_feature = _feature("NameShareFeature")
length_feature = _feature("LengthFeature")
description_feature = _feature("DescriptionFeature")
image_description_feature = _feature("ImageDescriptionFeature")
picture_feature = _feature("PictureFeature")
agreement_feature = _feature("AgreementFeature")


def alignment(
    passes: int = 10, batch_size: int = 16, rate: float = 0.001, copies: int = 6, noise: float = 0.5
) -> "Alignment":
    """spacy_gemel.Alignment.v1: how the mapper learns image -> name before it is trained with demonstrations.

    For [initialize.components.gemel_linker.alignment]. See `Alignment` for the values.
    """
    from spacy_gemel.linking.alignment import Alignment

    return Alignment(passes, batch_size, rate, copies, noise)


def kb_from_disk(path: str, verify: bool = False) -> "Callable[[Vocab], KnowledgeBase]":
    """spacy_gemel.KBFromDisk.v1: the knowledge base that `build-kb` wrote; `verify` reads it all for changed bytes."""

    def load(vocab: "Vocab") -> "KnowledgeBase":
        from spacy_gemel.kb.knowledge_base import KnowledgeBase

        return KnowledgeBase.open(resolve(path), verify=verify)

    return load


def kb_from_hub(repo: str, revision: str | None = None, verify: bool = False) -> "Callable[[Vocab], KnowledgeBase]":
    """spacy_gemel.KBFromHub.v1: a knowledge base that `build-kb` wrote, out of a repository of the Hugging Face Hub.

    Args:
        repo: ORG/NAME, a model repository with the knowledge base's files at its top.
        revision: A branch, a tag or, so that it never changes, a commit; null for main.
        verify: Read it all for changed bytes.
    """

    def load(vocab: "Vocab") -> "KnowledgeBase":
        from spacy_gemel.kb.hub import open_hub_kb

        return open_hub_kb(repo, revision, verify=verify)

    return load


def kb_from_lookup_kb(
    path: str, folder: str, tokenizer: str, names: str = "alias", revision: str | None = None, max_name_tokens: int = 32
) -> "Callable[[Vocab], KnowledgeBase]":
    """spacy_gemel.KBFromLookupKB.v1: our knowledge base, built from spaCy's InMemoryLookupKB when it is loaded.

    `path` is what InMemoryLookupKB.to_disk wrote, or the folder of an entity_linker in a saved pipeline; `folder` is
    where ours is built and used again until its source changes. `tokenizer` and `revision` are the language model's
    name (or folder) and revision. `names` is "alias" for each entity's most probable alias, "id", or a file (CSV, JSON
    lines) with id and name; entities with a name of more than `max_name_tokens` are never predicted.
    """

    def load(vocab: "Vocab") -> "KnowledgeBase":
        from spacy_gemel.data.knowledge_bases.lookup_kb import open_lookup_kb

        return open_lookup_kb(path, folder, tokenizer, names, revision, max_name_tokens)

    return load
