"""What a figure must be read with: when, on which machine, and with which versions."""

import datetime
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

LIBRARIES = ("spacy", "thinc", "torch", "transformers", "open_clip_torch", "sentence-transformers", "numpy")


def describe_machine(libraries: Sequence[str] = LIBRARIES) -> dict[str, Any]:
    """Date, processor, cores, threads, versions of the libraries, and the processor's fp32 rate."""
    import torch

    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "fp32_matmul_2048_gflops": matmul_rate(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in libraries},
    }


def matmul_rate(
    repeats: int = 9, dtype: str = "float32", *, device: str = "cpu", shape: tuple[int, int, int] = (2048, 2048, 2048)
) -> float:
    """GFLOP/s of a product of two matrices, the median of the repeats.

    Args:
        repeats: Products that are timed.
        dtype: Of both matrices, a name in torch.
        device: "cpu" or "cuda".
        shape: Rows of the left matrix, what is summed over, and columns of the right one.
    """
    import torch

    synchronize = synchronizer(device)
    rows, summed, columns = shape
    left, right = (
        torch.randn(size, device=device).to(getattr(torch, dtype)) for size in ((rows, summed), (summed, columns))
    )
    seconds = []
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        left @ right
        synchronize()
        seconds.append(time.perf_counter() - start)
    return round(2 * rows * summed * columns / sorted(seconds)[repeats // 2] / 1e9, 1)


def synchronizer(device: str) -> Callable[[], None]:
    """A function that waits for what was asked of a device, "cpu" or "cuda"."""
    import torch

    synchronize: Callable[[], None] = torch.cuda.synchronize
    return synchronize if device == "cuda" else lambda: None
