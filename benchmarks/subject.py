"""What is timed: captions with pictures, and an initialized pipeline that links them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy import util
from spacy.tokens import Span
from spacy.training import Example
from thinc.api import Config, fix_random_seed

from benchmarks.trials import CONFIG
from benchmarks.worlds import ROOT

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

    from spacy_gemel.pipeline.gemel_linker import GemelLinker

LINKER = "gemel_linker"


@dataclass(frozen=True, slots=True)
class Caption:
    """A text with one mention, text[start:end], its gold and its picture: a path, or None."""

    text: str
    start: int
    end: int
    kb_id: str
    image: str | None


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts of a pipeline lie: its frozen models and its knowledge base."""

    language_model: Path
    vision_encoder: Path
    sentence_encoder: Path
    kb: Path
    dtype: str | None = None


def read_captions(path: Path) -> list[Caption]:
    """The captions of a split of the mini world, or of any file that `convert jsonl` takes; one mention each."""
    captions = []
    for line in path.read_text(encoding="utf8").splitlines():
        row = json.loads(line)
        mention = row["mentions"][0]
        image = str(path.parent / row["image"]) if row.get("image") else None
        captions.append(Caption(row["text"], mention["start"], mention["end"], mention["kb_id"], image))
    return captions


def longer(captions: Sequence[Caption], words: int) -> list[Caption]:
    """The same captions, each with the first words of those after it: for prompts as long as the paper's."""
    longer = []
    for index, caption in enumerate(captions):
        more: list[str] = []
        while len(more) < words:
            index = (index + 1) % len(captions)
            more += captions[index].text.split()
        text = " ".join([caption.text, *more[:words]])
        longer.append(Caption(text, caption.start, caption.end, caption.kb_id, caption.image))
    return longer


def docs_of(nlp: "Language", captions: Sequence[Caption], *, gold: bool = False) -> "list[Doc]":
    """A new doc for each caption, its mention set; with its gold where that is asked for."""
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
    parts: Parts, examples: Sequence[Caption], n_demonstrations: int, *, seed: int = 0, **settings: Any
) -> "Language":
    """A pipeline with the settings of configs/mini.cfg but for these, ready to link; its mapper is untrained."""
    config = Config().from_disk(ROOT / CONFIG, interpolate=False)
    linker = config["components"][LINKER]
    linker |= {"n_demonstrations": n_demonstrations, "bundle_models": False, **settings}
    linker["language_model"] |= {"name": str(parts.language_model), "dtype": parts.dtype}
    linker["vision_encoder"]["name"] = str(parts.vision_encoder)
    linker["retriever"]["name"] = str(parts.sentence_encoder)
    config["paths"]["kb"] = str(parts.kb)
    fix_random_seed(seed)
    nlp = util.load_model_from_config(config.interpolate(), auto_fill=True)
    golds = docs_of(nlp, examples, gold=True)
    nlp.initialize(lambda: [Example(nlp.make_doc(doc.text), doc) for doc in golds])
    return nlp


def linker_in(nlp: "Language") -> "GemelLinker":
    """The pipeline's linker."""
    pipe: Any = nlp.get_pipe(LINKER)
    return pipe


def forget_all(nlp: "Language") -> None:
    """Empty the linker's caches, so that a repeat does the work again; the frozen models stay loaded."""
    pipe = linker_in(nlp)
    pipe.load_parts(pipe.kb)
