"""Entity linking from a document's text and its image: GEMEL as a spaCy component.

`import spacy_gemel` loads neither spaCy nor torch: the names below are imported when they are first used. spaCy finds
the pipe through the package's entry points: `nlp.add_pipe("gemel_linker")`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spacy_gemel.kb.entity import Entity
    from spacy_gemel.kb.knowledge_base import KnowledgeBase
    from spacy_gemel.pipeline.gemel_linker import GemelLinker
    from spacy_gemel.utils.messages import GemelWarning

__version__ = "0.1.0"
__all__ = ["Entity", "GemelLinker", "GemelWarning", "KnowledgeBase"]

_MODULES = {
    "Entity": "spacy_gemel.kb.entity",
    "GemelLinker": "spacy_gemel.pipeline.gemel_linker",
    "GemelWarning": "spacy_gemel.utils.messages",
    "KnowledgeBase": "spacy_gemel.kb.knowledge_base",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
