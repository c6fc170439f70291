"""What a figure must be read with: when, on what, with which versions; and how much memory a process has."""

import datetime
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
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


def matmul_rate(repeats: int = 9) -> float:
    """fp32 GFLOP/s of a 2048-cubed matrix product, the median of some."""
    import torch

    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return round(2 * 2048**3 / sorted(seconds)[repeats // 2] / 1e9, 1)


def resident_mb() -> float:
    """Memory of this process in MB of a million bytes, mapped files included as far as they were read.

    Where there is no /proc, the most it ever was.
    """
    return _memory_mb("VmRSS")


def peak_mb() -> float:
    """The most memory that this process ever had, in MB of a million bytes.

    What getrusage says will not do: on Linux a new process starts with the peak of the one that started it.
    """
    return _memory_mb("VmHWM")


def _memory_mb(field: str) -> float:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        import resource

        most: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most * (1 if sys.platform == "darwin" else 1024) / 1e6
    (kilobytes,) = (line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(kilobytes) * 1024 / 1e6
