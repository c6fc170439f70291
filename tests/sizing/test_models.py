"""The weights of models that nothing was loaded of."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from spacy_gemel.language.loading import load_causal_lm
from spacy_gemel.prompt.sentence_encoder import load_sentence_encoder
from spacy_gemel.sizing.known import MODELS
from spacy_gemel.sizing.models import (
    build_encoder,
    build_language_model,
    build_sentence_encoder,
    bytes_of,
    parameters_of,
    read_model_config,
)
from spacy_gemel.sizing.plan import Plan
from spacy_gemel.sizing.tracing import without_data
from spacy_gemel.vision.encoder import load_open_clip

# As the models' own pages and checkpoints have them.
PARAMETERS = {
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "huggyllama/llama-7b": 6_738_415_616,
    "facebook/opt-350m": 331_196_416,
    "facebook/opt-1.3b": 1_315_758_080,
    "facebook/opt-2.7b": 2_651_596_800,
    "facebook/opt-6.7b": 6_658_473_984,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "princeton-nlp/sup-simcse-roberta-large": 355_359_744,
    "sentence-transformers/all-MiniLM-L6-v2": 22_713_216,
}
ENCODERS = ("princeton-nlp/sup-simcse-roberta-large", "sentence-transformers/all-MiniLM-L6-v2")


def plan(models: Path, folder: Path = Path()) -> Plan:
    return Plan(
        {
            "vision_encoder": {"@misc": "spacy_gemel.OpenCLIP.v1", "name": str(models / "vision_encoder")},
            "retriever": {
                "@misc": "spacy_gemel.SentenceTransformerRetriever.v1",
                "name": str(models / "sentence_encoder"),
            },
        },
        None,
        folder,
    )


@pytest.mark.parametrize("name", MODELS)
def test_known_models_have_the_parameters_that_they_have(name: str) -> None:
    with without_data():
        config = read_model_config(name, Path())
        if name in ENCODERS:
            found = parameters_of(transformers.AutoModel.from_config(config))
        else:
            found = parameters_of(build_language_model(config, torch.bfloat16).model)
    assert found == PARAMETERS[name]


def test_the_bytes_are_those_of_what_is_loaded(models: Path) -> None:
    folder = models / "language_model"
    real = load_causal_lm(str(folder), revision=None, device="cpu", dtype="bfloat16")
    with without_data():
        computed = build_language_model(read_model_config("language_model", models), torch.bfloat16)
        sentences = build_sentence_encoder(plan(models))
    assert bytes_of(computed.model) == bytes_of(real.model) > 0
    assert sentences is not None
    loaded = load_sentence_encoder(str(models / "sentence_encoder"), device="cpu")
    assert bytes_of(sentences) == bytes_of(loaded.model) > 0
    encoder = build_encoder(plan(models))
    vision = load_open_clip(str(models / "vision_encoder"), None, projection=False, device="cpu", dtype=None)
    assert bytes_of(encoder.model) == bytes_of(vision.model) > 0
    assert (encoder.width, encoder.size, encoder.tokens) == (vision.width, 32, 5)


def test_a_model_by_its_config_file(tmp_path: Path) -> None:
    file = tmp_path / "its.json"
    file.write_text(json.dumps({**MODELS["Qwen/Qwen2.5-0.5B"], "transformers_version": "4.40.1"}))
    config = read_model_config("nobody/knows", tmp_path, file)
    assert (config.model_type, config.hidden_size) == ("qwen2", 896)


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'nobody/knows' is not known here.*--model-config"):
        read_model_config("nobody/knows", tmp_path)
    for content, says in (("{", "no config.json"), ("[1]", "model_type None"), ('{"model_type": "no"}', "'no'")):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ValueError, match=says):
            read_model_config("nobody/knows", tmp_path, tmp_path / "bad.json")
