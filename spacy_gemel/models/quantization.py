"""Weights in 8 or 4 bits through bitsandbytes: what it needs, and how gradients pass through a frozen model."""

import importlib.util
import logging
from typing import Any

import torch
from torch import nn

from spacy_gemel.models.frozen import is_gguf

SETTINGS = ("8bit", "4bit")

# The type of all that is not quantized, if the config names none: what bitsandbytes computes in.
# LLM.int8() casts everything to fp16; 4 bits are as good in bf16, which never overflows.
DTYPES = {"8bit": torch.float16, "4bit": torch.bfloat16}


def check_quantization(setting: str | None, name: str) -> None:
    """Raise ValueError if the setting is unknown, or the language model `name` cannot use it without more packages."""
    if setting is None:
        return
    if setting not in SETTINGS:
        raise ValueError(f"quantization = {setting!r} is not known: use {' or '.join(SETTINGS)}, or null for none.")
    if is_gguf(name):
        raise ValueError(
            f"quantization = {setting!r} cannot be used with the GGUF file {name!r}, which is dequantised when it is "
            "loaded: set quantization = null, or save the pipe with bundle_models = true and load that."
        )
    missing = [package for package in ("bitsandbytes", "accelerate") if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(
            f"quantization = {setting!r} of the language model {name!r} needs {' and '.join(missing)}, which is not "
            'installed: run pip install "spacy-gemel[quantized]", or set quantization = null.'
        )


def quantization_options(setting: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of `from_pretrained` that quantize the linear layers while they load onto a device.

    Embeddings, norms and the output layer keep dtype. 8 bits are LLM.int8() (Dettmers et al. 2022), 4 bits are NF4
    (Dettmers et al. 2023) with one scale for 64 weights.
    """
    from transformers import BitsAndBytesConfig

    four_bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
    config = BitsAndBytesConfig(**({"load_in_8bit": True} if setting == "8bit" else four_bits))
    return {"quantization_config": config, "device_map": {"": device}}


def make_differentiable(model: nn.Module) -> None:
    """Let gradients pass through the quantized layers of a model in eval mode on a CPU, or a mapper would not learn.

    bitsandbytes 0.50 takes shortcuts for inference there: 4-bit layers repack their weights at the first pass without
    gradients, after which any gradient is silently zero, and compute in bf16 regardless of their setting; 8-bit layers
    write on their input, which autograd refuses in fp16. This selects its other path, with the same weights.
    """
    # each 8-bit layer repeats one message at each pass if activations are not fp16
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_not_cast_message)
    layer: Any
    for layer in model.modules():
        kind = type(layer).__name__
        if kind == "Linear4bit" and layer.weight.device.type == "cpu":
            layer.support_avx512bf16_for_cpu = False
        elif kind == "Linear8bitLt" and layer.weight.device.type == "cpu":
            layer.train()  # selects the path; the layer has no dropout and no statistics


def _is_not_cast_message(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("MatMul8bitLt: inputs will be cast")
