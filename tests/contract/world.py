"""A few captions of ambiguous mentions with pictures, and what it means that two docs were linked the same."""

from pathlib import Path

import numpy as np
from PIL import Image
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.pipeline.loaded import linker_of
from tests.mini_pipeline import COLOURS, entity_id, examples, make_doc, picture

LINKER = "gemel_linker"


def train(nlp: Language, steps: int) -> list[float]:
    """Some updates on all examples; the loss of each."""
    optimizer = nlp.create_optimizer()
    optimizer.learn_rate = 0.02
    values = []
    for _ in range(steps):
        losses: dict[str, float] = {}
        nlp.update(examples(nlp), sgd=optimizer, losses=losses)
        values.append(losses[LINKER])
    return values


def linker(nlp: Language) -> GemelLinker:
    """The pipeline's linker."""
    return linker_of(nlp)


def captions(nlp: Language, number: int = 4) -> list[Doc]:
    """New docs with one mention and a picture each, every third without the picture."""
    docs = []
    for index in range(number):
        name = list(COLOURS)[index % len(COLOURS)]
        image = None if index % 3 == 2 else picture(name, index)
        docs.append(make_doc(nlp, f"Number {index} is a photo of Mercury.", "Mercury", image=image))
    return docs


def write_corpus(folder: Path, nlp: Language, repeats: int = 6) -> Path:
    """The examples as corpus.spacy with pictures beside it, `repeats` times."""
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


def assert_same(first: list[Doc], second: list[Doc]) -> None:
    """The same entities with the same ids and candidates; scores to a ten-thousandth."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.text == other.text
        assert [(e.start, e.end, e.kb_id_) for e in one.ents] == [(e.start, e.end, e.kb_id_) for e in other.ents]
        for ent, same in zip(one.ents, other.ents, strict=True):
            left, right = ent._.gemel_candidates, same._.gemel_candidates
            assert [c.kb_id for c in left] == [c.kb_id for c in right]
            np.testing.assert_allclose([c.score for c in left], [c.score for c in right], atol=1e-4)


def is_linked(doc: Doc) -> bool:
    """Whether every entity of a doc has an id or NIL, and there is one."""
    return bool(doc.ents) and all(ent.kb_id_ for ent in doc.ents)


__all__ = ["LINKER", "assert_same", "captions", "entity_id", "is_linked", "linker", "train", "write_corpus"]
