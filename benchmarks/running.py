"""The steps of a long benchmark: run a command, say what is going on. The package's experiments take the same."""

from spacy_gemel.experiments.processes import run, say

__all__ = ["run", "say"]
