"""A small trained pipeline on random models: a world of a few docs with pictures of one colour each."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import spacy
from PIL import Image
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example

from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.meta import read_meta
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.utils.files import sha256_of
from tests.tiny import NAMES

LINKER = "gemel_linker"

COLOURS = {"Mercury (planet)": (200, 40, 40), "Mercury (element)": (90, 90, 220), "Mercury": (20, 160, 20)}

CHANGED: dict[str, Any] = {
    "beam_size": 4,
    "n_candidates": 3,
    "search": "exact",
    "exact_tokens": 64,
    "max_name_tokens": 20,
    "name_end": "eos",
    "n_demonstrations": 2,
    "n_training_demonstrations": 1,
    "demonstration_sets": 2,
    "ties": "picture",
    "threshold": 0.25,
    "use_image": False,
    "image_root": "/",
    "constrained": False,
    "candidates": "aliases",
    "prior_weight": 0.5,
    "batch_tokens": 900,
    "labels_discard": ("DATE",),
    "use_gold_ents": False,
    "overwrite": False,
    "context": "window",
    "n_sents": 1,
    "window": 4,
}
"""A value for each of a linker's settings that is not its default."""


def entity_id(name: str) -> str:
    return name.replace(" ", "_")


def make_kb(folder: Path, models: Path, rows: list[dict[str, Any]] | None = None, **options: Any) -> Path:
    rows = rows or [{"id": entity_id(name), "name": name, "count": index} for index, name in enumerate(NAMES)]
    source = folder / "entities.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf8")
    build_kb(source, folder / "kb", load_tokenizer(str(models / "language_model")), progress=False, **options)
    return folder / "kb"


def picture(name: str, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 30, size=(40, 30, 3))
    return np.clip(np.array(COLOURS.get(name, (128, 128, 128))) + noise, 0, 255).astype(np.uint8)


Ent = tuple[str, str, str]
"""The words of an entity, its label and its id."""


def doc_of(nlp: Language, text: str, *ents: Ent, image: Any = None) -> Doc:
    """A doc with its entities set. The same words twice are their first and second occurrence."""
    doc = nlp.make_doc(text)
    spans: list[Span] = []
    for words, label, kb_id in ents:
        start = text.index(words)
        while any(span.start_char == start for span in spans):
            start = text.index(words, start + 1)
        spans.append(doc.char_span(start, start + len(words), label=label, kb_id=kb_id, alignment_mode="expand"))
    doc.set_ents(spans)
    if image is not None:
        doc.user_data["image"] = image
    return doc


def make_doc(nlp: Language, text: str, mention: str, kb_id: str = "", image: Any = None) -> Doc:
    """A doc of one entity."""
    return doc_of(nlp, text, (mention, "ENT", kb_id), image=image)


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


def add_linker(nlp: Language, models: Path, kb: Path | None = None, *, name: str = LINKER, **changes: Any) -> Language:
    """Add an untrained linker; without `kb`, it has no kb_loader. `changes` are changes of its config."""
    nlp.add_pipe(LINKER, name=name, config=make_config(models, **changes))
    if kb is not None:
        loader = {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(kb)}
        nlp.config["initialize"]["components"][name] = {"kb_loader": loader}
    return nlp


def make_pipeline(models: Path, kb: Path, **changes: Any) -> Language:
    """An initialized pipeline of a linker alone."""
    nlp = add_linker(spacy.blank("en"), models, kb, **changes)
    nlp.initialize(lambda: examples(nlp))
    return nlp


def linker(nlp: Language, name: str = LINKER) -> GemelLinker:
    pipe = nlp.get_pipe(name)
    assert isinstance(pipe, GemelLinker)
    return pipe


def train(nlp: Language, steps: int = 1, data: list[Example] | None = None, **options: Any) -> list[float]:
    """Updates on `data`, or on all examples; returns the loss of each step."""
    optimizer = nlp.create_optimizer()
    optimizer.learn_rate = 0.02
    return [nlp.update(examples(nlp) if data is None else data, sgd=optimizer, **options)[LINKER] for _ in range(steps)]


def captions(nlp: Language, number: int = 4) -> list[Doc]:
    """New docs of one mention and an image each, every third without the image."""
    docs = []
    for index in range(number):
        name = list(COLOURS)[index % len(COLOURS)]
        image = None if index % 3 == 2 else picture(name, index)
        docs.append(make_doc(nlp, f"Number {index} is a photo of Mercury.", "Mercury", image=image))
    return docs


def write_corpus(folder: Path, nlp: Language, repeats: int = 6) -> Path:
    """The examples, `repeats` times, as corpus.spacy with the images beside it."""
    docs = DocBin(store_user_data=True)
    (folder / "images").mkdir()
    for repeat in range(repeats):
        for number, example in enumerate(examples(nlp)):
            doc = example.reference
            name = f"images/{repeat}-{number}.png"
            Image.fromarray(doc.user_data["image"]).save(folder / name)
            doc.user_data |= {"image": name, "id": f"{repeat}-{number}"}
            docs.add(doc)
    docs.to_disk(folder / "corpus.spacy")
    return folder / "corpus.spacy"


def assert_same(first: Doc | list[Doc], second: Doc | list[Doc]) -> None:
    """The same entities with the same ids and candidates; scores to a ten-thousandth."""
    pairs = [(first, second)] if isinstance(first, Doc) else zip(first, second, strict=True)
    for one, other in pairs:
        assert one.text == other.text
        assert [(e.start, e.end, e.kb_id_) for e in one.ents] == [(e.start, e.end, e.kb_id_) for e in other.ents]
        for ent, same in zip(one.ents, other.ents, strict=True):
            left, right = ent._.gemel_candidates, same._.gemel_candidates
            assert [c.kb_id for c in left] == [c.kb_id for c in right]
            np.testing.assert_allclose([c.score for c in left], [c.score for c in right], atol=1e-4)


def is_linked(doc: Doc) -> bool:
    """Whether a doc has entities, each with an id or NIL."""
    return bool(doc.ents) and all(ent.kb_id_ for ent in doc.ents)


def reseal(folder: Path) -> None:
    """Give a saved linker the checksums of its files, as if all of them had been saved so."""
    sums = json.loads((folder / "sums").read_text())
    for part in sums.keys() - {"models"}:
        sums[part] = read_meta(folder / "kb").sha256 if part == "kb" else sha256_of(folder / part)
    (folder / "sums").write_text(json.dumps(sums))
