"""Weights in 8 and 4 bits: the errors everywhere, the rest where bitsandbytes is installed (it runs on CPUs)."""

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
import transformers
from spacy.language import Language

from spacy_gemel.decoding.constraints import TrieConstraint
from spacy_gemel.decoding.decoder import SharedPrefixDecoder
from spacy_gemel.decoding.self_check import make_decoder
from spacy_gemel.models import causal_lm as causal_lm_module
from spacy_gemel.models import quantization
from spacy_gemel.models.causal_lm import CausalLM, load_causal_lm
from spacy_gemel.registry import causal_lm
from tests import tiny
from tests.decoding.test_beam_search import BEAMS, END, random_names, random_prompts, reference, search
from tests.mini_pipeline import assert_same, captions, linker, make_kb, make_pipeline, train
from tests.tries import trie_from_names

INSTALLED = all(importlib.util.find_spec(name) for name in ("bitsandbytes", "accelerate"))
needs_bitsandbytes = pytest.mark.skipif(not INSTALLED, reason="needs bitsandbytes and accelerate")
SETTINGS = pytest.mark.parametrize("setting", ["8bit", "4bit"])
# Layers of 64 by 64 at least: four bits have one scale for 64 weights.
# Smaller weights than the tests of the search have, or rounding alone would change all that follows.
SIZES = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.15}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("quantized") / "language_model"
    tiny.make_language_model(made, **SIZES)
    return made


def load(folder: Path, setting: str | None, dtype: str | None = None) -> CausalLM:
    return load_causal_lm(str(folder), revision=None, device="cpu", dtype=dtype, quantization=setting)


# The errors, everywhere


@SETTINGS
@pytest.mark.parametrize("there", ["bitsandbytes", "accelerate", None])
def test_what_is_missing_is_named(
    folder: Path, setting: str, there: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: object() if name == there else None)
    missing = {"bitsandbytes": "accelerate", "accelerate": "bitsandbytes", None: "bitsandbytes and accelerate"}[there]
    with pytest.raises(ValueError, match=rf"quantization = '{setting}' of .* needs {missing}, which is not") as raised:
        causal_lm(str(folder), quantization=setting).load("cpu")
    assert 'pip install "spacy-gemel[quantized]", or set quantization = null' in str(raised.value)


def test_of_bitsandbytes_messages_the_repeated_one_alone_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("bitsandbytes.autograd._functions")
    level = log.level
    quantization.make_differentiable(torch.nn.Linear(2, 2))
    quantization.make_differentiable(torch.nn.Linear(2, 2))
    assert log.level == level
    log.warning("MatMul8bitLt: inputs will be cast from %s to float16 during quantization", torch.float32)
    log.warning("something of the weights")
    assert caplog.messages == ["something of the weights"]


def test_an_unknown_setting(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"quantization = '2bit' is not known: use 8bit or 4bit, or null for none"):
        causal_lm(str(folder), quantization="2bit").load("cpu")


