"""GPUs by name, with the figures of their data sheets, and what is assumed of how far these are reached."""

from dataclasses import dataclass

import torch

UTILISATION = 0.5
"""Share of a data sheet's operations per second that large matrix products reach: an assumption."""
BANDWIDTH_UTILISATION = 0.7
"""Share of a data sheet's memory bandwidth that reading the weights reaches: an assumption."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A machine. tflops: sustained, of bfloat16 and float16 with fp32 sums; tflops_fp32. bandwidth: sustained, GB/s.

    memory: GiB; None where it is not known.
    """

    name: str
    memory: float | None
    tflops: float
    tflops_fp32: float
    bandwidth: float

    def rate(self, dtype: torch.dtype) -> float:
        """Operations per second in a type."""
        return 1e12 * (self.tflops_fp32 if dtype == torch.float32 else self.tflops)


def _sheet(name: str, memory: float, tflops: float, tflops_fp32: float, bandwidth: float) -> Gpu:
    return Gpu(name, memory, UTILISATION * tflops, UTILISATION * tflops_fp32, BANDWIDTH_UTILISATION * bandwidth)


# NVIDIA's data sheets: dense tensor operations without sparsity; fp32 without TF32, which torch leaves off.
GPUS = {
    "rtx-4060": _sheet("RTX 4060, 8 GB", 8, 30.2, 15.1, 272),
    "rtx-3090": _sheet("RTX 3090, 24 GB", 24, 71, 35.6, 936),
    "rtx-4090": _sheet("RTX 4090, 24 GB", 24, 165.2, 82.6, 1008),
    "a100": _sheet("A100 SXM, 80 GB", 80, 312, 19.5, 2039),
    "h100": _sheet("H100 SXM, 80 GB", 80, 989, 67, 3350),
}
DEFAULT = "rtx-4060"


def find_gpu(
    name: str | None = None,
    tflops: float | None = None,
    bandwidth: float | None = None,
    memory: float | None = None,
) -> Gpu:
    """A GPU of `GPUS`, or one that is told by its figures.

    name: None for DEFAULT, or, with figures, for a GPU that nothing else is known of. tflops, bandwidth: sustained;
    with a name of GPUS they take the place of its own, otherwise both are needed. memory: GiB, in place of its own.
    Raises ValueError where the figures are not known.
    """
    if name in GPUS or (name is None and tflops is None and bandwidth is None):
        gpu = GPUS[name or DEFAULT]
    elif tflops is not None and bandwidth is not None:
        gpu = Gpu(name or "a GPU", None, tflops, tflops, bandwidth)
    elif name is None:
        raise ValueError(
            "--tflops and --bandwidth tell of a GPU together: give both, or name with --gpu the one whose other "
            f"figures to take ({', '.join(GPUS)})"
        )
    else:
        raise ValueError(
            f"No GPU is called {name!r} here: choose from {', '.join(GPUS)}, or give its --tflops, --bandwidth and "
            "--memory"
        )
    own = [f"{tflops:g} TFLOP/s"] if tflops is not None else []
    own += [f"{bandwidth:g} GB/s"] if bandwidth is not None else []
    return Gpu(
        f"{gpu.name} at {' and '.join(own)}" if own else gpu.name,
        gpu.memory if memory is None else memory,
        tflops or gpu.tflops,
        tflops or gpu.tflops_fp32,
        bandwidth or gpu.bandwidth,
    )
