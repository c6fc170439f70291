"""project.yml: what it says it needs is there, and what it makes is what the design names."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from thinc.api import Config
from typer.testing import CliRunner
from weasel.util import load_project_config

from research.__main__ import app
from research.grid.grid import read_grid
from scripts.swap_block import main as swap_block

ROOT = Path(__file__).parent.parent
PAPER = {"vars.experiments": "configs/experiments-paper.yml"}
SETTINGS = ["full", "no-image", "no-demonstrations", "random", "bm25", "dense", "unconstrained"]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return load_project_config(ROOT)


@pytest.fixture(scope="module")
def commands(project: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {command["name"]: command for command in project["commands"]}


@pytest.mark.parametrize("workflows", [["all"], ["real", "real-ablations"]])
def test_every_dependency_is_in_the_repo_or_made_by_an_earlier_step(
    project: dict[str, Any], commands: dict[str, dict[str, Any]], workflows: list[str]
) -> None:
    outputs: list[str] = []
    for name in [name for workflow in workflows for name in project["workflows"][workflow]]:
        for path in commands[name]["deps"]:
            by_a_step = any(path == out or path.startswith(out + "/") for out in outputs)
            assert by_a_step or (ROOT / path).exists(), f"{name}: {path}"
        outputs += commands[name]["outputs"]


def test_the_outputs_of_real(project: dict[str, Any], commands: dict[str, dict[str, Any]]) -> None:
    """None in the folder that another workflow's step replaces as a whole."""
    outputs = {out for name in project["workflows"]["real"] for out in commands[name]["outputs"]}
    assert {"data/real", "kb/real", "training/real/model-best", "report/real/index.html"} <= outputs
    assert {"metrics/real/full.json", "metrics/real/no-image.json"} <= outputs
    others = {out for name in project["workflows"]["all"] for out in commands[name]["outputs"]}
    assert not [(out, other) for out in outputs for other in others if out.startswith(other) or other.startswith(out)]


def test_the_outputs_of_all(project: dict[str, Any], commands: dict[str, dict[str, Any]]) -> None:
    outputs = {out for name in project["workflows"]["all"] for out in commands[name]["outputs"]}
    assert {"training/model-best", "report/index.html"} <= outputs
    for setting in SETTINGS:
        assert {f"metrics/{setting}.json", f"metrics/{setting}.mentions.jsonl"} <= outputs


def test_scripts_and_configs_are_dependencies(commands: dict[str, dict[str, Any]]) -> None:
    for name, command in commands.items():
        for word in " ".join(command["script"]).split():
            if word.startswith("scripts/") or (word.endswith(".cfg") and not word.startswith("training/")):
                assert word in command["deps"], f"{name}: {word}"


def test_research_commands_are_thin_lines(project: dict[str, Any], commands: dict[str, dict[str, Any]]) -> None:
    assert project["workflows"]["experiments"] == ["world", "convert", "build-kb", "grid"]
    for name in ("evidence", "search", "grid"):
        [script] = commands[name]["script"]
        assert script.startswith(f"python -m research {name}")
        assert commands[name]["no_skip"] is True
    for name in ("evidence", "search"):
        assert f"research/results/{name}.json" in commands[name]["outputs"]
        assert all((ROOT / path).exists() for path in commands[name]["deps"])


def test_the_grids_step_leaves_a_grid_its_own_values(commands: dict[str, dict[str, Any]]) -> None:
    """Any option for them would take their place: a row could then be measured with another model than it says."""
    [script] = commands["grid"]["script"]
    options = {word for word in script.split() if word.startswith("--")}
    assert options == {"--output", "--gpu-id"}


