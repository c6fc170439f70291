"""Layers as bitsandbytes keeps them, beside a model that it quantized, where it is installed (it runs on CPUs)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from research.sizing.memory import training_memory
from research.sizing.models import build_language_model, bytes_of
from research.sizing.quantized import quantize
from research.sizing.tracing import without_data
from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.models.loading import load_causal_lm
from tests import tiny
from tests.models.test_quantization import SETTINGS, needs_bitsandbytes
from tests.models.test_tokenizer import FAMILIES, save_family
from tests.research.sizing.test_passes import NAME, PROMPT, ROWS, learn, peak_of

SHAPE = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 3, "num_key_value_heads": 4}


def untied(folder: Path) -> None:
    tiny.make_language_model(folder, **SHAPE)


def tied(folder: Path) -> None:
    tiny.make_language_model(folder, **SHAPE, tie_word_embeddings=True)


def opt(folder: Path) -> None:
    """With layers in front of the first and behind the last, and biases."""
    save_family(FAMILIES["OPT-350m"], folder)


def held(model: Any) -> int:
    """Bytes of the weights of a real model, with what bitsandbytes keeps beside them."""
    total = bytes_of(model)
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            total += module.weight.quant_state.absmax.nbytes
        elif type(module).__name__ == "Linear8bitLt":
            total += (module.weight.SCB if module.state.SCB is None else module.state.SCB).nbytes
    return total


def computed(folder: Path, setting: str, dtype: torch.dtype) -> CausalLM:
    model = build_language_model(AutoConfig.from_pretrained(folder), dtype)
    quantize(model.model, setting)
    return model


@needs_bitsandbytes
@SETTINGS
@pytest.mark.parametrize("make", [untied, tied, opt])
def test_the_bytes_are_those_that_bitsandbytes_keeps(
    make: Callable[[Path], None], setting: str, tmp_path: Path
) -> None:
    make(tmp_path)
    real = load_causal_lm(str(tmp_path), revision=None, device="cpu", dtype=None, quantization=setting)
    with without_data():
        assert bytes_of(computed(tmp_path, setting, real.dtype).model) == held(real.model)


@needs_bitsandbytes
@SETTINGS
def test_memory_of_a_training_step(setting: str, tmp_path: Path) -> None:
    untied(tmp_path)
    real = load_causal_lm(str(tmp_path), revision=None, device="cpu", dtype=None, quantization=setting)
    with without_data():
        expected = training_memory(computed(tmp_path, setting, real.dtype), PROMPT, ROWS, NAME)
    assert expected == pytest.approx(peak_of(lambda: learn(real)), rel=0.01)


def test_eight_bits_keep_what_goes_into_a_layer(tmp_path: Path) -> None:
    untied(tmp_path)
    with without_data():
        plain = build_language_model(AutoConfig.from_pretrained(tmp_path), torch.float16)
        before = training_memory(plain, PROMPT, ROWS, NAME)
        four, eight = (
            training_memory(computed(tmp_path, setting, torch.float16), PROMPT, ROWS, NAME)
            for setting in ("4bit", "8bit")
        )
    # Of each layer and token: what the two norms give, and what goes into the last matrix; with older versions what
    # the attention gives, too, of which they keep no other copy that could serve.
    numbers = (eight - before) / (2 * 3 * ROWS * (PROMPT + NAME - 1))
    assert any(numbers == pytest.approx(kept, rel=0.05) for kept in (2 * 128 + 344, 3 * 128 + 344))
    assert four < eight


def test_other_layers_stay(tmp_path: Path) -> None:
    """Embeddings, norms, biases and the output layer; an OPT's narrower embeddings are brought to width by layers."""
    opt(tmp_path)
    with without_data():
        model = build_language_model(AutoConfig.from_pretrained(tmp_path), torch.bfloat16).model
        linear = {name for name, layer in model.named_modules() if type(layer) is torch.nn.Linear}
        expected = sum(layer.weight.numel() for name, layer in model.named_modules() if name in linear - {"lm_head"})
        assert quantize(model, "4bit") == expected > 0
        left = {name for name, layer in model.named_modules() if type(layer) is torch.nn.Linear}
    assert left == {"lm_head"}
    assert any("project_in" in name for name in linear)
