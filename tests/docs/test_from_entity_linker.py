"""docs/from-entity-linker.md: both configs train, the code runs, and the table has every setting."""

import re
from pathlib import Path
from typing import Any

import spacy

from spacy_gemel.pipeline.scorer import linker_score
from tests.docs.conftest import QIDS
from tests.docs.reading import SHORT, blocks, rows, run_command

PAGE = "from-entity-linker.md"


def test_every_block_runs_in_order(here: Path) -> None:
    names: dict[str, Any] = {}
    ran = 0
    for block in blocks(PAGE):
        if block.file is not None:
            Path(block.file).write_text(block.text, encoding="utf8")
        elif block.language == "python":
            exec(block.text, names)
        else:
            assert block.language == "bash"
            for line in block.text.splitlines():
                run_command(line, *(SHORT if line.startswith("python -m spacy train") else ()))
        ran += 1
    assert ran == 6
    for folder, linker in (("old", "entity_linker"), ("new", "gemel_linker")):
        nlp = spacy.load(here / "training" / folder / "model-last")
        assert nlp.pipe_names == ["sentencizer", linker]
        assert "nel_micro_f" in nlp.meta["performance"]
    doc = names["doc"]
    assert [ent.text for ent in doc.ents] == ["Mercury"]
    assert {found.kb_id for found in doc.ents[0]._.gemel_candidates} == set(QIDS)
    assert {found.name for found in doc.ents[0]._.gemel_candidates} == set(QIDS.values())
    assert names["linker"].kb.path == here / "own_kb"


def words(setting: str) -> set[str]:
    """What tells a setting of a linker from others: not that it has a model, a size or a vector."""
    return {word.removesuffix("s") for word in setting.split("_")} - {"use", "n", "model", "vector", "length", "size"}


def test_every_name_in_the_table_is_a_setting_or_a_score() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gemel_linker")
    ours = nlp.get_pipe_config("gemel_linker")
    cells = " ".join(cell for row in rows(PAGE) for cell in row[1:])
    named = {name for name in re.findall(r"`(\w+)`", cells) if "_" in name}
    assert named <= {*ours, *linker_score([])}
    assert "prior_weight" in named


def test_the_table_has_every_setting() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_linker")
    nlp.add_pipe("gemel_linker")
    theirs, ours = (nlp.get_pipe_config(name) for name in ("entity_linker", "gemel_linker"))
    table = {row[0].strip("`"): row[1].strip("`") for row in rows(PAGE)}
    assert set(table) == set(theirs) - {"factory"}
    for name, counterpart in table.items():
        assert counterpart == "none" or counterpart in ours, name
        # whoever looks for a setting by one of its words finds ours; where there is no such word there may be none
        near = [setting for setting in ours if words(setting) & words(name)]
        assert counterpart == name or counterpart in (near or ["none"]), f"{name}: {counterpart}, and we have {near}"
        assert (name in ours) == (counterpart == name), name
        if name in ours and name not in ("scorer", "model", "get_candidates"):
            assert theirs[name] == ours[name], name
