"""A folder as the pages of docs/ speak of it: models, pictures, corpora, and a knowledge base of spaCy's own."""

from pathlib import Path

import pytest
import spacy
from PIL import Image
from spacy.kb import InMemoryLookupKB
from spacy.tokens import DocBin

from tests.mini_pipeline import COLOURS, make_doc, picture

QIDS = {"Q308": "Mercury (planet)", "Q925": "Mercury (element)", "Q1150": "Mercury"}


@pytest.fixture
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with what is needed in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "mini").symlink_to(models)
    write_corpora(tmp_path)
    write_lookup_kb(tmp_path / "lookup_kb")
    names = "".join(f"{kb_id},{name}\n" for kb_id, name in QIDS.items())
    (tmp_path / "names.csv").write_text("id,name\n" + names)
    return tmp_path


def write_corpora(folder: Path) -> None:
    """train.spacy and dev.spacy, one doc for each of the pictures in images/."""
    nlp = spacy.blank("en")
    (folder / "images").mkdir()
    docs = []
    for number, (kb_id, name) in enumerate([*QIDS.items()] * 2):
        assert name in COLOURS
        Image.fromarray(picture(name, number)).save(folder / "images" / f"{number}.png")
        text = f"A photo of Mercury. It has number {number}."
        docs.append(make_doc(nlp, text, "Mercury", kb_id, f"images/{number}.png"))
    DocBin(docs=docs, store_user_data=True).to_disk(folder / "train.spacy")
    DocBin(docs=docs[:3], store_user_data=True).to_disk(folder / "dev.spacy")


def write_lookup_kb(folder: Path) -> None:
    kb = InMemoryLookupKB(spacy.blank("en").vocab, entity_vector_length=3)
    for number, kb_id in enumerate(QIDS):
        kb.add_entity(entity=kb_id, freq=10 - number, entity_vector=[number, 1, 2])
    kb.add_alias(alias="Mercury", entities=list(QIDS), probabilities=[0.5, 0.3, 0.2])
    kb.to_disk(folder)
