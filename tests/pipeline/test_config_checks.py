"""A block of another kind in a pipe's config is told when the pipe is made; one's own kinds are taken."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy import registry
from spacy.language import Language

from spacy_gemel.linking.retrievers import FloatArray, Query
from spacy_gemel.registry import causal_lm
from tests.mini_pipeline import make_config, make_doc, make_kb, make_pipeline

CAUSAL_LM = {"@misc": "spacy_gemel.CausalLM.v1", "name": "gpt2"}
OPEN_CLIP = {"@misc": "spacy_gemel.OpenCLIP.v1", "name": "ViT-B-32"}
BM25 = {"@misc": "spacy_gemel.BM25Retriever.v1"}
DENSE = {"@misc": "spacy_gemel.SentenceTransformerRetriever.v1", "name": "x"}
LOADER = {"@misc": "spacy_gemel.KBFromDisk.v1", "path": "kb"}
ENTITY_LINKER = {
    "@architectures": "spacy.EntityLinker.v2",
    "nO": None,
    "tok2vec": {
        "@architectures": "spacy.HashEmbedCNN.v2",
        "pretrained_vectors": None,
        "width": 8,
        "depth": 1,
        "embed_size": 20,
        "window_size": 1,
        "maxout_pieces": 2,
        "subword_features": True,
    },
}

RETRIEVER = r"\[components\.mine\.retriever\] must be a retriever, such as .*NoRetriever .*, not "
LANGUAGE = (
    r"\[components\.mine\.language_model\] must be a language model, such as @misc = spacy_gemel\.CausalLM\.v1, not "
)
VISION = r"\[components\.mine\.vision_encoder\] must be a vision encoder, such as .*OpenCLIP\.v1.*, not "
MODEL = r"\[components\.mine\.model\] must be a mapper, such as .*LinearMapper\.v1, not "


@pytest.mark.parametrize(
    ("part", "block", "message"),
    [
        ("retriever", None, RETRIEVER + "None"),
        ("retriever", "bm25", RETRIEVER + "'bm25'"),
        ("retriever", CAUSAL_LM, RETRIEVER + "the language model 'gpt2'"),
        ("retriever", LOADER, RETRIEVER + "function, which lacks frozen, wants_vectors, load, index, prepare, rank"),
        ("language_model", "gpt2", LANGUAGE + "'gpt2'"),
        ("language_model", None, LANGUAGE + "None"),
        ("language_model", OPEN_CLIP, LANGUAGE + "the vision encoder 'ViT-B-32'"),
        ("language_model", BM25, LANGUAGE + "BM25Retriever, which lacks name"),
        ("vision_encoder", CAUSAL_LM, VISION + "the language model 'gpt2'"),
        ("vision_encoder", DENSE, VISION + "DenseRetriever, which lacks name"),
        ("model", ENTITY_LINKER, MODEL + "the model .*, whose attrs lack prefix_length"),
    ],
)
def test_a_block_of_another_kind(models: Path, part: str, block: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spacy.blank("en").add_pipe("gemel_linker", "mine", config=make_config(models, **{part: block}))


class OwnRetriever:
    """Shows the first demonstrations, whatever is asked; of no class of the package's."""

    frozen = None
    wants_vectors = False

    def load(self, device: str, folder: Path | None = None) -> None:
        self.device = device

    def index(self, mentions: Sequence[str], vectors: FloatArray | None = None) -> None:
        self.size = len(mentions)

    def prepare(self, queries: Sequence[Query], n: int) -> None:
        pass

    def rank(self, query: Query, n: int) -> list[int]:
        return list(range(min(n, self.size)))


class OwnLanguageModel:
    """Has what a frozen model has, and calls itself as it likes."""

    what = "model of my own"

    def __init__(self, name: str) -> None:
        self._frozen = causal_lm(name)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self.__dict__["_frozen"], attribute)


@pytest.fixture
def own(models: Path, tmp_path: Path) -> Language:
    registry.misc("tests.OwnRetriever.v1", func=OwnRetriever)
    registry.misc("tests.OwnLanguageModel.v1", func=OwnLanguageModel)
    return make_pipeline(
        models,
        make_kb(tmp_path, models),
        retriever={"@misc": "tests.OwnRetriever.v1"},
        language_model={"@misc": "tests.OwnLanguageModel.v1", "name": str(models / "language_model")},
    )


def test_ones_own_kinds_are_taken(own: Language, tmp_path: Path) -> None:
    own.to_disk(tmp_path / "saved")
    for nlp in (own, spacy.load(tmp_path / "saved")):
        pipe: Any = nlp.get_pipe("gemel_linker")
        doc = nlp(make_doc(nlp, "A photo of Mercury.", "Mercury"))
        assert doc.ents[0].kb_id_
        assert pipe.demonstrations_for(doc, doc.ents[0]) == list(reversed(list(pipe.store)[:3]))
