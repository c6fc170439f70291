"""Weights in 8 or 4 bits through bitsandbytes: what it takes, and what makes it right for a frozen model."""

import importlib.util
import logging
from typing import Any

import torch
from torch import nn

SETTINGS = ("8bit", "4bit")

# What bitsandbytes computes in: LLM.int8() casts everything to fp16; 4 bits are as good in bf16, which never overflows.
_DTYPES = {"8bit": torch.float16, "4bit": torch.bfloat16}
_NEEDED = ("bitsandbytes", "accelerate")


def check_quantization(setting: str | None, name: str) -> None:
    """Raise ValueError for a setting that is none of SETTINGS or null, and where what it needs is not installed.

    name: the language model's.
    """
    if setting is None:
        return
    if setting not in SETTINGS:
        raise ValueError(f"quantization = {setting!r} is not known: use {' or '.join(SETTINGS)}, or null for none.")
    missing = [package for package in _NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(
            f"quantization = {setting!r} of the language model {name!r} needs {' and '.join(missing)}, which is not "
            'installed: run pip install "spacy-gemel[quantized]", or set quantization = null.'
        )


def quantized_dtype(setting: str) -> torch.dtype:
    """The type of all that is not quantized where the config names none."""
    return _DTYPES[setting]


def quantization_options(setting: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """What `from_pretrained` takes to quantize the linear layers while it loads them onto a device.

    Embeddings, norms and the output layer keep dtype. 8 bits are LLM.int8() (Dettmers et al. 2022), 4 bits are NF4
    (Dettmers et al. 2023) with one scale for 64 weights.
    """
    from transformers import BitsAndBytesConfig

    if setting == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": config, "device_map": {"": device}}


def make_differentiable(model: nn.Module) -> None:
    """Let gradients pass through quantized layers on a CPU, to what stands before them; the model is in eval mode.

    There bitsandbytes has ways of its own for inference. Its 4-bit layers repack their weights at the first pass
    without gradients, after which any gradient is silently zero, and they compute in bf16 whatever they are told (seen
    with 0.50); its 8-bit layers write on their input for a moment, which autograd refuses in fp16. A mapper would not
    learn. Both have another way that reads the same weights, which is taken here; on a GPU nothing changes.
    """
    logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_no_cast)
    layer: Any
    for layer in model.modules():
        kind = type(layer).__name__
        weight = getattr(layer, "weight", None)
        if weight is None or weight.device.type != "cpu":
            continue
        if kind == "Linear4bit":
            layer.support_avx512bf16_for_cpu = False
        elif kind == "Linear8bitLt":
            layer.train()  # what it looks at to choose its way; it has no dropout and no statistics


def _is_no_cast(record: logging.LogRecord) -> bool:
    """Whether a message is another than the one of each 8-bit layer at each pass where activations are not fp16."""
    return not str(record.msg).startswith("MatMul8bitLt: inputs will be cast")
