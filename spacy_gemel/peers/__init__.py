"""Linkers to compare with, on the same data and knowledge base: none of them needs a language model."""
