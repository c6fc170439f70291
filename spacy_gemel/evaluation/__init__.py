"""Measuring a linker: scorer, accuracies by kind of mention, and the report."""
