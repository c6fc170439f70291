"""What the name of a row and its `paper` claim, held against what is measured there: no figure under another's name."""

import re
from collections.abc import Mapping
from typing import Any

from research.grid.grid import BUILT_IN
from research.grid.rows import Models, Row
from research.paper import MODELS as PAPERS
from research.paper import REPORTED

_ADVICE = "give the row what it claims (language_model, vision_encoder, retriever, n, image), or another name or paper"
_PARTS = re.compile(r"[,;:+()]|\bwith\b|\band\b")


def check_claims(row: Row, setting: Mapping[str, Any], blocks: Mapping[str, Any], models: Models, where: str) -> None:
    """Raises ValueError for a row that is told to be what it is not.

    setting: what is measured; of a peer only its encoder, as the retriever.
    blocks: axis -> the block that the row has. models: those of the grid.
    """
    for paper in row.paper.values():
        wrong = REPORTED[paper].contradicts(setting)
        axis = PAPERS[REPORTED[paper].model].axis if REPORTED[paper].model else ""
        if wrong and not _is_named(row, axis, REPORTED[paper].model):
            raise ValueError(f"{where}: paper is {paper}, but {wrong}; {_ADVICE}")
    for title, model in PAPERS.items():
        said = re.search(rf"(?<![\w.-]){re.escape(title)}(?![\w.-])", row.name, re.IGNORECASE)
        if said and not model.may_be(setting.get(model.axis)) and not _is_named(row, model.axis, title):
            raise ValueError(f"{where}: its name says {title}, but {_told(model.axis, setting)}; {_ADVICE}")
    parts = {part.strip() for part in _PARTS.split(row.name)}
    for axis, defined in models.items():
        for title in parts & (defined.keys() - BUILT_IN.keys()):
            if not row.peer and row.changes.get(axis) != title and blocks.get(axis) != defined[title]:
                raise ValueError(f"{where}: its name says {title}, but {_told(axis, setting)}; {_ADVICE}")


def _is_named(row: Row, axis: str, title: str) -> bool:
    """Whether the grid itself calls the row's model so."""
    return bool(axis) and title.casefold() in str(row.changes.get(axis, "")).casefold()


def _told(axis: str, setting: Mapping[str, Any]) -> str:
    return f"its {axis.replace('_', ' ')} is {setting.get(axis) or 'none'}"
