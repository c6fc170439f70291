"""What these tests share: three planets' worth of Mercuries, told apart by the colour of their pictures."""

from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_gemel.linking.candidates import Candidate
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from tests.mini_pipeline import COLOURS, entity_id, make_config, make_kb, picture

TEXT = "A photo of Mercury."
GOLDS = {entity_id(name): name for name in COLOURS}
"""Id of each entity, and the name that its pictures go by."""

ROWS = [{"id": kb_id, "name": name, "aliases": [f"{name}, also"]} for kb_id, name in GOLDS.items()]

Ent = tuple[str, str, str]
"""The words of an entity, its label and its id."""


def make_world_kb(folder: Path, models: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return make_kb(folder, models, rows or ROWS)


def doc_of(nlp: Language, text: str, *ents: Ent, image: Any = None) -> Doc:
    """A doc with its entities set; the same words twice are the first and the second place where they stand."""
    doc = nlp.make_doc(text)
    spans: list[Span] = []
    for words, label, kb_id in ents:
        start = text.index(words)
        while any(span.start_char == start for span in spans):
            start = text.index(words, start + 1)
        span = doc.char_span(start, start + len(words), label=label, kb_id=kb_id)
        assert span is not None, (text, words)
        spans.append(span)
    doc.set_ents(spans)
    if image is not None:
        doc.user_data["image"] = image
    return doc


def photo(nlp: Language, kb_id: str = "", seed: int = 0, *, like: str = "", text: str = TEXT) -> Doc:
    """A photo of a Mercury. like: the id whose picture it has, where that is not its own."""
    return doc_of(nlp, text, ("Mercury", "ENT", kb_id), image=picture(GOLDS.get(like or kb_id, ""), seed))


def example_of(nlp: Language, reference: Doc, *, ents: bool = True) -> Example:
    """The predicted doc has the reference's image, and with ents its entities without their ids."""
    predicted = nlp.make_doc(reference.text)
    if ents:
        predicted.set_ents([Span(predicted, ent.start, ent.end, label=ent.label_) for ent in reference.ents])
    if "image" in reference.user_data:
        predicted.user_data["image"] = reference.user_data["image"]
    return Example(predicted, reference)


def training_data(nlp: Language) -> list[Example]:
    return [example_of(nlp, photo(nlp, kb_id, seed)) for seed in range(2) for kb_id in GOLDS]


def add_linker(nlp: Language, models: Path, kb: Path | None, *, name: str = "gemel_linker", **changes: Any) -> None:
    """Add an untrained linker. changes: of its config. kb: for its kb_loader; None for none."""
    config = make_config(models, **{"n_demonstrations": 0, **changes})
    config["model"] = {"@architectures": "spacy_gemel.LinearMapper.v1", "prefix_length": 8}
    nlp.add_pipe("gemel_linker", name=name, config=config)
    if kb is not None:
        loader = {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(kb)}
        nlp.config["initialize"]["components"][name] = {"kb_loader": loader}


def make_nlp(models: Path, kb: Path | None, data: list[Example] | None = None, **changes: Any) -> Language:
    """An initialized pipeline of a linker alone."""
    spacy.util.fix_random_seed(0)
    nlp = spacy.blank("en")
    add_linker(nlp, models, kb, **changes)
    nlp.initialize(lambda: training_data(nlp) if data is None else data)
    return nlp


def learn(nlp: Language, data: list[Example], steps: int = 1, **options: Any) -> list[float]:
    """Train, and give the loss of each step."""
    optimizer = nlp.create_optimizer()
    optimizer.learn_rate = 0.02
    return [nlp.update(data, sgd=optimizer, **options)["gemel_linker"] for _ in range(steps)]


def linker(nlp: Language, name: str = "gemel_linker") -> GemelLinker:
    pipe = nlp.get_pipe(name)
    assert isinstance(pipe, GemelLinker)
    return pipe


def ids(doc: Doc) -> list[str]:
    return [ent.kb_id_ for ent in doc.ents]


def candidates(doc: Doc) -> list[list[Candidate]]:
    return [ent._.gemel_candidates for ent in doc.ents]


def rounded(doc: Doc) -> list[tuple[str, str, list[tuple[str, float]]]]:
    """All that a linker says of a doc; scores as near as batches of other sizes may bring them."""
    return [
        (ent.text, ent.kb_id_, sorted((found.kb_id, round(found.score, 2)) for found in ent._.gemel_candidates))
        for ent in doc.ents
    ]
