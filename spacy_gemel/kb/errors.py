"""The one error the knowledge base raises, and the command its messages point to."""

from __future__ import annotations


class KBError(ValueError):
    """A knowledge base that cannot be built, opened or trusted; the message says what to do."""


def build_command(kb_dir: object = "KB_DIR", tokenizer: str = "NAME_OR_PATH") -> str:
    """The command line that (re)builds a knowledge base, for error messages."""
    return f"python -m spacy_gemel build-kb ENTITIES.jsonl {kb_dir} --tokenizer {tokenizer}"
