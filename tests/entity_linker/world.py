"""What these tests share: three entities named Mercury, told apart by the colour of their images."""

from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_gemel.linking.candidates import Candidate
from tests import mini_pipeline
from tests.mini_pipeline import COLOURS, doc_of, entity_id, make_kb, picture

TEXT = "A photo of Mercury."
PLANET = "Mercury_(planet)"
GOLDS = {entity_id(name): name for name in COLOURS}
"""Id of each entity, and the name of its images."""

ROWS = [{"id": kb_id, "name": name, "aliases": [f"{name}, also"]} for kb_id, name in GOLDS.items()]


def make_world_kb(folder: Path, models: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    return make_kb(folder, models, rows or ROWS)


def photo(nlp: Language, kb_id: str = "", seed: int = 0, *, like: str = "", text: str = TEXT) -> Doc:
    """A photo of a Mercury. like: the id whose image it has, if that is not its own."""
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
    """Add an untrained linker with a larger mapper, and without demonstrations."""
    model = {"@architectures": "spacy_gemel.LinearMapper.v1", "prefix_length": 8}
    mini_pipeline.add_linker(nlp, models, kb, name=name, **{"n_demonstrations": 0, "model": model, **changes})


def make_nlp(models: Path, kb: Path | None, data: list[Example] | None = None, **changes: Any) -> Language:
    """An initialized pipeline of a linker alone."""
    spacy.util.fix_random_seed(0)
    nlp = spacy.blank("en")
    add_linker(nlp, models, kb, **changes)
    nlp.initialize(lambda: training_data(nlp) if data is None else data)
    return nlp


def ids(doc: Doc) -> list[str]:
    return [ent.kb_id_ for ent in doc.ents]


def candidates(doc: Doc) -> list[list[Candidate]]:
    return [ent._.gemel_candidates for ent in doc.ents]


def rounded(doc: Doc) -> list[tuple[str, str, list[tuple[str, float]]]]:
    """All that a linker writes to a doc, with scores that do not depend on the batch."""
    return [
        (ent.text, ent.kb_id_, sorted((found.kb_id, round(found.score, 2)) for found in ent._.gemel_candidates))
        for ent in doc.ents
    ]
