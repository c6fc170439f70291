"""The steps of a long benchmark: run a command, say what is going on. The package's experiments take the same."""

from research.grid.processes import run, say

__all__ = ["run", "say"]
