"""Captions with one mention each, and an initialized pipeline that links them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy import util
from spacy.tokens import Span
from spacy.training import Example
from thinc.api import Config, fix_random_seed

from research.mini_world import CONFIG, ROOT

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

    from spacy_gemel.pipeline.gemel_linker import GemelLinker

LINKER = "gemel_linker"


@dataclass(frozen=True, slots=True)
class Caption:
    """A text with one mention, text[start:end], its gold and the path of its picture, or None."""

    text: str
    start: int
    end: int
    kb_id: str
    image: str | None = None


@dataclass(frozen=True, slots=True)
class ModelPaths:
    """Where a pipeline's frozen models and its knowledge base lie."""

    language_model: Path
    vision_encoder: Path
    sentence_encoder: Path
    kb: Path
    dtype: str | None = None


def docs_of(nlp: "Language", captions: Sequence[Caption], *, gold: bool = False) -> "list[Doc]":
    """A new doc for each caption with its mention, and with its gold if `gold`."""
    docs = []
    for caption in captions:
        doc = nlp.make_doc(caption.text)
        span = doc.char_span(caption.start, caption.end, label="ENT", alignment_mode="expand")
        assert span is not None
        doc.ents = (Span(doc, span.start, span.end, label="ENT", kb_id=caption.kb_id if gold else ""),)
        if caption.image is not None:
            doc.user_data["image"] = caption.image
        docs.append(doc)
    return docs


def make_pipeline(
    paths: ModelPaths, examples: Sequence[Caption], n_demonstrations: int, *, seed: int = 0, **settings: Any
) -> "Language":
    """A pipeline with changed settings of configs/mini.cfg, ready to link; its mapper is untrained."""
    config = Config().from_disk(ROOT / CONFIG, interpolate=False)
    linker = config["components"][LINKER]
    linker |= {"n_demonstrations": n_demonstrations, "bundle_models": False, **settings}
    linker["language_model"] |= {"name": str(paths.language_model), "dtype": paths.dtype}
    linker["vision_encoder"]["name"] = str(paths.vision_encoder)
    if not (paths.vision_encoder / "open_clip_config.json").is_file():
        linker["vision_encoder"]["@misc"] = "spacy_gemel.HuggingFaceVision.v1"
    linker["retriever"]["name"] = str(paths.sentence_encoder)
    config["paths"]["kb"] = str(paths.kb)
    fix_random_seed(seed)
    nlp = util.load_model_from_config(config.interpolate(), auto_fill=True)
    gold_docs = docs_of(nlp, examples, gold=True)
    nlp.initialize(lambda: [Example(nlp.make_doc(doc.text), doc) for doc in gold_docs])
    return nlp


def linker_in(nlp: "Language") -> "GemelLinker":
    """The pipeline's linker."""
    pipe: Any = nlp.get_pipe(LINKER)
    return pipe