def test_the_papers_grid_through_the_project(tmp_path: Path) -> None:
    """With the project's own vars it links with the paper's config and data, not with the mini world's."""
    command = next(c for c in load_project_config(ROOT, overrides=PAPER)["commands"] if c["name"] == "grid")
    words = command["script"][0].split()[3:]
    words[words.index("--output") + 1] = str(tmp_path / "out")
    done = CliRunner().invoke(app, [*words, "--dry-run"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert any("language-OPT-6.7B" in line for line in lines)
    grid = read_grid(ROOT / words[1])
    assert (grid.paths["config"].name, grid.tail_share) == ("paper.cfg", 0.05)


def test_the_ablations_train_for_the_same_steps(commands: dict[str, dict[str, Any]]) -> None:
    """All train from the one config, with the same options but for what the ablation is about."""
    full = commands["train"]["script"][0].split("--paths.train")[1]
    for name in ("random", "bm25", "no-demonstrations"):
        assert commands[f"train-{name}"]["script"][-1].split("--paths.train")[1] == full
        assert commands[f"train-{name}"]["deps"] == commands["train"]["deps"]


def test_swap_block(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "models" / "a").mkdir(parents=True)
    source, target = tmp_path / "configs" / "x.cfg", tmp_path / "training" / "deep" / "y.cfg"
    source.write_text(
        '[paths]\nmodel = "../models/a"\nhub = "org/name"\n\n[a]\n\n[a.b]\n@misc = "old.v1"\nname = "x"\n\n'
        "[c]\npath = ${paths.model}\n"
    )
    assert swap_block([str(source), str(target), "a.b", "@misc=new.v1", "seed=3", 'text="4"']) == 0
    config = Config().from_disk(target)
    assert config["a"]["b"] == {"@misc": "new.v1", "seed": 3, "text": "4"}
    assert config["paths"] == {"model": "../../models/a", "hub": "org/name"}
    assert "${paths.model}" in target.read_text()
    assert swap_block([str(source), str(target), "a.z", "@misc=new.v1"]) == 1
    assert swap_block([str(tmp_path / "gone.cfg"), str(target), "a.b", "@misc=new.v1"]) == 1
    assert swap_block([str(source)]) == 2


def write_small_world(folder: Path) -> None:
    """In place of the mini world: a few captions and pictures for the names that the small models know."""
    from PIL import Image

    from tests.tiny import NAMES

    (folder / "images").mkdir(parents=True)
    entities = [json.dumps({"id": name, "name": name, "count": n + 1}) for n, name in enumerate(NAMES)]
    (folder / "entities.jsonl").write_text("\n".join(entities) + "\n")
    for split, number in (("train", 24), ("dev", 4), ("test", 12)):
        rows = []
        for n in range(number):
            gold = NAMES[n * 5 % len(NAMES)]
            mention = gold.split(" (")[0]
            image = f"images/{split}{n}.jpg"
            Image.new("RGB", (48, 48), (n * 9, 90, 200 - n * 7)).save(folder / image)
            spans = [{"start": 0, "end": len(mention), "kb_id": gold}]
            rows.append(json.dumps({"text": f"{mention} at dusk", "image": image, "mentions": spans}))
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")


@pytest.mark.slow
def test_run_all_and_skip_all(tmp_path: Path, models: Path, project: dict[str, Any]) -> None:
    """The whole workflow on tiny models, but for `world`; and again, when nothing is left to do."""
    for name in ("spacy_gemel", "research", "scripts", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    config = (tmp_path / "configs" / "mini.cfg").read_text()
    lines = ["max_steps = 2" if line.startswith("max_steps") else line for line in config.splitlines()]
    lines = ["eval_frequency = 2" if line.startswith("eval_frequency") else line for line in lines]
    (tmp_path / "configs" / "mini.cfg").write_text("\n".join(lines) + "\n")
    shutil.copy(ROOT / "project.yml", tmp_path)
    shutil.copytree(models, tmp_path / "assets" / "mini")
    write_small_world(tmp_path / "data" / "mini")

    def run(command: str) -> str:
        arguments = [sys.executable, "-m", "spacy", "project", "run", command, str(tmp_path)]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    steps = [name for name in project["workflows"]["all"] if name != "world"]
    for name in steps:
        assert "nothing changed" not in run(name)
    for setting in SETTINGS:
        metrics = json.loads((tmp_path / "metrics" / f"{setting}.json").read_text())
        assert metrics["n"] == 12
    assert "data:image/webp;base64," in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for name in steps:
        assert f"Skipping '{name}': nothing changed" in run(name)


def test_no_tracked_file_is_large() -> None:
    """Weights, pictures and indexes that a step makes are ignored by git; the mini world's models are the largest."""
    if not (ROOT / ".git").exists():
        pytest.skip("not in a clone")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    sizes = {name: (ROOT / name).stat().st_size for name in listed.split("\0") if (ROOT / name).is_file()}
    assert "setup.py" in sizes
    assert {name: size for name, size in sizes.items() if size > 2.5e6} == {}
    assert sum(sizes.values()) < 16e6
