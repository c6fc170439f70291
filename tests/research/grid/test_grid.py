"""Grid files: what is read, and what is wrong in one is said with its place."""

from pathlib import Path
from typing import Any

import pytest

from research.grid.grid import read_grid
from research.grid.plan import make_plan
from tests.research.conftest import ROOT, grid_of


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
        assert {plan.trials[id].setting["k"] for index in range(4) for id in plan.rows["k", index]} == {1, 2, 4, 8}
        assert {plan.trials[plan.rows["n", index][0]].setting["n"] for index in range(9)} == set(range(9))
        trained = {trial.training.id for trial in plan.trials.values() if trial.training}
        assert len(trained) == 7


def test_axes_are_combined_and_paths_lie_beside_the_file(folder: Path) -> None:
    grid = grid_of(folder, {"t": {"base": {"image": False}, "axes": {"k": [1, 2], "retriever": ["bm25", "none"]}}})
    [table] = grid.tables
    assert [row.name for row in table.rows] == [
        f"k = {k}, retriever = {retriever}" for k in (1, 2) for retriever in ("bm25", "none")
    ]
    assert table.rows[3].changes == {"image": False, "k": 2, "retriever": "none"}
    assert grid.paths["train"] == folder / "train.spacy"
    mine = read_grid(grid.path, {"train": Path("mine.spacy")})
    assert mine.paths["train"] == Path("mine.spacy")
    assert mine.paths["dev"] == folder / "dev.spacy"


ROW = {"name": "a"}
LINKER = "components.gemel_linker"


def rows(*rows: Any) -> dict[str, Any]:
    return {"t": {"rows": [{**ROW, **row} if isinstance(row, dict) else row for row in rows]}}


@pytest.mark.parametrize(
    ("tables", "settings", "message"),
    [
        ({}, {}, "tables: "),
        ({"t": {}}, {}, "grid.yml: t: give rows, or axes"),
        ({"t": {"rows": [{"k": 2}]}}, {}, "t, row 1: name: is missing"),
        (rows({}, {"kk": 2}), {}, "t, row 2: kk: unknown setting; there are baseline"),
        (rows({"k": 0}), {}, "t, row 1: k: is 0; input should be greater than or equal to 1"),
        (rows({"k": True}), {}, "k: is True; input should be a valid integer"),
        (rows({"image": "off"}), {}, "image: is 'off'; input should be a valid boolean"),
        (rows({"retriever": "bm26"}), {}, "the grid does not define; it has none, random, bm25"),
        (rows({"language_model": "OPT"}), {}, "does not define; it has none"),
        (rows({"baseline": "blink"}), {}, "baseline is 'blink'; there are most-frequent"),
        (rows({"baseline": "alias", "k": 2}), {}, "t, row 1: a baseline has no k"),
        (rows({"baseline": "alias", "paper": "full"}), {}, "t, row 1: a baseline has no paper"),
        (rows({"baseline": {"kind": "alias", "epochs": 3}}), {}, "baseline: alias takes no epochs"),
        (rows({"baseline": {"kind": "alias", "ignore_case": 1}}), {}, "baseline: ignore_case: is 1; input should be"),
        (rows({"paper": "best"}), {}, "paper is 'best'"),
        (rows({"paper": ["full"]}), {}, "t, row 1: paper is ['full']; it must name"),
        (rows({"paper": {"common": "common"}}), {}, "t, row 1: paper is {'common'"),
        (rows({"paper": "tail"}), {}, "tail is the figure of tail mentions, not of all"),
        (rows({"retriever": "random", "set": {f"{LINKER}.retriever.seed": 1}}), {}, "set it where that is defined"),
        (rows({"set": {"system.seed": 7}}), {}, "set: system.seed: the seeds are the grid's"),
        (rows({"set": "k=4"}), {}, "t, row 1: set: is 'k=4'; input should be a valid dictionary"),
        (rows({"not_run": False}), {}, "t, row 1: not_run: is False; input should be a valid string"),
        (rows({}, {}), {}, "t: two rows are called 'a'"),
        ({"t": {"rows": [ROW], "parts": ["rare"]}}, {}, "parts must be some of common"),
        ({"t": {"axes": {"k": []}}}, {}, "t: axes: k is []; it must list values"),
        ({"t": {"axes": {"k": 4}}}, {}, "tables: t: axes: k: is 4; input should be a valid list"),
        (5, {}, "grid.yml: tables: is 5; input should be a valid dictionary"),
        (rows({}), {"seeds": 3}, "seeds: is 3; input should be a valid list"),
        (rows({}), {"seeds": [2**32]}, "seeds: 0: is 4294967296; input should be less"),
        (rows({}), {"tail_share": 5}, "tail_share: is 5; input should be less than or equal to 1"),
        (rows({}), {"estimate": {"trainings": 5}}, "estimate: trainings: unknown setting"),
        (rows({}), {"config": None}, "no config"),
        (rows({}), {"trian": "x"}, "trian: unknown setting"),
        (rows({}), {"vision_encoders": {"x": {"name": "y"}}}, 'x needs "@misc"'),
        (rows({}), {"language_models": {"a": {"dtype": "float32"}}}, "language_models: a needs 'name'"),
        (
            rows({}),
            {"language_models": {"a": {"name": "b", "dtpye": "f"}}},
            "CausalLM.v1 has no setting 'dtpye'; it has name",
        ),
        (rows({}), {"retrievers": {"x": {"@misc": "spacy_gemel.BM26.v1"}}}, "BM26.v1', which is not registered"),
        *(
            (
                rows({**row, "set": {f"{LINKER}.{setting}": 1}}),
                {},
                f"{setting} is what the axis {axis} changes; give {axis}",
            )
            for setting, axis, row in (
                ("retriever", "retriever", {"retriever": "bm25"}),
                ("language_model.name", "language_model", {}),
                ("vision_encoder.@misc", "vision_encoder", {}),
                ("n_demonstrations", "n", {}),
                ("model.prefix_length", "k", {}),
                ("model", "k", {"k": 2}),
                ("use_image", "image", {}),
                ("constrained", "constrained", {}),
            )
        ),
    ],
)
def test_errors_name_their_place(folder: Path, tables: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"grid\.yml") as raised:
        grid_of(folder, tables, **settings)
    assert message in str(raised.value)


