"""A small spaCy NER, trained on the mentions of the training captions."""

import hashlib
from pathlib import Path

import spacy
from spacy.cli.init_config import init_config
from spacy.tokens import Doc

from research.commands import run_command
from research.mini_world import ROOT
from research.real.text import write_docs
from spacy_gemel.data.reader import read_docs

STEPS = 2000
"""About 15 passes over WikiDiverse's training captions."""
_DEV = 10  # one text of so many chooses the checkpoint


def train_ner(corpus: Path, folder: Path, steps: int = STEPS) -> None:
    """Train on a .spacy file, and leave the pipeline in `folder`/model-best: tok2vec and ner, one label.

    Raises CommandFailed with the end of the training's log.
    """
    docs: dict[str, Doc] = {}
    for doc in read_docs(corpus, spacy.blank("en").vocab):
        docs.setdefault(doc.text, doc)  # a second doc of a text has only the mentions that overlap the first's
    is_dev = [int(hashlib.sha256(text.encode()).hexdigest(), 16) % _DEV == 0 for text in docs]
    for name, part in (("train", False), ("dev", True)):
        write_docs(
            [doc for doc, dev in zip(docs.values(), is_dev, strict=True) if dev is part], folder / f"{name}.spacy"
        )
    config = init_config(lang="en", pipeline=["ner"], optimize="efficiency", silent=True)
    config["training"] |= {"max_steps": steps, "eval_frequency": min(200, steps)}
    config.to_disk(folder / "ner.cfg")
    folder = folder.absolute()
    words = [word for name in ("train", "dev") for word in (f"--paths.{name}", str(folder / f"{name}.spacy"))]
    with (folder / "training.log").open("w", encoding="utf8") as log:
        run_command(ROOT, "-m", "spacy", "train", str(folder / "ner.cfg"), "--output", str(folder), *words, log=log)
