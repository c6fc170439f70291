"""Frozen pretrained models by name, and the mapper."""
