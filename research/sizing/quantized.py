"""Linear layers as bitsandbytes keeps them, in shapes alone: what they hold, and what their passes hold for a moment.

As its sources have it (0.46 to 0.50): 4 bits are dequantized as a whole, both ways; 8 bits only on the way back.
"""

from typing import Any

import torch
from torch import Tensor, nn

from spacy_gemel.models.quantization import SETTINGS

BLOCK = 64
"""Weights of 4 bits that share a scale, in fp32."""


def quantize(model: nn.Module, setting: str) -> int:
    """Put stand-ins of shapes in place of the linear layers that transformers has bitsandbytes quantize.

    These are all but the output layer, and none where its weights are the embeddings'. To be called in `without_data`.
    Returns the numbers in the matrices that were replaced. Raises ValueError for a setting that is none of SETTINGS.
    """
    from transformers.pytorch_utils import Conv1D

    if setting not in SETTINGS:
        raise ValueError(f"quantization = {setting!r} is not known: use {' or '.join(SETTINGS)}, or null for none.")
    kept = model.get_output_embeddings()  # type: ignore[operator]
    numbers = 0
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if layer is kept or not (type(layer) is nn.Linear or isinstance(layer, Conv1D)):
                continue
            inputs, outputs = layer.weight.shape if isinstance(layer, Conv1D) else reversed(layer.weight.shape)
            numbers += inputs * outputs
            setattr(parent, name, _Layer(inputs, outputs, layer.bias, four=setting == "4bit"))
    return numbers


class _Layer(nn.Module):
    """weight: packed in bytes. scales: one for BLOCK weights of 4 bits, one for a row of 8 bits."""

    def __init__(self, inputs: int, outputs: int, bias: nn.Parameter | None, *, four: bool) -> None:
        super().__init__()
        numbers = inputs * outputs
        packed = torch.empty((numbers + 1) // 2 if four else numbers, dtype=torch.uint8)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.scales = nn.Parameter(torch.empty(-(-numbers // BLOCK) if four else outputs), requires_grad=False)
        self.bias = bias
        self.shape = outputs, inputs
        self.passes: Any = _FourBits if four else _EightBits

    def forward(self, inputs: Tensor) -> Tensor:
        """See nn.Linear."""
        output: Tensor = self.passes.apply(inputs, self.shape)
        return output if self.bias is None else output + self.bias


class _FourBits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.shape = shape
        return nn.functional.linear(inputs, inputs.new_empty(shape))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ gradient.new_empty(ctx.shape), None


class _EightBits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, shape: tuple[int, int]) -> Tensor:
        ctx.shape = shape
        ctx.save_for_backward(inputs)  # which a frozen layer of plain weights does not
        rounded = inputs.to(torch.float16).to(torch.int8)
        sums = rounded.new_empty((*inputs.shape[:-1], shape[0]), dtype=torch.int32)
        return sums.to(torch.float16).to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.saved_tensors  # noqa: B018
        return gradient @ gradient.new_empty(ctx.shape), None
