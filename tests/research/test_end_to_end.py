"""A grid through the real commands, with untrained models of other classes: their figures mean nothing."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pytest
import transformers
from spacy.cli._util import app as spacy_app
from typer.testing import CliRunner

from research import runner, worker
from research.grid.grid import read_grid
from research.grid.page import write_results
from research.grid.tables import Experiments
from spacy_gemel.__main__ import app
from tests import tiny
from tests.research.conftest import ROOT, grid_of
from tests.test_project import write_small_world

TABLES = {
    "models": {
        "rows": [
            {"name": "Llama, CLIP"},
            {"name": "text", "image": False},
            {"name": "no examples shown", "n_at_prediction": 0},
            {"name": "OPT, BEiT", "language_model": "OPT", "vision_encoder": "BEiT", "retriever": "random", "k": 2},
        ]
    }
}


def make_opt(folder: Path) -> None:
    tiny.make_tokenizer(folder)
    config = transformers.OPTConfig(
        vocab_size=400, hidden_size=32, ffn_dim=48, word_embed_proj_dim=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=512, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    transformers.OPTForCausalLM(config).save_pretrained(folder)


def make_beit(folder: Path) -> None:
    config = transformers.BeitConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16
    )
    transformers.BeitModel(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


@pytest.fixture
def world(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs" / "mini.cfg", tmp_path / "configs")
    shutil.copytree(models, tmp_path / "assets" / "mini")
    make_opt(tmp_path / "assets" / "opt")
    make_beit(tmp_path / "assets" / "beit")
    write_small_world(tmp_path / "data")
    for split in ("train", "dev", "test"):
        called("spacy_gemel", "convert", "jsonl", f"data/{split}.jsonl", f"{split}.spacy", "--quiet")
    called("spacy_gemel", "build-kb", "data/entities.jsonl", "kb", "--tokenizer", "assets/mini/language_model", "-q")
    return tmp_path


def called(module: str, *words: str) -> None:
    """A command of ours or spaCy's, in this process."""
    if module == "research.worker":
        assert worker.main(words) == 0
        return
    found = CliRunner().invoke(spacy_app if module == "spacy" else app, list(words))
    if found.exit_code:
        raise RuntimeError(f"{words}: {found.output} {found.exception!r}")


def grid(world: Path, **others: Any) -> Any:
    return grid_of(
        world,
        TABLES,
        entities="../data/entities.jsonl",
        language_models={"OPT": {"name": "../assets/opt"}},
        vision_encoders={"BEiT": {"@misc": "spacy_gemel.HuggingFaceVision.v1", "name": "../assets/beit"}},
        **others,
    )


def test_other_models_by_name(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def in_this_process(root: Path, *arguments: str, log: IO[str] | None = None, keep_open: Sequence[int] = ()) -> None:
        done.append(" ".join(arguments[1:3]))
        # where spaCy's own command line would find the config's folder
        monkeypatch.setattr(sys, "argv", ["spacy", *arguments[2:]])
        called(*arguments[1:])

    monkeypatch.setattr(runner, "run_command", in_this_process)
    found = grid(world)
    experiments = Experiments(found, world / "out", steps=2)
    results = experiments.run(found.tables)
    assert results["failed"] == {}
    rows = results["tables"][0]["rows"]
    assert [(row["status"], row["n"]) for row in rows] == [("run", 12)] * 4
    assert [row["parts"]["with_image"]["n"] for row in rows] == [12] * 4
    assert sum(name == "spacy train" for name in done) == 2
    assert sum(name == "spacy_gemel build-kb" for name in done) == 1
    metrics = json.loads((experiments.runner.folder / "trials" / f"{rows[3]['trials'][0]}.json").read_text())[
        "settings"
    ]
    assert metrics["language_model"].endswith("assets/opt")
    assert metrics["vision_encoder"].endswith("assets/beit")
    assert (metrics["prefix_length"], metrics["retriever"]) == (2, "spacy_gemel.RandomRetriever.v1")
    shown = [
        json.loads((experiments.runner.folder / "trials" / f"{rows[n]['trials'][0]}.json").read_text())["settings"]
        for n in (1, 2)
    ]
    assert (shown[0]["use_image"], shown[1]["n_demonstrations"]) == (False, 0)
    assert all(path.is_file() for path in write_results(results, experiments.runner.folder))
    before = len(done)
    again = Experiments(read_grid(found.path), world / "out", steps=2).run(found.tables)
    assert len(done) == before
    assert again["tables"] == results["tables"]


@pytest.mark.slow
def test_the_command_itself(world: Path) -> None:
    """In processes of their own, killed in the middle, run to the end, and then there is nothing left to run."""
    grid(world)
    words = ["grid", "configs/grid.yml", "--output", "out", "--steps", "2"]
    command = [sys.executable, "-m", "research", *words]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    for line in started.stderr:
        if line.startswith("[1/"):
            break
    started.terminate()
    assert started.wait(300) == 130
    assert not list(world.glob("out/*/trainings/*/trial.json"))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 trials: 0 kept, 4 to run" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0
    assert "4 trials: 4 kept, 0 to run" in again.stderr
