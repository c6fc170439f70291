"""Grid files: what is read, and what is wrong in one is said with its place."""

from pathlib import Path
from typing import Any

import pytest

from spacy_gemel.experiments.grid import read_grid
from spacy_gemel.experiments.plan import make_plan
from tests.experiments.conftest import ROOT, grid_of


@pytest.mark.parametrize("name", ["experiments.yml", "experiments-paper.yml"])
def test_the_grids_that_ship(name: str) -> None:
    grid = read_grid(ROOT / "configs" / name)
    ids = [table.id for table in grid.tables]
    assert ids[:7] == [*(f"table-{number}" for number in range(2, 8)), "figure-3"]
    assert {"k", "n"} <= set(ids)
    plan = make_plan(grid)
    unrun = {row.name for table in grid.tables for row in table.rows if row.not_run}
    if name == "experiments-paper.yml":
        assert {row.split(",")[0] for row in unrun} == {"GPT-3.5"}
        named = {str(trial.setting.get("language_model")).rsplit("/", 1)[-1] for trial in plan.trials.values()}
        assert {"Llama-2-7b-hf", "llama-7b", "opt-6.7b", "opt-2.7b", "opt-1.3b", "opt-350m"} <= named
    else:
        tables = {table.id: table for table in grid.tables}
        for complete in ("table-3", "table-6", "table-7", "k", "n"):
            assert not any(row.not_run for row in tables[complete].rows)
        assert {plan.trials[id].setting["k"] for place in range(4) for id in plan.rows["k", place]} == {1, 2, 4, 8}
        assert {plan.trials[plan.rows["n", place][0]].setting["n"] for place in range(9)} == set(range(9))
        trained = {trial.training.id for trial in plan.trials.values() if trial.training}
        assert len(trained) == 7


def test_axes_are_combined_and_paths_lie_beside_the_file(place: Path) -> None:
    grid = grid_of(place, {"t": {"base": {"image": False}, "axes": {"k": [1, 2], "retriever": ["bm25", "none"]}}})
    [table] = grid.tables
    assert [row.name for row in table.rows] == [
        f"k = {k}, retriever = {retriever}" for k in (1, 2) for retriever in ("bm25", "none")
    ]
    assert table.rows[3].changes == {"image": False, "k": 2, "retriever": "none"}
    assert grid.paths["train"] == place / "train.spacy"
    mine = read_grid(grid.path, {"train": Path("mine.spacy")})
    assert mine.paths["train"] == Path("mine.spacy")
    assert mine.paths["dev"] == place / "dev.spacy"


ROW = {"name": "a"}


@pytest.mark.parametrize(
    ("tables", "others", "says"),
    [
        ({}, {}, "tables must name at least one"),
        ({"t": {}}, {}, "grid.yml: t: give rows, or axes"),
        ({"t": {"rows": [{"k": 2}]}}, {}, "t, row 1: a row needs a name"),
        ({"t": {"rows": [ROW, {**ROW, "kk": 2}]}}, {}, "t, row 2: unknown setting 'kk'"),
        ({"t": {"rows": [{**ROW, "k": 0}]}}, {}, "k is 0; it must be 1 or more"),
        ({"t": {"rows": [{**ROW, "k": True}]}}, {}, "k is True; it must be int"),
        ({"t": {"rows": [{**ROW, "image": "off"}]}}, {}, "image is 'off'; it must be bool"),
        ({"t": {"rows": [{**ROW, "retriever": "bm26"}]}}, {}, "the grid does not define; it has none, random, bm25"),
        ({"t": {"rows": [{**ROW, "language_model": "OPT"}]}}, {}, "does not define; it has none"),
        ({"t": {"rows": [{**ROW, "peer": "blink"}]}}, {}, "peer is 'blink'; there are shortcut"),
        ({"t": {"rows": [{**ROW, "paper": "best"}]}}, {}, "paper is 'best'"),
        (
            {"t": {"rows": [{**ROW, "retriever": "random", "set": {"components.gemel_linker.retriever.seed": 1}}]}},
            {},
            "set it where that is defined",
        ),
        ({"t": {"rows": [ROW], "parts": ["rare"]}}, {}, "parts must be some of common"),
        ({"t": {"rows": [ROW]}}, {"seeds": 3}, "seeds must be a list"),
        ({"t": {"rows": [ROW]}}, {"tail_share": "a"}, "tail_share is 'a'; it must be a number"),
        ({"t": {"rows": [ROW]}}, {"vision_encoders": {"x": {"name": "y"}}}, 'x needs "@misc"'),
        ({"t": {"rows": [ROW]}}, {"config": None}, "no config"),
        ({"t": {"rows": [ROW]}}, {"trian": "x"}, "unknown setting 'trian'"),
    ],
)
def test_what_is_wrong_is_said(place: Path, tables: Any, others: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=r"grid\.yml") as raised:
        grid_of(place, tables, **others)
    assert says in str(raised.value)


def test_no_file_no_yaml_no_linker_no_table(place: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.yml: no such file"):
        read_grid(place / "gone.yml")
    (place / "bad.yml").write_text("a: [")
    with pytest.raises(ValueError, match=r"bad\.yml: not YAML"):
        read_grid(place / "bad.yml")
    grid = grid_of(place, {"t": {"rows": [ROW]}, "u": {"rows": [ROW]}})
    assert [table.id for table in grid.only(["u"])] == ["u"]
    with pytest.raises(ValueError, match="there is no table 'v'; it has t, u"):
        grid.only(["v"])
    (place / "configs" / "mini.cfg").write_text('[components]\n[components.ner]\nfactory = "ner"\n')
    with pytest.raises(ValueError, match="no component with factory"):
        make_plan(grid)
    (place / "configs" / "mini.cfg").unlink()
    with pytest.raises(ValueError, match=r"mini\.cfg: no such file"):
        make_plan(grid)
