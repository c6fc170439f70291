"""What is timed: captions with pictures, and an initialized pipeline that links them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from research.captions import Caption, ModelPaths, docs_of, linker_in, make_pipeline

if TYPE_CHECKING:
    from spacy.language import Language

__all__ = [
    "Caption",
    "ModelPaths",
    "docs_of",
    "empty_caches",
    "lengthen",
    "linker_in",
    "make_pipeline",
    "read_captions",
]


def read_captions(path: Path) -> list[Caption]:
    """The captions of a split of the mini world, or of any file that `convert jsonl` takes; one mention each."""
    captions = []
    for line in path.read_text(encoding="utf8").splitlines():
        row = json.loads(line)
        mention = row["mentions"][0]
        image = str(path.parent / row["image"]) if row.get("image") else None
        captions.append(Caption(row["text"], mention["start"], mention["end"], mention["kb_id"], image))
    return captions


def lengthen(captions: Sequence[Caption], words: int) -> list[Caption]:
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


def empty_caches(nlp: "Language") -> None:
    """Empty the linker's caches, so that a repeat does the work again; the frozen models stay loaded."""
    linker_in(nlp).reload()
