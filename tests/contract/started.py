"""A program: `python -m tests.contract.started METHOD PIPELINE` links in two processes that are started so,
and fails where they do not give what one gives.

The pipeline has changed since it was saved, and has its models from bytes: nothing of it lies where it was loaded from.
"""

import multiprocessing
import sys
from typing import Any

import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import load_model_from_config

from tests.mini_pipeline import LINKER, assert_same, captions, train


@Language.component("threads")
def tell_threads(doc: Doc) -> Doc:
    doc.user_data["threads"] = torch.get_num_threads()
    return doc


def changed_pipeline(folder: str) -> Language:
    saved = spacy.load(folder)
    linker: Any = saved.get_pipe(LINKER)
    linker.bundle_models = True
    nlp = load_model_from_config(saved.config).from_bytes(saved.to_bytes())
    del saved, linker
    train(nlp, 3)
    linker = nlp.get_pipe(LINKER)
    best = nlp(captions(nlp, 1)[0]).ents[0]._.gemel_candidates[0]
    linker.add_entity("new", best.name, count=10**6)
    assert "gemel_linker-" in str(linker.folders["language_model"])
    nlp.add_pipe("threads")
    return nlp


def main(method: str, folder: str) -> None:
    multiprocessing.set_start_method(method)
    nlp = changed_pipeline(folder)
    expected = [nlp(doc) for doc in captions(nlp, 7)]
    found = list(nlp.pipe(captions(nlp, 7), n_process=2, batch_size=2))
    assert_same(found, expected)
    assert found[0].ents[0].kb_id_ == "new"
    assert {doc.user_data["threads"] for doc in found} == {1}


if __name__ == "__main__":
    main(*sys.argv[1:])
