"""The command, and the configs that carry what it says."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import spacy.util
from spacy.schemas import ConfigSchemaTraining
from spacy.util import registry
from typer.testing import CliRunner

from spacy_gemel.cli import app
from spacy_gemel.component import GemelLinker
from spacy_gemel.sizing.estimate import Data, Estimate, estimate
from spacy_gemel.sizing.gpus import GPUS, find_gpu
from spacy_gemel.sizing.known import MODELS
from spacy_gemel.sizing.plan import Plan, read_plan
from spacy_gemel.sizing.table import lines

CONFIGS = Path(__file__).parents[2] / "configs"
TOLD = {"small.cfg": "rtx-4060", "paper.cfg": "a100"}


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["size", *(str(argument) for argument in arguments)])


@cache
def found(name: str, gpu: str) -> Estimate:
    return estimate(read_plan(CONFIGS / name), GPUS[gpu])


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


def write(folder: Path, models: Path, **changes: str) -> Path:
    """A config of small random models."""
    parts = {
        "vision": f'name = "{models / "vision_encoder"}"',
        "language": f'name = "{models / "language_model"}"',
        **changes,
    }
    config = f"""
        [components]
        [components.gemel_linker]
        factory = "gemel_linker"
        {parts.get("linker", "")}
        [components.gemel_linker.language_model]
        @misc = "spacy_gemel.CausalLM.v1"
        {parts["language"]}
        [components.gemel_linker.vision_encoder]
        @misc = "spacy_gemel.OpenCLIP.v1"
        {parts["vision"]}
        [components.gemel_linker.retriever]
        @misc = "spacy_gemel.BM25Retriever.v1"
    """
    folder.mkdir(exist_ok=True)
    (folder / "my.cfg").write_text("\n".join(line.strip() for line in config.splitlines()))
    return folder / "my.cfg"


@pytest.mark.parametrize("name", TOLD)
def test_the_config_is_one_that_spacy_takes(name: str) -> None:
    """All but the models and the data, which are not here, is resolved."""
    paths = {f"paths.{part}": part for part in ("train", "dev", "kb")}
    config = spacy.util.load_config(CONFIGS / name, overrides=paths, interpolate=False)
    nlp = spacy.util.load_model_from_config(config, auto_fill=True, validate=True)
    assert isinstance(nlp.get_pipe("gemel_linker"), GemelLinker)
    training = registry.resolve(nlp.config.interpolate()["training"], schema=ConfigSchemaTraining)
    assert training["max_epochs"] == 5
    assert "ntested" in (CONFIGS / name).read_text(encoding="utf8").split("[paths]")[0]


@pytest.mark.parametrize(("name", "gpu"), TOLD.items())
def test_a_config_carries_what_is_computed_of_it(name: str, gpu: str) -> None:
    *computed, verdict = lines(found(name, gpu), GPUS[gpu], Data())
    assert verdict.startswith("fits: ")
    told = (CONFIGS / name).read_text(encoding="utf8").split("[paths]")[0]
    kept = dict(re.findall(r"^#   (\S.*?)  +(\S.*)$", told, re.M))
    assert list(kept) == [line.split("  ")[0] for line in computed]
    for label, line in zip(kept, computed, strict=True):
        # other versions of the libraries run other operations
        assert numbers(line[len(label) :]) == pytest.approx(numbers(kept[label]), rel=0.1, abs=0.011), label


def test_the_small_config_is_for_8_gb() -> None:
    plan = read_plan(CONFIGS / "small.cfg")
    assert plan.linker["language_model"]["name"] in MODELS
    assert plan.linker["language_model"]["dtype"] == "bfloat16"
    assert plan.linker["name_end"] == "newline"
    small = found("small.cfg", "rtx-4060")
    assert 0.5e9 <= small.parameters <= 2e9
    assert max(small.training, small.linking) <= 0.9 * 8 * 2**30
    large = Plan({**plan.linker, "batch_tokens": 8192}, plan.epochs, plan.folder)
    more = estimate(large, GPUS["rtx-4060"])
    assert more.training > 8 * 2**30 > more.linking
    assert more.mentions_per_second > small.mentions_per_second


def test_settings_that_cost(tmp_path: Path, models: Path) -> None:
    gpu = GPUS["rtx-4060"]
    plain = estimate(read_plan(write(tmp_path, models)), gpu)
    assert (plain.prompt, plain.epochs, plain.retriever) == (17 * 52, 5, 0)
    fewer = estimate(read_plan(write(tmp_path, models, linker="n_training_demonstrations = 2")), gpu)
    assert (fewer.training_prompt, fewer.prompt) == (3 * 52, plain.prompt)
    assert fewer.operations_step < plain.operations_step / 3
    assert fewer.training_hours <= plain.training_hours
    text = estimate(read_plan(write(tmp_path, models, linker="use_image = false")), gpu)
    assert (text.encoder, text.mapper, text.prompt) == (0, 0, 17 * 48)
    half = estimate(
        read_plan(write(tmp_path, models, vision=f'name = "{models / "vision_encoder"}"\ndtype = "float16"')), gpu
    )
    assert 2 * half.encoder == plain.encoder
    assert plain.mapper == 4 * (24 + 1) * 4 * 32


def test_a_faster_machine_is_faster(tmp_path: Path, models: Path) -> None:
    plan = read_plan(write(tmp_path, models))
    runs = [estimate(plan, find_gpu("rtx-4060", tflops, 500)) for tflops in (0.0001, 0.001, 0.01)]
    rates, hours = [run.mentions_per_second for run in runs], [run.training_hours for run in runs]
    assert rates == sorted(set(rates))
    assert hours == sorted(set(hours), reverse=True)


def test_a_model_that_is_not_known_by_its_config(tmp_path: Path, models: Path) -> None:
    config = write(tmp_path, models, language='name = "nobody/knows"')
    result = call(config)
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert "--model-config" in result.stderr
    (tmp_path / "its.json").write_text(json.dumps(MODELS["facebook/opt-350m"]))
    result = call(config, "--model-config", tmp_path / "its.json", "--tflops", 7, "--bandwidth", 100)
    assert result.exit_code == 0, result.output
    assert "331.2M parameters" in result.stdout
    assert "at 7 TFLOP/s and 100 GB/s" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no.cfg"], "no config there"),
        (["empty.cfg"], "one gemel_linker is needed"),
        (["my.cfg", "--gpu", "x"], "rtx-4060"),
        (["my.cfg", "--component", "other"], "'other'"),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, models)
    (tmp_path / "empty.cfg").write_text('[nlp]\nlang = "en"\n')
    result = call(*arguments)
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert says in result.stderr
