"""The weights of models that nothing was loaded of."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from research.sizing.known import KNOWN, LANGUAGE_MODELS
from research.sizing.models import (
    build_encoder,
    build_language_model,
    build_sentence_encoder,
    bytes_of,
    parameters_of,
    read_model_config,
)
from research.sizing.plan import Plan
from research.sizing.tracing import without_data
from spacy_gemel.models.loading import load_causal_lm
from spacy_gemel.models.open_clip import load_open_clip
from spacy_gemel.models.sentence_encoder import load_sentence_encoder
from spacy_gemel.models.vision_encoder import load_hugging_face_vision
from tests.models.test_vision_encoder import CLASSES, save

# As the models' own pages and checkpoints have them.
PARAMETERS = {
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "huggyllama/llama-7b": 6_738_415_616,
    "facebook/opt-350m": 331_196_416,
    "facebook/opt-1.3b": 1_315_758_080,
    "facebook/opt-2.7b": 2_651_596_800,
    "facebook/opt-6.7b": 6_658_473_984,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "princeton-nlp/sup-simcse-roberta-large": 355_359_744,
    "sentence-transformers/all-MiniLM-L6-v2": 22_713_216,
    # without the classifier
    "microsoft/beit-large-patch16-224": 303_405_568,
    "microsoft/resnet-101": 42_500_160,
}
# Their features' width and patches, and one more.
ENCODERS = {"microsoft/beit-large-patch16-224": (1024, 197), "microsoft/resnet-101": (2048, 0)}
NAMES = [(block, name) for block, known in KNOWN.items() for name in known]


def blocks(vision: dict[str, Any], retriever: str = "nobody/asks", folder: Path = Path()) -> Plan:
    return Plan(
        {
            "vision_encoder": vision,
            "retriever": {"@misc": "spacy_gemel.SentenceTransformerRetriever.v1", "name": retriever},
        },
        folder,
    )


def plan(models: Path) -> Plan:
    encoder = {"@misc": "spacy_gemel.OpenCLIP.v1", "name": str(models / "vision_encoder")}
    return blocks(encoder, str(models / "sentence_encoder"))


def hugging_face(name: str, folder: Path = Path()) -> Plan:
    return blocks({"@misc": "spacy_gemel.HuggingFaceVision.v1", "name": name}, folder=folder)


@pytest.mark.parametrize(("block", "name"), NAMES)
def test_known_models_have_the_parameters_that_they_have(block: str, name: str) -> None:
    if block == "vision_encoder":
        encoder = build_encoder(hugging_face(name))
        assert (encoder.width, encoder.tokens) == ENCODERS[name]
        assert encoder.size == 224
        assert parameters_of(encoder.model) == PARAMETERS[name]
        return
    with without_data():
        config = read_model_config(name, Path(), block)
        if block == "retriever":
            found = parameters_of(transformers.AutoModel.from_config(config))
        else:
            found = parameters_of(build_language_model(config, torch.bfloat16).model)
    assert found == PARAMETERS[name]


def test_the_bytes_are_those_of_what_is_loaded(models: Path) -> None:
    folder = models / "language_model"
    real = load_causal_lm(str(folder), revision=None, device="cpu", dtype="bfloat16")
    with without_data():
        computed = build_language_model(read_model_config("language_model", models, "language_model"), torch.bfloat16)
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
    file.write_text(json.dumps({**LANGUAGE_MODELS["Qwen/Qwen2.5-0.5B"], "transformers_version": "4.40.1"}))
    config = read_model_config("nobody/knows", tmp_path, "language_model", file)
    assert (config.model_type, config.hidden_size) == ("qwen2", 896)


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'nobody/knows' is not known here.*--model-config"):
        read_model_config("nobody/knows", tmp_path, "language_model")
    for content, says in (("{", "no config.json"), ("[1]", "model_type None"), ('{"model_type": "no"}', "'no'")):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ValueError, match=says):
            read_model_config("nobody/knows", tmp_path, "language_model", tmp_path / "bad.json")


@pytest.mark.parametrize("block", ["vision_encoder", "retriever"])
def test_what_to_do_about_an_encoder_that_is_not_known(block: str, tmp_path: Path) -> None:
    """--model-config would take the language model's place: its config.json in a folder is enough."""
    with pytest.raises(ValueError, match=f"put its config.json into a folder.*{block}.name") as raised:
        read_model_config("nobody/knows", tmp_path, block)
    assert "--model-config" not in str(raised.value)
    assert "Llama" not in str(raised.value)
    folder = tmp_path / "mine"
    folder.mkdir()
    shapes = {"vision_encoder": "microsoft/resnet-101", "retriever": "sentence-transformers/all-MiniLM-L6-v2"}
    (folder / "config.json").write_text(json.dumps(KNOWN[block][shapes[block]]))
    if block == "retriever":
        with without_data():
            model = build_sentence_encoder(blocks({}, "mine", tmp_path))
        assert model is not None
    else:
        model = build_encoder(hugging_face("mine", tmp_path)).model
    assert parameters_of(model) == PARAMETERS[shapes[block]]


def test_a_model_of_the_wrong_kind_is_told_shortly(tmp_path: Path) -> None:
    """Where transformers would name the two hundred kinds that it knows."""
    beit = KNOWN["vision_encoder"]["microsoft/beit-large-patch16-224"]
    (tmp_path / "config.json").write_text(json.dumps(beit))
    config = read_model_config("nobody/knows", Path(), "language_model", tmp_path / "config.json")
    with without_data(), pytest.raises(ValueError, match=r"'beit' is none of a causal .*--model-config") as raised:
        build_language_model(config, torch.float32)
    assert len(str(raised.value)) < 200
    (tmp_path / "config.json").write_text(json.dumps(LANGUAGE_MODELS["facebook/opt-350m"]))
    with pytest.raises(ValueError, match=r"vision_encoder: .*'opt'.* no model that reads pixel_values") as raised:
        build_encoder(hugging_face(str(tmp_path)))
    assert len(str(raised.value)) < 200 + len(str(tmp_path))
    with without_data(), pytest.raises(ValueError, match=r"retriever: .*'beit'.* no model that reads input_ids"):
        (tmp_path / "config.json").write_text(json.dumps(beit))
        build_sentence_encoder(blocks({}, str(tmp_path)))


@pytest.mark.parametrize("kind", CLASSES)
def test_encoders_of_hugging_face_have_what_is_loaded(kind: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    loaded = load_hugging_face_vision(str(tmp_path), revision=None, device="cpu", dtype=None)
    computed = build_encoder(hugging_face(str(tmp_path)))
    assert computed.width == loaded.width
    assert parameters_of(computed.model) == parameters_of(loaded.model)
