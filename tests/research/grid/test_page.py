"""The tables: their figures, the paper's beside them, and the pages that show them."""

from pathlib import Path
from typing import Any

import pytest

from research.grid.page import markdown, write_results
from research.grid.tables import Experiments
from tests.research import conftest
from tests.research.conftest import FakeCommands, N, grid_of


def run_tables(folder: Path, tables: dict[str, Any], **others: Any) -> dict[str, Any]:
    grid = grid_of(folder, tables, **others)
    return Experiments(grid, folder / "out").run(grid.tables)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_figures_with_their_counts_and_intervals(folder: Path, commands: FakeCommands) -> None:
    commands.correct = {"full-42": 36, "full-42-no-image": 20}
    rows = [{"name": "full", "paper": "full"}, {"name": "text <b>", "image": False, "paper": "no-image"}]
    found = run_tables(folder, {"t": {"title": "Table 3", "rows": rows}})
    full, text = found["tables"][0]["rows"]
    assert (full["n"], full["accuracy"], text["accuracy"]) == (N, 0.9, 0.5)
    assert full["low"] < 0.9 < full["high"]
    assert "difference" not in full
    difference, low, high = text["difference"]
    assert difference == pytest.approx(-0.4) and low < -0.4 < high < 0
    parts = text["parts"]
    assert {name: part["n"] for name, part in parts.items()} == {
        "common": 30, "tail": 10, "seen": 20, "unseen": 20, "with_image": 32, "without_image": 8,
    }  # fmt: skip
    assert parts["tail"]["accuracy"] == 0.5
    assert full["paper"] == {"WikiDiverse": 86.3, "WikiMEL": 82.6, "same_setting": False}
    lines = markdown(found).splitlines()
    header, _, first, second = lines[lines.index("## Table 3") + 2 :][:4]
    assert cells(header)[-1] == "paper, WikiDiverse / WikiMEL (not comparable)"
    assert len({len(cells(line)) for line in (header, first, second)}) == 1
    assert cells(first)[1:3] == ["40", f"90.0 ({100 * full['low']:.1f} to {100 * full['high']:.1f})"]
    assert cells(second)[3].startswith("-40.0 (")
    assert cells(second)[-1] == "79.5 / 74.2"
    paths = write_results(found, folder / "results")
    assert [path.name for path in paths] == ["experiments.md", "experiments.json"]


def test_a_table_told_part_by_part(folder: Path, commands: FakeCommands) -> None:
    commands.correct = {"full-42": 36}
    rows = [{"name": "full", "paper": {"common": "common", "tail": "tail"}}, {"name": "big", "not_run": "no weights"}]
    found = run_tables(folder, {"t": {"rows": rows, "parts": ["common", "tail"]}})
    lines = found["tables"][0]["rows"]
    assert [line["name"] for line in lines] == ["full: common", "full: tail", "big: common", "big: tail"]
    assert [line.get("n") for line in lines] == [30, 10, None, None]
    assert [line["paper"] and line["paper"]["WikiDiverse"] for line in lines] == [87.4, 57.5, None, None]
    assert [line["status"] for line in lines] == ["run", "run", "not run", "not run"]
    assert "not run (no weights)" in markdown(found)


def test_several_seeds_are_one_row(folder: Path, commands: FakeCommands) -> None:
    commands.correct = {"full-1": 40, "full-2": 20, "k-2-1": 20, "k-2-2": 0, "full-1-no-image": 10}
    rows = [{"name": "full"}, {"name": "k", "k": 2}, {"name": "text", "image": False}]
    found = run_tables(folder, {"t": {"rows": rows}}, seeds=[1, 2])
    full, k, text = found["tables"][0]["rows"]
    assert (full["accuracy"], full["n"], len(full["trials"])) == (0.75, N, 2)
    assert k["difference"][0] == pytest.approx(-0.5)
    assert text["difference"][0] == pytest.approx(-0.5)
    assert full["high"] - full["low"] > 0.3  # the seeds lie far apart
    assert "mapper seeds: 1, 2" in markdown(found)


def test_the_row_that_differences_are_to_is_named(folder: Path, commands: FakeCommands) -> None:
    rows = [{"name": "full"}, {"name": "text", "image": False}, {"name": "k", "k": 2}]
    found = run_tables(folder, {"t": {"rows": rows}, "one": {"rows": rows[:1]}})
    assert [table["reference"] for table in found["tables"]] == ["full", "full"]
    assert markdown(found).count("ifferences are to the row") == 1
    assert "\n\nDifferences are to the row 'full'.\n" in markdown(found)
    (folder / "out" / "trials" / "full-42.json").unlink()
    commands.broken = {"!full-42": RuntimeError}
    failed = run_tables(folder, {"t": {"rows": rows}})
    assert failed["tables"][0]["reference"] == "text"
    said = "The first row, 'full', failed: differences are to the row 'text'."
    assert said in markdown(failed)
    assert failed["tables"][0]["rows"][2]["difference"] is not None


def test_the_tail_is_told_with_its_threshold(
    folder: Path, commands: FakeCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {"t": {"rows": [{"name": "full"}], "parts": ["common", "tail"]}}
    said = markdown(run_tables(folder, tables))
    assert "Tail: the least-counted entities that together hold 20 % of all counts" in said
    assert "which are the 5 counted at most 7 times (19.0 %)" in said
    assert "Entities that were never counted are neither" in said
    bare = {"threshold": 0, "share_held": 0.0, "entities": 0, "counted": 0}
    monkeypatch.setattr(conftest, "metrics", lambda: {"settings": {}, "tail": bare})
    commands.counted = False
    found = Experiments(grid_of(folder, tables), folder / "bare").run(grid_of(folder, tables).tables)
    lines = found["tables"][0]["rows"]
    assert [(line["n"], line["accuracy"]) for line in lines] == [(0, None), (0, None)]
    said = markdown(found)
    assert "the knowledge base has no counts, so no entity is either" in said
    rows = [cells(line) for line in said.splitlines() if line.startswith("| full")]
    assert [row[1:3] for row in rows] == [["0", "the knowledge base has no counts"]] * 2
    assert len({len(row) for row in rows}) == 1


def test_a_part_that_no_mention_is_of(folder: Path, commands: FakeCommands) -> None:
    commands.counted = False
    found = run_tables(folder, {"t": {"rows": [{"name": "full"}], "parts": ["tail"]}})
    [row] = [cells(line) for line in markdown(found).splitlines() if line.startswith("| full")]
    assert row[1:3] == ["0", "no such mention"]


def test_the_papers_figure_beside_a_row_of_its_own_setting(folder: Path, commands: FakeCommands) -> None:
    """On WikiDiverse with other models it stands apart."""
    found = run_tables(folder, {"t": {"rows": [{"name": "full", "paper": "full"}]}}, dataset="WikiDiverse")
    row = found["tables"][0]["rows"][0]
    assert row["paper"]["same_setting"] is False
    lines = markdown(found).splitlines()
    header, _, first = lines[lines.index("## t") + 2 :][:3]
    assert cells(header)[-2:] == ["paper, WikiDiverse, same setting", "paper, WikiDiverse / WikiMEL, other setting"]
    assert cells(first)[-2:] == ["", "86.3 / 82.6"]
    row["paper"]["same_setting"] = True
    [same] = [line for line in markdown(found).splitlines() if line.startswith("| full |")]
    assert cells(same)[-2:] == ["86.3", ""]
