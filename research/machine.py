"""What a figure must be read with: when, on which machine, and with which versions."""

import datetime
import os
import platform
import time
from importlib.metadata import version
from typing import Any

LIBRARIES = ("spacy", "thinc", "torch", "transformers", "open_clip_torch", "sentence-transformers", "numpy")


def describe_machine() -> dict[str, Any]:
    """Date, processor, cores, threads, versions and the fp32 rate."""
    import torch

    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "fp32_matmul_2048_gflops": matmul_rate(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def matmul_rate(repeats: int = 9, dtype: str = "float32") -> float:
    """GFLOP/s of a 2048-cubed matrix product, by default in fp32, the median of the repeats."""
    import torch

    left, right = (torch.randn(2048, 2048).to(getattr(torch, dtype)) for _ in range(2))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return round(2 * 2048**3 / sorted(seconds)[repeats // 2] / 1e9, 1)
