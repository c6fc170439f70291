"""A small trained pipeline on random models: a world of a few docs with pictures of one colour each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_gemel.kb.builder import build_kb
from spacy_gemel.models.tokenizer import load_tokenizer
from tests.tiny import NAMES

COLOURS = {"Mercury (planet)": (200, 40, 40), "Mercury (element)": (90, 90, 220), "Mercury": (20, 160, 20)}

CHANGED: dict[str, Any] = {
    "beam_size": 4,
    "n_candidates": 3,
    "max_name_tokens": 20,
    "name_end": "eos",
    "n_demonstrations": 2,
    "n_training_demonstrations": 1,
    "threshold": 0.25,
    "use_image": False,
    "constrained": False,
    "prior_weight": 0.5,
    "batch_tokens": 900,
    "labels_discard": ("DATE",),
    "use_gold_ents": False,
    "overwrite": False,
    "context": "window",
    "n_sents": 1,
    "window": 4,
    "temperature": 2.0,
}
"""A value for each of a linker's settings that is not its default."""


def entity_id(name: str) -> str:
    return name.replace(" ", "_")


def make_kb(folder: Path, models: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    rows = rows or [{"id": entity_id(name), "name": name, "count": index} for index, name in enumerate(NAMES)]
    source = folder / "entities.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf8")
    build_kb(source, folder / "kb", load_tokenizer(str(models / "language_model")), progress=False)
    return folder / "kb"


def picture(name: str, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 30, size=(40, 30, 3))
    return np.clip(np.array(COLOURS.get(name, (128, 128, 128))) + noise, 0, 255).astype(np.uint8)


def make_doc(nlp: Language, text: str, mention: str, kb_id: str = "", image: Any = None) -> Doc:
    doc = nlp.make_doc(text)
    start = text.index(mention)
    span = doc.char_span(start, start + len(mention), label="ENT", alignment_mode="expand")
    doc.ents = [Span(doc, span.start, span.end, label="ENT", kb_id=kb_id)]
    if image is not None:
        doc.user_data["image"] = image
    return doc


def example(nlp: Language, text: str, mention: str, name: str, image: Any = None) -> Example:
    reference = make_doc(nlp, text, mention, entity_id(name) if name != "NIL" else name, image)
    return Example(make_doc(nlp, text, mention, "", image), reference)


def examples(nlp: Language) -> list[Example]:
    return [
        example(nlp, f"A photo of Mercury number {seed}.", "Mercury", name, picture(name, seed))
        for seed in range(6)
        for name in COLOURS
    ]


def make_config(models: Path, **changes: Any) -> dict[str, Any]:
    return {
        "n_demonstrations": 3,
        "model": {"@architectures": "spacy_gemel.LinearMapper.v1", "prefix_length": 2},
        "language_model": {"@misc": "spacy_gemel.CausalLM.v1", "name": str(models / "language_model")},
        "vision_encoder": {"@misc": "spacy_gemel.OpenCLIP.v1", "name": str(models / "vision_encoder")},
        "retriever": {
            "@misc": "spacy_gemel.SentenceTransformerRetriever.v1",
            "name": str(models / "sentence_encoder"),
        },
        **changes,
    }


def make_pipeline(models: Path, kb: Path, **changes: Any) -> Language:
    """An initialized pipeline; `changes` are changes of the pipe's config."""
    nlp = spacy.blank("en")
    nlp.add_pipe("gemel_linker", config=make_config(models, **changes))
    nlp.config["initialize"]["components"]["gemel_linker"] = {
        "kb_loader": {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(kb)}
    }
    nlp.initialize(lambda: examples(nlp))
    return nlp
