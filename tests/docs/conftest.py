"""A folder as the pages of docs/ speak of it: models, pictures, corpora, and a knowledge base of spaCy's own."""

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
import spacy
from PIL import Image
from spacy.kb import InMemoryLookupKB
from spacy.tokens import DocBin

from spacy_gemel.kb.knowledge_base import KnowledgeBase
from tests.docs.reading import SHORT, blocks, run_command
from tests.mini_pipeline import COLOURS, make_doc, make_kb, picture

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


@pytest.fixture
def world(here: Path, models: Path) -> dict[str, Any]:
    """A pipeline trained as docs/from-entity-linker.md says, and what else lines of code in docs/ take as given."""
    make_kb(here, models, [{"id": kb_id, "name": name} for kb_id, name in QIDS.items()])
    [config] = [block for block in blocks("from-entity-linker.md") if block.file == "gemel_linker.cfg"]
    text = config.text.replace('folder = "kb"', 'folder = "made_kb"').replace(
        ', "gemel_linker"]', ', "ruler", "gemel_linker"]'
    )
    text = text.replace(
        "[components.gemel_linker]\n",
        '[components.ruler]\nfactory = "entity_ruler"\n\n[components.gemel_linker]\nbundle_models = true\n',
    )
    Path("short.cfg").write_text(text, encoding="utf8")
    run_command("python -m spacy init fill-config short.cfg my.cfg")
    run_command("python -m spacy train my.cfg --output training", *SHORT)
    nlp = spacy.load("training/model-best")
    patterns = [{"label": "ENT", "pattern": [{"TEXT": {"REGEX": "^Mer[ck]ury$"}}]}]
    nlp.get_pipe("ruler").add_patterns(patterns)  # type: ignore[attr-defined]
    docs = [nlp.make_doc(f"A photo of Mercury. Number {number}.") for number in range(5)]
    for number, doc in enumerate(docs):
        doc.user_data["image"] = f"images/{number}.png"
    names = {"spacy": spacy, "importlib": importlib, "KnowledgeBase": KnowledgeBase}
    return {**names, "nlp": nlp, "linker": nlp.get_pipe("gemel_linker"), "doc": nlp(docs[0].copy()), "docs": docs}