def test_null_is_absent_and_data_sets_are_known_however_they_are_written(folder: Path) -> None:
    null = dict.fromkeys(("paper", "not_run", "baseline", "k", "set", "image"))
    grid = grid_of(folder, {"t": {"rows": [{"name": "full", **null}], "axes": None}}, dataset="wikidiverse", note=None)
    [row] = grid.tables[0].rows
    assert (row.name, row.changes, row.paper, row.not_run, row.baseline) == ("full", {}, {}, "", "")
    assert grid.dataset == "WikiDiverse"
    assert grid_of(folder, {"t": {"rows": [ROW]}}, dataset="my captions").dataset == "my captions"


def test_null_in_set_is_a_value(folder: Path) -> None:
    setting = {"components.gemel_linker.n_training_demonstrations": None}
    plan = make_plan(grid_of(folder, {"t": {"rows": [{"name": "a", "set": setting}]}}))
    [trial] = plan.trials.values()
    assert trial.training is not None and trial.training.changes == setting


def test_no_file_no_yaml_no_linker_no_table(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.yml: no such file"):
        read_grid(folder / "gone.yml")
    (folder / "bad.yml").write_text("a: [")
    with pytest.raises(ValueError, match=r"bad\.yml: not YAML"):
        read_grid(folder / "bad.yml")
    grid = grid_of(folder, {"t": {"rows": [ROW]}, "u": {"rows": [ROW]}})
    assert [table.id for table in grid.only(["u"])] == ["u"]
    with pytest.raises(ValueError, match="there is no table 'v'; it has t, u"):
        grid.only(["v"])
    (folder / "configs" / "mini.cfg").write_text('[components]\n[components.ner]\nfactory = "ner"\n')
    with pytest.raises(ValueError, match="no component with factory"):
        make_plan(grid)
    (folder / "configs" / "mini.cfg").unlink()
    with pytest.raises(ValueError, match=r"mini\.cfg: no such file"):
        make_plan(grid)
