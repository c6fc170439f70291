"""spaCy's commands on the mini world with its own models and configs/mini.cfg, as in a clone of this repository."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import spacy
from spacy.cli._util import app as spacy_app
from thinc.api import Config
from typer.testing import CliRunner

from scripts.mini_world.generate import generate
from scripts.mini_world.names import WORLD_SEED
from spacy_gemel.__main__ import app as gemel_app
from spacy_gemel.data.reader import multimodal_corpus
from tests.mini_pipeline import LINKER, is_linked

ROOT = Path(__file__).parents[2]
NUMBERS = {"train": 100, "dev": 3, "test": 4}  # fewer training docs are an error to `debug data`
CONFIGS = [path.name for path in sorted((ROOT / "configs").glob("*.cfg"))]
SHORT = ("--training.max_steps", 4, "--training.eval_frequency", 4)


def run(app: object, *arguments: object, code: int = 0) -> str:
    """A command line in this process, which sees its arguments as one of its own does; what it says."""
    words = [str(argument) for argument in arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["python", *words])
        result = CliRunner().invoke(app, words)  # type: ignore[arg-type]
    output = result.output + (f"\n{result.exception!r}" if result.exception else "")
    assert result.exit_code == code, output
    return output


def spacy_says(*arguments: object, code: int = 0) -> str:
    return run(spacy_app, *arguments, code=code)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this repository after the project's steps `world`, `convert` and `build-kb`, with a few captions."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "assets").symlink_to(ROOT / "assets")
    generate(folder / "data", WORLD_SEED, NUMBERS)
    for split in NUMBERS:
        run(gemel_app, "convert", "jsonl", folder / "data" / f"{split}.jsonl", folder / "corpus" / f"{split}.spacy")
    tokenizer = folder / "assets" / "mini" / "language_model"
    run(gemel_app, "build-kb", folder / "data" / "entities.jsonl", folder / "kb/mini", "--tokenizer", tokenizer, "-q")
    return folder


@pytest.fixture(scope="module")
def filled(here: Path) -> Path:
    spacy_says("init", "fill-config", here / "configs" / "mini.cfg", here / "configs" / "filled.cfg")
    return here / "configs" / "filled.cfg"


@pytest.fixture(scope="module")
def best(here: Path) -> Path:
    """A pipeline that `spacy train` made of the config as it is in the repository."""
    said = spacy_says("train", here / "configs" / "mini.cfg", "--output", here / "training", *SHORT)
    assert "NEL_MICRO_F" in said
    return here / "training" / "model-best"


def test_fill_config_keeps_what_the_config_says(filled: Path) -> None:
    given = Config().from_disk(ROOT / "configs" / "mini.cfg", interpolate=False)
    full = Config().from_disk(filled, interpolate=False)
    assert given.merge(full) == full.merge(given)
    assert full["components"][LINKER]["n_demonstrations"] == 8
    assert {"before_creation", "load_vocab_data"} & {*full["nlp"], *full["initialize"]}


@pytest.mark.parametrize("name", CONFIGS)
def test_debug_config_wants_a_filled_one(here: Path, name: str) -> None:
    """As of spaCy's own partial configs; it says so, and so do the README and the configs."""
    paths = [word for split in ("train", "dev") for word in (f"--paths.{split}", here / "corpus" / f"{split}.spacy")]
    paths += ["--paths.kb", here / "kb" / "mini"]
    assert "field required" in spacy_says("debug", "config", here / "configs" / name, *paths, code=1).lower()
    spacy_says("init", "fill-config", here / "configs" / name, here / "configs" / f"full-{name}")
    assert "Config is valid" in spacy_says("debug", "config", here / "configs" / f"full-{name}", *paths)
    assert "init fill-config" in (ROOT / "configs" / name).read_text(encoding="utf8")
    assert "init fill-config" in (ROOT / "README.md").read_text(encoding="utf8")


