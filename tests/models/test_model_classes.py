"""Other classes of models through `spacy train`: an OPT with a BEiT and with a ResNet, tiny and untrained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from spacy.cli.train import train
from spacy.util import load_model_from_config
from thinc.api import Config

from tests.mini_pipeline import (
    LINKER,
    assert_same,
    captions,
    examples,
    linker,
    make_config,
    make_doc,
    make_kb,
    picture,
    write_corpus,
)
from tests.models.test_tokenizer import FAMILIES, save_family
from tests.models.test_vision_encoder import CLASSES, save

PREFIX = 2


def make_training(models: Path, folder: Path) -> Config:
    """A config for a few steps with the language model and the encoder in a folder."""
    linking = make_config(
        models,
        language_model={"@misc": "spacy_gemel.CausalLM.v1", "name": str(folder / "language_model")},
        vision_encoder={"@misc": "spacy_gemel.HuggingFaceVision.v1", "name": str(folder / "encoder")},
        retriever={"@misc": "spacy_gemel.BM25Retriever.v1"},
        bundle_models=True,
    )
    corpus = write_corpus(folder, spacy.blank("en"), repeats=1)
    reader = {"@readers": "spacy_gemel.MultimodalCorpus.v1", "path": str(corpus), "gold_ents": True}
    loader = {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(make_kb(folder, folder))}
    config: dict[str, Any] = {
        "nlp": {"lang": "en", "pipeline": [LINKER]},
        "components": {LINKER: {"factory": LINKER, **linking}},
        "corpora": {"train": reader, "dev": reader},
        "training": {
            "max_steps": 20,
            "eval_frequency": 10,
            "optimizer": {"@optimizers": "Adam.v1", "learn_rate": 0.01},
        },
        "initialize": {"components": {LINKER: {"kb_loader": loader}}},
    }
    return load_model_from_config(Config(config), auto_fill=True, validate=False).config


@pytest.mark.parametrize("encoder", ["BEiT", "ResNet"])
def test_an_opt_trains_with_another_encoder(encoder: str, models: Path, tmp_path: Path) -> None:
    """The paper's smallest language model and the encoders of its Table 5; the mapper learns, all else stays."""
    save_family(FAMILIES["OPT-350m"], tmp_path / "language_model")
    save(encoder, tmp_path / "encoder")
    make_training(models, tmp_path).to_disk(tmp_path / "train.cfg")
    weights = [tmp_path / part / "model.safetensors" for part in ("language_model", "encoder")]
    before = [file.read_bytes() for file in weights]
    losses = []
    for steps in (1, 20):
        output = tmp_path / f"after-{steps}"
        train(tmp_path / "train.cfg", output, overrides={"training.max_steps": steps, "training.eval_frequency": steps})
        trained = spacy.load(output / "model-last")
        message: dict[str, float] = {}
        trained.update(examples(trained), sgd=False, losses=message)  # None would make an optimizer and a step
        losses.append(message[LINKER])
    assert losses[1] < 0.95 * losses[0]
    assert [file.read_bytes() for file in weights] == before

    pipe = linker(trained)
    assert type(pipe.linking_model.language_model.model).__name__ == "OPTForCausalLM"
    # The prefix is as wide as OPT-350m's embeddings, which its hidden states are not; d_v is the encoder's.
    assert (pipe.model.get_dim("nI"), pipe.model.get_dim("nO")) == (CLASSES[encoder][-1], PREFIX * 16)
    assert pipe.linking_model.language_model.config.hidden_size == 32
    docs = list(trained.pipe(captions(trained, 6)))
    assert all(ent.kb_id_ in pipe.kb for doc in docs for ent in doc.ents)
    text = "A photo of Mercury."
    pictures = [picture(name) for name in ("Mercury (planet)", "Mercury (element)")]
    seen = [trained(make_doc(trained, text, "Mercury", image=image)).ents[0]._.gemel_candidates for image in pictures]
    assert not np.allclose([c.score for c in seen[0]], [c.score for c in seen[1]], atol=1e-4)
    again = spacy.load(tmp_path / "after-20" / "model-last")
    assert_same(list(again.pipe(captions(again, 6))), docs)
