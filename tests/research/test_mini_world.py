"""The mini world of long experiments: made once, and again when its sources or models change."""

import json
import shutil
from pathlib import Path
from typing import IO

import pytest
from typer.testing import CliRunner

from research import mini_world
from research.mini_world import SPLITS, World, delete, prepare, split_sum, world_seed
from spacy_gemel.__main__ import app
from tests.test_project import write_small_world


def test_a_picture_changes_its_split(tmp_path: Path) -> None:
    world = World(root=tmp_path)
    images = world.folder("data") / "images"
    images.mkdir(parents=True)
    for split in ("dev", "test"):
        (images / f"{split}-0000.jpg").write_bytes(b"one")
        (world.folder("data") / f"{split}.jsonl").write_text(json.dumps({"image": f"images/{split}-0000.jpg"}) + "\n")
    dev, test = split_sum(world, "dev"), split_sum(world, "test")
    (images / "test-0000.jpg").write_bytes(b"two")
    assert split_sum(world, "dev") == dev
    assert split_sum(world, "test") != test


def test_prepare_makes_what_is_missing(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands for real, but in this process and for a small world."""
    world = World(root=tmp_path)
    done: list[tuple[str, ...]] = []
    (world.root / "scripts" / "mini_world").mkdir(parents=True)
    generator = world.root / "scripts" / "mini_world" / "generate.py"
    generator.write_text("")
    (world.root / "project.yml").write_text("vars:\n  world_seed: 3\n")
    shutil.copytree(models, world.root / "assets" / "mini")
    pretrained_for(world.root, 3)
    monkeypatch.chdir(world.root)

    def run_command(root: Path, *arguments: str, log: IO[str] | None = None) -> None:
        done.append(arguments)
        with pytest.raises(ValueError, match="another process is making the mini world"):
            prepare(world)
        if arguments[0] == "-m":
            assert CliRunner().invoke(app, arguments[2:]).exit_code == 0
        else:
            assert arguments == ("scripts/mini_world/generate.py", "data/evidence", "--test", "2000", "--seed", "3")
            write_small_world(root / arguments[1])

    monkeypatch.setattr(mini_world, "run_command", run_command)
    first = prepare(world)
    assert [arguments[2] for arguments in done[1:]] == ["convert"] * 3 + ["build-kb", "check-kb"]
    assert all(world.corpus(split).is_file() for split in SPLITS)
    assert prepare(world) == first
    assert len(done) == 6
    generator.write_text("# changed")
    prepare(world)
    assert len(done) == 12
    world.corpus("dev").unlink()
    prepare(world)
    assert len(done) == 18
    weights = world.root / "assets" / "mini" / "sentence_encoder" / "config.json"
    weights.write_text(weights.read_text() + "\n")
    prepare(world)
    assert len(done) == 24
    delete(world)
    assert not world.kb.exists()
    pretrained_for(world.root, 4)
    with pytest.raises(RuntimeError, match=r"seed 4 .*world_seed in project.yml is 3"):
        prepare(world)


def pretrained_for(root: Path, seed: int) -> None:
    report = {"models": {"language_model": {"settings": {"seed": seed}}}}
    (root / "assets" / "mini" / "pretrain.json").write_text(json.dumps(report))


@pytest.mark.parametrize("report", [None, "{", "{}", '{"models": {"language_model": {"settings": []}}}'])
def test_models_of_an_unknown_world(tmp_path: Path, report: str | None) -> None:
    (tmp_path / "assets" / "mini").mkdir(parents=True)
    (tmp_path / "project.yml").write_text("vars:\n  world_seed: 3\n")
    if report is not None:
        (tmp_path / "assets" / "mini" / "pretrain.json").write_text(report)
    with pytest.raises(RuntimeError, match=r"does not say which world.*project run pretrain"):
        world_seed(tmp_path)
    pretrained_for(tmp_path, 3)
    assert world_seed(tmp_path) == 3
    (tmp_path / "project.yml").write_text("vars: {}\n")
    with pytest.raises(RuntimeError, match="is None"):
        world_seed(tmp_path)