def test_train(best: Path, here: Path) -> None:
    nlp = spacy.load(best)
    for example in multimodal_corpus(here / "corpus" / "test.spacy", gold_ents=True)(nlp):
        assert is_linked(nlp(example.predicted))
    performance = json.loads((best / "meta.json").read_text())["performance"]
    assert performance["gemel_linker_loss"] > 0
    assert performance["nel_micro_f"] is not None


def test_a_trained_pipeline_is_trained_on_by_code(best: Path, here: Path) -> None:
    """spaCy makes the optimizer of the config's own block alone."""
    nlp = spacy.load(best)
    optimizer = nlp.resume_training()
    data = list(multimodal_corpus(here / "corpus" / "train.spacy", gold_ents=True, limit=2)(nlp))
    before = nlp.get_pipe(LINKER).model.get_param("W").copy()  # type: ignore[attr-defined]
    for _ in range(2):  # the learning rate rises from zero
        assert nlp.update(data, sgd=optimizer)[LINKER] > 0
        optimizer.step_schedules()
    assert (nlp.get_pipe(LINKER).model.get_param("W") != before).any()  # type: ignore[attr-defined]


def test_assemble(best: Path, here: Path) -> None:
    parts = {
        "nlp": {"lang": "en", "pipeline": ["entity_ruler", LINKER]},
        "components": {"entity_ruler": {"factory": "entity_ruler"}, LINKER: {"source": str(best)}},
        "initialize": {"components": {"entity_ruler": {"patterns": [{"label": "ENT", "pattern": "Mercury"}]}}},
    }
    (here / "configs" / "parts.cfg").write_text(Config(parts).to_str())
    spacy_says("assemble", here / "configs" / "parts.cfg", here / "assembled")
    assert is_linked(spacy.load(here / "assembled")("A picture of Mercury."))
    said = spacy_says("assemble", here / "configs" / "mini.cfg", here / "nothing", code=1)
    assert 'source = "training/model-best"' in said


def test_package(best: Path, here: Path) -> None:
    """It takes the models with it; what a wheel of it does elsewhere is tried in tests/test_packaging.py."""
    (here / "packages").mkdir()
    spacy_says("package", best, here / "packages", "--build", "none", "--name", "mini", "--version", "1.0.0")
    nlp = spacy.load(here / "packages" / "en_mini-1.0.0" / "en_mini" / "en_mini-1.0.0")
    [example, *_] = multimodal_corpus(here / "corpus" / "test.spacy", gold_ents=True)(nlp)
    assert is_linked(nlp(example.predicted))
    assert "en_mini-1.0.0" in str(nlp.get_pipe(LINKER).folders["language_model"])  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_commands_as_programs(here: Path, filled: Path, best: Path) -> None:
    """As above, each in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PIP_NO_INDEX": "1"}

    def program(*words: object, code: int = 0) -> str:
        command = [sys.executable, "-m", "spacy", *map(str, words)]
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    program("init", "fill-config", "configs/mini.cfg", "configs/again.cfg")
    assert (here / "configs" / "again.cfg").read_text() == filled.read_text()
    assert "Config is valid" in program("debug", "config", "configs/again.cfg")
    assert "Corpus is loadable" in program("debug", "data", "configs/again.cfg")
    program("train", "configs/mini.cfg", "--output", "again", *SHORT)
    program("assemble", "configs/mini.cfg", "nothing", code=1)
    for command in (["evaluate"], ["benchmark", "accuracy"]):
        assert "not scored" in program(*command, "again/model-best", "corpus/test.spacy", code=1)
    (here / "wheels").mkdir()
    program("package", "again/model-best", "wheels", "--build", "wheel", "--name", "mini", "--version", "1.0.0")
    [wheel] = (here / "wheels").glob("*/dist/*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = sorted(Path(name).name for name in archive.namelist() if name.endswith(".safetensors"))
    assert held == sorted(path.name for path in (ROOT / "assets" / "mini").rglob("*.safetensors"))
