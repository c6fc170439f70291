"""docs/experiments.md: its grid is read, and every setting of a row and option of the command is told."""

from pathlib import Path

from thinc.api import Config
from typer.testing import CliRunner

from research.__main__ import app
from research.grid.grid import AXES, read_grid
from research.grid.plan import make_plan
from research.runner import BASELINES
from tests.docs.reading import DOCS, blocks

PAGE = DOCS / "experiments.md"


def test_the_example_is_a_grid(tmp_path: Path) -> None:
    [example] = [block.text for block in blocks("experiments.md") if block.language == "yaml"]
    (tmp_path / "grid.yml").write_text(example)
    config = Config().from_disk(DOCS.parent / "configs" / "mini.cfg", interpolate=False)
    (tmp_path / "my.cfg").write_text(config.to_str(interpolate=False))
    grid = read_grid(tmp_path / "grid.yml")
    plan = make_plan(grid)
    assert [table.id for table in grid.tables] == ["models", "grid"]
    assert len(grid.tables[1].rows) == 8
    assert len(plan.rows["models", 0]) == 3
    assert plan.rows["models", 3] == ()


def test_every_setting_of_a_row_is_told() -> None:
    text = PAGE.read_text(encoding="utf8")
    for name in (*AXES, *BASELINES, "baseline", "paper", "not_run", "base", "parts", "seeds", "estimate", "tail_share"):
        assert f"`{name}`" in text or f"\n{name}:" in text or f" {name}:" in text, name
    options = CliRunner().invoke(app, ["grid", "--help"], terminal_width=200).output
    for option in ("--only", "--dry-run", "--fresh", "--steps", "--limit", "--config", "--entities", "--output"):
        assert option in text, option
        assert option in options, option
