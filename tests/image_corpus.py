"""A corpus with image files, a config and a knowledge base, for tests of stored image features."""

from pathlib import Path

import spacy
from PIL import Image
from spacy.tokens import DocBin
from thinc.api import Config

from tests.mini_pipeline import COLOURS, entity_id, make_config, make_doc, make_kb, picture


def make_image_corpus(folder: Path, models: Path) -> Path:
    """Write pictures/, corpus.spacy, linker.cfg and kb/ to the folder."""
    make_kb(folder, models)
    nlp = spacy.blank("en")
    docs = DocBin(store_user_data=True)
    (folder / "pictures").mkdir()
    for seed in range(6):
        for name in COLOURS:
            path = folder / "pictures" / f"{entity_id(name)}-{seed}.png"
            Image.fromarray(picture(name, seed)).save(path)
            image = path.relative_to(folder).as_posix()
            docs.add(make_doc(nlp, f"A photo of Mercury number {seed}.", "Mercury", entity_id(name), image))
    docs.to_disk(folder / "corpus.spacy")
    block = make_config(models)
    Config({"nlp": {"lang": "en"}, "components": {"linker": {"factory": "gemel_linker", **block}}}).to_disk(
        folder / "linker.cfg"
    )
    return folder