def test_a_machine_that_cannot_quantize(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(error: Exception, setting: str | None) -> pytest.ExceptionInfo[Exception]:
        def refuse(*_: Any, **__: Any) -> Any:
            raise error

        monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
        monkeypatch.setattr(causal_lm_module, "check_quantization", lambda *_: None)
        monkeypatch.setattr(causal_lm_module, "quantization_options", lambda *_: {})
        with pytest.raises(Exception) as raised:
            load(folder, setting)
        return raised

    unsupported = RuntimeError("None of the available devices are supported\nby bitsandbytes")
    raised = fails(unsupported, "8bit")
    assert raised.type is ValueError
    assert "cannot be quantized to '8bit' on 'cpu' (None of the available devices are supported)" in str(raised.value)
    assert "or set quantization = null" in str(raised.value)
    unquantized = fails(unsupported, None).value
    assert "could not be loaded (None of the available devices are supported)" in str(unquantized)
    assert unquantized.__cause__ is unsupported
    # memory that runs out is another matter, and said as such
    assert fails(torch.cuda.OutOfMemoryError("CUDA out of memory"), "8bit").type is torch.cuda.OutOfMemoryError
    # a model that was saved quantized asks for the packages by itself
    raised = fails(ImportError("needs accelerate"), None)
    assert raised.type is ValueError
    assert "could not be loaded (needs accelerate)" in str(raised.value)


def test_weights_that_are_missing_are_an_error(folder: Path, tmp_path: Path) -> None:
    """The base model's files alone: transformers would make the output layer up."""
    tiny.make_tokenizer(tmp_path)
    transformers.AutoModelForCausalLM.from_pretrained(folder).model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks 1 of its weights \(lm_head.weight first\), which would be random"):
        load(tmp_path, None)


# Where it is installed


@needs_bitsandbytes
@SETTINGS
@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16"])
def test_linear_layers_are_quantized_and_the_rest_is_not(folder: Path, setting: str, dtype: str | None) -> None:
    model = load(folder, setting, dtype)
    default = torch.float16 if setting == "8bit" else torch.bfloat16
    expected = default if dtype is None else getattr(torch, dtype)
    assert model.quantized
    assert model.dtype == expected
    assert (model.width, model.vocab_size, model.device.type) == (64, 400, "cpu")
    layer = model.model.model.layers[0].self_attn.q_proj
    assert layer.weight.dtype == (torch.int8 if setting == "8bit" else torch.uint8)
    assert model.model.lm_head.weight.dtype == expected
    decoder = make_decoder(model)
    assert decoder.limits.max_length == 1024
    assert not model.model.training
    assert type(decoder.prefill([model.embed([5] * 9)], tokens=2, room=4)) is SharedPrefixDecoder


@needs_bitsandbytes
@SETTINGS
def test_the_gradient_is_the_slope_after_a_search_too(folder: Path, setting: str) -> None:
    """bitsandbytes repacks 4-bit weights at a pass without gradients, and would then give zeros."""
    model = load(folder, setting, "float32")
    names = TrieConstraint(trie_from_names(random_names(0), vocab_size=400), END, 12)
    search(make_decoder(model), random_prompts(model, 1, 2), names, beam_size=BEAMS, n_names=1)

    def loss_of(prefix: torch.Tensor) -> torch.Tensor:
        return model.name_loss([torch.cat([prefix, model.embed([5, 6, 7])])], [[10, 11, END]]).sum()

    generator = torch.Generator().manual_seed(0)
    prefix = torch.randn(4, model.width, generator=generator).requires_grad_()
    loss_of(prefix).backward()
    assert prefix.grad is not None
    direction = torch.randn(4, model.width, generator=generator)
    with torch.no_grad():
        slope = float(loss_of(prefix + 1e-3 * direction) - loss_of(prefix - 1e-3 * direction)) / 2e-3
    assert abs(slope) > 0.1
    assert float((prefix.grad * direction).sum()) == pytest.approx(slope, rel=0.02)


@needs_bitsandbytes
@SETTINGS
def test_gradients_in_half_precision_are_those_in_whole(folder: Path, setting: str) -> None:
    gradients = []
    for dtype in ("float32", "bfloat16", "float16"):
        model = load(folder, setting, dtype)
        generator = torch.Generator().manual_seed(0)
        prefix = torch.randn(4, model.width, generator=generator).requires_grad_()
        model.name_loss([torch.cat([prefix.to(model.dtype), model.embed([5, 6, 7])])], [[10, 11, END]]).sum().backward()
        assert prefix.grad is not None
        gradients.append(prefix.grad.flatten())
    for half in gradients[1:]:
        assert float(torch.nn.functional.cosine_similarity(half, gradients[0], dim=0)) > 0.95


@needs_bitsandbytes
@SETTINGS
def test_search_is_that_of_generate(folder: Path, setting: str) -> None:
    model = load(folder, setting, "float32")
    names = random_names(0, 100)
    allowed = TrieConstraint(trie_from_names(names, vocab_size=400), END, 12)
    prompts = random_prompts(model, 1, 4)
    for prompt, found in zip(
        prompts, search(make_decoder(model), prompts, allowed, beam_size=BEAMS, n_names=BEAMS), strict=True
    ):
        expected = reference(model, prompt, names)
        assert [h.tokens for h in found] == [name for name, _ in expected]
        np.testing.assert_allclose([h.score for h in found], [score for _, score in expected], atol=1e-4)


def dequantized(model: CausalLM) -> CausalLM:
    """A plain model of the numbers that the quantized weights stand for."""
    from bitsandbytes.functional import dequantize_4bit

    weights = {}
    for name, layer in model.model.named_modules():
        kind = type(layer).__name__
        if kind == "Linear4bit":
            weights[f"{name}.weight"] = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        elif kind == "Linear8bitLt":
            scale = layer.state.SCB if layer.weight.SCB is None else layer.weight.SCB
            weights[f"{name}.weight"] = layer.weight.data.float() * scale[:, None] / 127
    assert len(weights) == 2 * 7
    plain = transformers.LlamaForCausalLM(model.model.config)
    others = {name: value for name, value in model.model.state_dict().items() if value.is_floating_point()}
    message = plain.load_state_dict({**others, **weights}, strict=False)
    assert message.missing_keys == []
    return CausalLM(plain, model.tokenizer)


@needs_bitsandbytes
@SETTINGS
def test_it_computes_with_the_numbers_that_the_weights_stand_for(folder: Path, setting: str) -> None:
    model = load(folder, setting, "float32")
    prompts = random_prompts(model, 1, 3)

    def logits_of(model: CausalLM) -> torch.Tensor:
        return make_decoder(model).prefill(prompts, tokens=1, room=1).logits

    logits = logits_of(model)  # first: the layers set themselves up at a pass
    torch.testing.assert_close(logits, logits_of(dequantized(model)), atol=1e-4, rtol=1e-4)
    original = logits_of(load(folder, None, "float32"))
    off = float((logits - original).norm() / original.norm())
    assert 0 < off < (0.05 if setting == "8bit" else 0.5)


@pytest.fixture(scope="module")
def quantized_pipe(request: pytest.FixtureRequest, models: Path, folder: Path) -> Language:
    kb = make_kb(folder.parent, folder.parent)
    block = {"@misc": "spacy_gemel.CausalLM.v1", "name": str(folder), "quantization": "4bit", "dtype": "float32"}
    return make_pipeline(models, kb, language_model=block, bundle_models=True)


@needs_bitsandbytes
def test_a_pipe_trains_and_its_bundle_holds_the_plain_weights(
    quantized_pipe: Language, folder: Path, tmp_path: Path
) -> None:
    nlp = quantized_pipe
    before = linker(nlp).model.get_param("W").copy()
    losses = train(nlp, 20)
    assert losses[-1] < 0.9 * losses[0]
    assert np.abs(linker(nlp).model.get_param("W") - before).max() > 0.01
    docs = list(nlp.pipe(captions(nlp, 4)))
    nlp.to_disk(tmp_path / "saved")
    bundle = tmp_path / "saved" / "gemel_linker" / "models" / "language_model"
    assert (bundle / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    loaded = spacy.load(tmp_path / "saved")
    assert linker(loaded).linking_model.language_model.quantized
    assert_same(list(loaded.pipe(captions(loaded, 4))), docs)


@needs_bitsandbytes
def test_a_model_that_was_saved_quantized(folder: Path, tmp_path: Path) -> None:
    """Its own config says how; the setting is not needed."""
    model = load(folder, "4bit", "float32")
    model.model.save_pretrained(tmp_path)
    tiny.make_tokenizer(tmp_path)
    again = load(tmp_path, None, "float32")
    assert again.quantized
    [prompt] = random_prompts(model, 1, 1)
    logits = [make_decoder(each).prefill([prompt], tokens=1, room=1).logits for each in (model, again)]
    torch.testing.assert_close(logits[1], logits[0], atol=1e-4, rtol=1e-4)
