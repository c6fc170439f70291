"""Files in, linked files out; folders of images to features."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`link_table`, imported when it is asked for: a command that needs no spaCy does not wait for it."""
    if name != "link_table":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from spacy_gemel.bulk.tables import link_table

    return link_table
