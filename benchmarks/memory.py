"""How much memory a process has."""

import sys
from contextlib import suppress
from pathlib import Path


def resident_mb() -> float:
    """Memory of this process in MB of a million bytes, with the mapped files as far as they were read.

    Without /proc, its peak.
    """
    return memory_mb("VmRSS")


def peak_mb() -> float:
    """Peak memory of this process in MB of a million bytes.

    getrusage is no use: on Linux a new process starts with its parent's peak.
    """
    return memory_mb("VmHWM")


def reset_peak() -> None:
    """Let the peak begin anew with the memory of this moment; without Linux's /proc nothing happens."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory_mb(field: str, pid: int | None = None) -> float:
    """A field of /proc/PID/status, of this process or another; 0 of one that is gone."""
    try:
        status = Path(f"/proc/{pid or 'self'}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        if pid is not None:
            return 0.0
        import resource

        peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == "darwin" else 1024) / 1e6
    kilobytes = [line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:")]
    return int(kilobytes[0]) * 1024 / 1e6 if kilobytes else 0.0  # a process that has just ended has none
