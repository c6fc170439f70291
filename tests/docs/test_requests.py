"""docs/requests.md: every line of code in its tables runs."""

import re
from typing import Any

import pytest

from tests.docs.conftest import QIDS
from tests.docs.reading import SHORT, rows, run_command

PAGE = "requests.md"
ASKED = [
    *("spaCy #12048", "spaCy #9114", "GENRE #52", "GENRE #32", "BLINK #84", "spaCy #4572", "spaCy-entity-linker #18"),
    *("spaCy #5129", "wikid #32", "spacyfishing #12", "GENRE #105", "GENRE #9)", "GENRE #97", "spaCy #6662"),
    *("spaCy #13862", "spaCy-entity-linker #10"),
]


def code_of(cell: str) -> list[str]:
    lines = re.findall(r"`([^`]+)`", cell)
    assert "<br>".join(f"`{line}`" for line in lines) == cell
    return lines


def test_every_line_runs(world: dict[str, Any]) -> None:
    for _, _, cell in rows(PAGE):
        for line in code_of(cell):
            if line.startswith("python -m "):
                run_command(line, *(SHORT if line.startswith("python -m spacy train") else ()))
            else:
                exec(line, world)
                if "same" in world:
                    assert world.pop("same"), line
                for linked in world.pop("linked", ()):
                    assert all(ent.kb_id_ for ent in linked.ents)
    assert {kb_id for kb_id, _, _ in world["scores"]} == set(QIDS)
    assert sum(probability for _, _, probability in world["scores"]) == pytest.approx(1)
    found = {one.kb_id for one in world["misspelt"].ents[0]._.gemel_candidates}
    assert found <= {*QIDS, "Q111"}
    assert "Q111" in world["linker"].kb
    assert [len(blank.ents) for blank in world["blanks"]] == [0] * 4
    assert not [need for need in world["needs"] if "==" in need.split(";")[0]]
    assert len(world["first_tokens"]) == 1  # all three names begin alike
    assert "Mercury" in world["html"]
    assert world["loaded"].pipe_names == ["sentencizer", "ruler", "gemel_linker"]


def test_every_request_is_there() -> None:
    text = " ".join(cells[0] for cells in rows(PAGE))
    assert [asked for asked in ASKED if asked not in text] == []
    assert len(rows(PAGE)) == 13 + 5
