"""The main job from nothing: what is deleted first, and what stays."""

from pathlib import Path
from typing import Any

import pytest
from weasel.util import load_project_config

from benchmarks import mini_world
from research.mini_world import ROOT


def test_from_nothing_deletes_what_it_makes_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = load_project_config(ROOT)
    commands = {command["name"]: command for command in project["commands"]}
    outputs = [path for name in project["workflows"]["all"] for path in commands[name]["outputs"]]
    others = ["corpus/evidence/dev.spacy", "corpus/evidence.lock", "training/evidence/full-1/model-best",
            "training/search/trials/x.json", "training/pretrain/state.safetensors", "metrics/evidence/full-1.json",
            "metrics/search/search.json", "data/evidence/test.jsonl"]  # fmt: skip
    for path in (*outputs, *others):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).mkdir() if "." not in Path(path).name else (tmp_path / path).write_text("x")

    def run(arguments: list[str], **options: Any) -> None:
        assert arguments[1:] == ["-m", "spacy", "project", "run", "all"]
        assert [path for path in outputs if (tmp_path / path).exists()] == []

    monkeypatch.setattr(mini_world, "ROOT", tmp_path)
    monkeypatch.setattr(mini_world.subprocess, "run", run)
    assert mini_world.run_from_nothing() >= 0
    assert all((tmp_path / path).exists() for path in others)
