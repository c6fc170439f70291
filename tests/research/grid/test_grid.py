"""Grid files: what is read, and what is wrong in one is said with its place."""

from pathlib import Path
from typing import Any

import pytest

from research.grid.grid import read_grid
from research.grid.plan import make_plan
from tests.research.grid.conftest import ROOT, grid_of


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


def test_axes_are_combined_and_paths_lie_beside_the_file(index: Path) -> None:
    grid = grid_of(index, {"t": {"base": {"image": False}, "axes": {"k": [1, 2], "retriever": ["bm25", "none"]}}})
    [table] = grid.tables
    assert [row.name for row in table.rows] == [
        f"k = {k}, retriever = {retriever}" for k in (1, 2) for retriever in ("bm25", "none")
    ]
    assert table.rows[3].changes == {"image": False, "k": 2, "retriever": "none"}
    assert grid.paths["train"] == index / "train.spacy"
    mine = read_grid(grid.path, {"train": Path("mine.spacy")})
    assert mine.paths["train"] == Path("mine.spacy")
    assert mine.paths["dev"] == index / "dev.spacy"


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
        # what has the wrong shape
        (5, {}, "grid.yml: tables is 5; it must be settings with names"),
        ({"t": 5}, {}, "grid.yml: t is 5; it must be settings"),
        ({"t": {"rows": 5}}, {}, "t: rows is 5; it must be a list"),
        ({"t": {"rows": [5]}}, {}, "t, row 1 is 5; it must be settings"),
        ({"t": {"rows": [ROW], "parts": 5}}, {}, "t: parts is 5; it must be a list"),
        ({"t": {"rows": [ROW], "parts": [[5]]}}, {}, "t: parts must be some of common"),
        ({"t": {"rows": [ROW], "title": 5}}, {}, "t: title is 5; it must be words"),
        ({"t": {"rows": [ROW], "base": [5]}}, {}, "t: base is [5]; it must be settings"),
        ({"t": {"axes": {"k": 4}}}, {}, "t: axes: k is 4; it must be a list"),
        ({"t": {"axes": {"retriever": "bm25"}}}, {}, "t: axes: retriever is 'bm25'; it must be a list"),
        ({"t": {"axes": {"k": [None]}}}, {}, "t: axes: k is [None]; it must list values of k"),
        ({"t": {"rows": [{**ROW, "paper": 5}]}}, {}, "t, row 1: paper is 5; it must name"),
        ({"t": {"rows": [{**ROW, "paper": ["full"]}]}}, {}, "t, row 1: paper is ['full']"),
        ({"t": {"rows": [{**ROW, "paper": {"common": "common"}}]}}, {}, "t, row 1: paper is {'common'"),
        ({"t": {"rows": [{**ROW, "paper": "tail"}]}}, {}, "tail is the figure of tail mentions, not of all"),
        ({"t": {"rows": [{**ROW, "set": "k=4"}]}}, {}, "t, row 1: set is 'k=4'; it must be settings"),
        ({"t": {"rows": [{**ROW, "language_model": 5}]}}, {}, "t, row 1: language_model is 5; it must be words"),
        ({"t": {"rows": [ROW]}}, {"estimate": 5}, "estimate is 5; it must be settings"),
        ({"t": {"rows": [ROW]}}, {"estimate": {"trainings": 5}}, "estimate: unknown setting 'trainings'"),
        ({"t": {"rows": [ROW]}}, {"estimate": {"training": -5}}, "estimate: training is -5; it must be 0 or more"),
        ({"t": {"rows": [ROW]}}, {"tail_share": 5}, "tail_share is 5; it must be from 0 to 1"),
        ({"t": {"rows": [ROW]}}, {"seeds": [True]}, "seeds is True; it must be int"),
        ({"t": {"rows": [ROW]}}, {"seeds": [-1]}, "seeds is -1; it must be 0 or more"),
        ({"t": {"rows": [ROW]}}, {"seeds": [2**32]}, "too large for a seed"),
        ({"t": {"rows": [ROW]}}, {"train": 5}, "train is 5; it must be words"),
        ({"t": {"rows": [ROW]}}, {"language_models": ["a"]}, "language_models is ['a']; it must be settings"),
        ({"t": {"rows": [ROW]}}, {"language_models": {"a": "b"}}, "a must be the settings of a block"),
        ({"t": {"rows": [ROW]}}, {"language_models": {"a": {"dtype": "float32"}}}, "language_models: a needs 'name'"),
        ({"t": {"rows": [ROW]}}, {"language_models": {"a": {"name": 5}}}, "language_models: a: name is 5"),
        (
            {"t": {"rows": [ROW]}},
            {"language_models": {"a": {"name": "b", "dtpye": "float32"}}},
            "a: spacy_gemel.CausalLM.v1 has no setting 'dtpye'; it has name",
        ),
        (
            {"t": {"rows": [ROW]}},
            {"retrievers": {"x": {"@misc": "spacy_gemel.BM26.v1"}}},
            "x: \"@misc\" is 'spacy_gemel.BM26.v1', which is not registered",
        ),
        # what would mean nothing, or twice something
        ({"t": {"rows": [ROW, ROW]}}, {}, "t: two rows are called 'a'"),
        ({"t": {"rows": [{"name": None}]}}, {}, "t, row 1: a row needs a name"),
        ({"t": {"rows": [{"name": 5}]}}, {}, "t, row 1: name is 5; it must be words, in quotes"),
        ({"t": {"rows": [{**ROW, "not_run": False}]}}, {}, "t, row 1: not_run is False; it must be words"),
        ({"t": {"rows": [{**ROW, "not_run": ""}]}}, {}, "t, row 1: not_run is ''; it must be words"),
        ({"t": {"rows": [{**ROW, "peer": False}]}}, {}, "t, row 1: peer is False; it must be settings"),
        ({"t": {"rows": [{**ROW, "peer": "alias", "k": 2}]}}, {}, "t, row 1: a peer has no k"),
        ({"t": {"rows": [{**ROW, "peer": "alias", "paper": "full"}]}}, {}, "the paper's figures are GEMEL's"),
        ({"t": {"rows": [{**ROW, "peer": {"ignore_case": True}}]}}, {}, "peer is ''; there are shortcut"),
        ({"t": {"rows": [{**ROW, "peer": {"kind": "alias", "epochs": 3}}]}}, {}, "peer: alias takes no epochs"),
        (
            {"t": {"rows": [{**ROW, "peer": {"kind": "alias", "ignore_case": 1}}]}},
            {},
            "ignore_case is 1; it must be bool",
        ),
        ({"t": {"rows": [{**ROW, "set": {"system.seed": 7}}]}}, {}, "set: system.seed: the seeds are the grid's own"),
        ({"t": {"rows": [{**ROW, "set": {"training.seed": 7}}]}}, {}, "set: training.seed: the seeds are"),
        *(
            (
                {"t": {"rows": [{**ROW, **others, "set": {f"components.gemel_linker.{setting}": 1}}]}},
                {},
                f"set: components.gemel_linker.{setting} is what the axis {axis} changes; give {axis}",
            )
            for setting, axis, others in (
                ("retriever", "retriever", {"retriever": "bm25"}),
                ("retriever", "retriever", {}),
                ("language_model", "language_model", {}),
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
def test_what_is_wrong_is_said(index: Path, tables: Any, others: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=r"grid\.yml") as raised:
        grid_of(index, tables, **others)
    assert says in str(raised.value)


def test_null_is_absent_and_data_sets_are_known_however_they_are_written(index: Path) -> None:
    null = dict.fromkeys(("paper", "not_run", "peer", "k", "set", "image"))
    grid = grid_of(index, {"t": {"rows": [{"name": "full", **null}], "axes": None}}, dataset="wikidiverse", note=None)
    [row] = grid.tables[0].rows
    assert (row.name, row.changes, row.paper, row.not_run, row.peer) == ("full", {}, {}, "", "")
    assert grid.dataset == "WikiDiverse"
    assert grid_of(index, {"t": {"rows": [ROW]}}, dataset="my captions").dataset == "my captions"


def test_null_in_set_is_a_value(index: Path) -> None:
    setting = {"components.gemel_linker.n_training_demonstrations": None}
    plan = make_plan(grid_of(index, {"t": {"rows": [{"name": "a", "set": setting}]}}))
    [trial] = plan.trials.values()
    assert trial.training is not None and trial.training.changes == setting


def test_no_file_no_yaml_no_linker_no_table(index: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.yml: no such file"):
        read_grid(index / "gone.yml")
    (index / "bad.yml").write_text("a: [")
    with pytest.raises(ValueError, match=r"bad\.yml: not YAML"):
        read_grid(index / "bad.yml")
    grid = grid_of(index, {"t": {"rows": [ROW]}, "u": {"rows": [ROW]}})
    assert [table.id for table in grid.only(["u"])] == ["u"]
    with pytest.raises(ValueError, match="there is no table 'v'; it has t, u"):
        grid.only(["v"])
    (index / "configs" / "mini.cfg").write_text('[components]\n[components.ner]\nfactory = "ner"\n')
    with pytest.raises(ValueError, match="no component with factory"):
        make_plan(grid)
    (index / "configs" / "mini.cfg").unlink()
    with pytest.raises(ValueError, match=r"mini\.cfg: no such file"):
        make_plan(grid)
