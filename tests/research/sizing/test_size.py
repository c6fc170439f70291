"""The command, and the configs that carry what it says."""

import json
import re
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import spacy.util
from spacy.schemas import ConfigSchemaTraining
from spacy.training.loop import create_train_batches
from spacy.util import registry
from typer.testing import CliRunner

from research.sizing.estimate import Data, Estimate, estimate
from research.sizing.gpus import GPUS, find_gpu
from research.sizing.known import LANGUAGE_MODELS
from research.sizing.plan import read_plan
from research.sizing.table import lines
from spacy_gemel.__main__ import app
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.utils.files import resolve
from tests.tokenizer_types import TYPES

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs"
TOLD = {"small.cfg": "rtx-4060", "paper.cfg": "a100"}
# The language models that configs name, each with the type of its tokenizer.
TOKENIZERS = {"HuggingFaceTB/SmolLM2-1.7B": "smollm", "meta-llama/Llama-2-7b-hf": "llama"}


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["size", *(str(argument) for argument in arguments)])


@cache
def found(name: str, gpu: str) -> Estimate:
    return estimate(read_plan(CONFIGS / name), GPUS[gpu])


def header(name: str) -> str:
    """What a config says of itself, without the marks of comments."""
    message = (CONFIGS / name).read_text(encoding="utf8").split("[paths]")[0]
    return " ".join(line.removeprefix("#").strip() for line in message.splitlines())


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
        {parts.get("training", "")}
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
    message = (CONFIGS / name).read_text(encoding="utf8").split("[paths]")[0]
    kept = dict(re.findall(r"^#   (\S.*?)  +(\S.*)$", message, re.M))
    assert list(kept) == [line.split("  ")[0] for line in computed]
    for label, line in zip(kept, computed, strict=True):
        # other versions of the libraries run other operations
        assert numbers(line[len(label) :]) == pytest.approx(numbers(kept[label]), rel=0.1, abs=0.011), label


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.cfg")))
def test_names_end_as_the_tokenizer_lets_them(name: str, tmp_path: Path) -> None:
    plan = read_plan(CONFIGS / name)
    model = plan.linker["language_model"]["name"]
    folder = resolve(model, [plan.folder])
    if not folder.is_dir():
        folder = tmp_path
        TYPES[TOKENIZERS[model]](folder)
    assert load_tokenizer(str(folder)).end_id(plan.linker["name_end"]) >= 0


def test_a_tokenizer_that_joins_the_newline_would_be_noticed(tmp_path: Path) -> None:
    TYPES["qwen"](tmp_path)
    with pytest.raises(ValueError, match="eos"):
        load_tokenizer(str(tmp_path)).end_id(read_plan(CONFIGS / "small.cfg").linker["name_end"])


@pytest.mark.parametrize("name", TOLD)
def test_the_schedule_is_that_of_the_data(name: str) -> None:
    """What the header says of them is what spaCy makes of the settings: 16 mentions an update, down to 0 at the end."""
    says = (
        r"WikiDiverse's ([\d,]+) training docs \(([\d,]+) mentions\): (\d+) docs an update, which is about (\d+) "
        r"mentions; in (\d+) epochs ([\d,]+) updates, of which the first ([\d,]+) warm up"
    )
    found = re.search(says, header(name))
    assert found
    docs, mentions, batch, of_update, epochs, updates, warm_up = (int(n.replace(",", "")) for n in found.groups())
    assert (docs, mentions) == (Data().docs, Data().mentions)
    assert of_update == round(batch * mentions / docs) == 16
    training = spacy.util.load_config(CONFIGS / name, interpolate=True)["training"]
    schedule = training["optimizer"]["learn_rate"]
    made = registry.resolve({"batcher": training["batcher"], "rate": schedule})
    batches = list(create_train_batches(spacy.blank("en"), lambda nlp: range(docs), made["batcher"], epochs))
    assert training["max_epochs"] == epochs
    assert training["max_steps"] == 0
    assert len(batches) == updates
    assert {len(examples) for _, examples in batches} == {batch, docs % batch}
    assert training["accumulate_gradient"] == 1  # the mean over an update's mentions, as the paper's
    rates = list(islice(made["rate"], updates + 1))
    assert warm_up == round(0.1 * updates)
    assert rates[warm_up] == max(rates) == schedule["initial_rate"]
    assert 0 < rates[updates - 1] < 0.001 * max(rates)
    assert rates[updates] == 0


def rows_of_table(file: str, first: str) -> list[list[str]]:
    """The cells of a table's rows, its head first. first: how the head begins."""
    lines = (ROOT / file).read_text(encoding="utf8").split(first)[1].split("\n\n")[0].splitlines()
    rows = [first + lines[0], *lines[2:]]
    return [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows]


def as_told(found: Estimate) -> dict[str, list[float]]:
    """The figures of a config that the documents repeat."""
    gib = 2**30
    assert found.evaluations is not None
    return {
        "linking": [found.linking / gib],
        "training": [found.training / gib],
        "hours": [found.training_hours],
        "evaluations": [found.evaluations * found.evaluation_hours],
        "speed": [found.mentions_per_second],
    }


@pytest.mark.parametrize(("name", "gpu"), TOLD.items())
def test_the_readme_repeats_what_is_computed(name: str, gpu: str) -> None:
    head, *rows = rows_of_table("README.md", "| | memory, linking |")
    assert len(head) == 6
    [row] = [row for row in rows if name in row[0]]
    assert short(read_plan(CONFIGS / name).linker["language_model"]["name"]) in row[0]
    for cell, figure in zip(row[1:], as_told(found(name, gpu)).values(), strict=True):
        assert numbers(cell) == pytest.approx(figure, rel=0.1, abs=0.06), cell


@pytest.mark.parametrize(("name", "gpu"), TOLD.items())
def test_the_page_on_sizes_repeats_what_is_computed(name: str, gpu: str) -> None:
    head, *rows = rows_of_table("docs/sizes.md", "| | small.cfg |")
    column = head.index(name)
    message = {row[0].split(",")[0]: row[column] for row in rows}
    computed, figures = found(name, gpu), as_told(found(name, gpu))
    assert short(read_plan(CONFIGS / name).linker["language_model"]["name"]) in message["language model"]
    expected = {
        "memory while linking": figures["linking"],
        "memory while training": figures["training"],
        "operations of a mention": [computed.operations_mention / 1e12, computed.operations_step / 1e12],
        "training on WikiDiverse": figures["hours"],
        "evaluations meanwhile": [computed.evaluations, *figures["evaluations"]],
        "mentions per second": figures["speed"],
    }
    assert set(message) == {"language model", *expected}
    for label, values in expected.items():
        assert numbers(message[label])[: len(values)] == pytest.approx(values, rel=0.1, abs=0.06), label
    assert any(f"{Data().mentions:,} mentions x {computed.epochs:g} epochs" in row[0] for row in rows)
    assert any(f"of its {Data().dev_mentions:,} dev mentions" in row[0] for row in rows)


def short(model: str) -> str:
    """A model's name as people say it."""
    return model.split("/")[1].replace("-7b-hf", "-7B")


def test_the_small_config_is_for_8_gb() -> None:
    plan = read_plan(CONFIGS / "small.cfg")
    assert plan.linker["language_model"]["name"] in LANGUAGE_MODELS
    assert plan.linker["language_model"]["dtype"] == "bfloat16"
    assert plan.linker["name_end"] == "newline"
    small = found("small.cfg", "rtx-4060")
    assert 0.5e9 <= small.parameters <= 2e9
    assert max(small.training, small.linking) <= 0.9 * 8 * 2**30
    # what the header and the comments say of other settings
    more = estimate(replace(plan, linker={**plan.linker, "batch_tokens": 8192}), GPUS["rtx-4060"])
    assert more.training > 8 * 2**30 > more.linking
    says = re.search(r"batch_tokens = 8192 links ([\d.]+) mentions per second in ([\d.]+) GiB", header("small.cfg"))
    assert says
    message = [float(number) for number in says.groups()]
    assert message == pytest.approx([more.mentions_per_second, more.linking / 2**30], rel=0.1)
    assert more.mentions_per_second > small.mentions_per_second
    twice = replace(plan, linker={**plan.linker, "batch_tokens": 2 * plan.linker["batch_tokens"]})
    assert estimate(twice, GPUS["rtx-4060"]).training > 8 * 2**30


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
    (tmp_path / "its.json").write_text(json.dumps(LANGUAGE_MODELS["facebook/opt-350m"]))
    result = call(config, "--model-config", tmp_path / "its.json", "--tflops", 7, "--bandwidth", 100)
    assert result.exit_code == 0, result.output
    assert "331.2M parameters" in result.stdout
    assert "at 7 TFLOP/s and 100 GB/s" in result.stdout


def test_a_gpu_of_ones_own(tmp_path: Path, models: Path) -> None:
    """It is not judged by the memory of one that nobody asked about."""
    config = write(tmp_path, models)

    def verdict(*arguments: object) -> str:
        result = call(config, *arguments)
        assert result.exit_code == 0, result.output
        return str(result.stdout.splitlines()[-1])

    own = ("--tflops", 60, "--bandwidth", 500)
    assert verdict().endswith("of 8 GiB")
    for arguments in (own, ("--gpu", "v100", *own)):
        assert verdict(*arguments).startswith("linking")
        assert verdict(*arguments, "--memory", 16).endswith("of 16 GiB")
    assert "v100 at 60 TFLOP/s and 500 GB/s" in verdict("--gpu", "v100", *own)
    assert "4060" not in verdict(*own)
    assert verdict(*own, "--memory", 0.1).startswith("does NOT fit")
    # of one that is known, the rest holds
    assert verdict("--gpu", "rtx-3090", *own).endswith("of 24 GiB")
    assert verdict("--gpu", "a100", "--memory", 40).endswith("of 40 GiB")


@pytest.mark.parametrize("setting", ["4bit", "8bit"])
def test_quantized_weights_count_as_they_are_kept(tmp_path: Path, models: Path, setting: str) -> None:
    name = f'name = "{models / "language_model"}"'
    plain, named = (
        write(tmp_path / kind, models, language=f"{name}\n{more}")
        for kind, more in (("plain", 'dtype = "bfloat16"'), ("named", f'quantization = "{setting}"'))
    )
    gpu = GPUS["rtx-4060"]
    before, after = estimate(read_plan(plain), gpu), estimate(read_plan(named), gpu)
    assert after.parameters == before.parameters
    # Two layers of 32 x 64 x 3 and, with two heads of keys for four, 32 x 32 x 2 and 32 x 16 x 2.
    numbers, rows = 2 * (3 * 32 * 64 + 2 * 32 * 32 + 2 * 32 * 16), 2 * (2 * 64 + 32 + 2 * 32 + 2 * 16)
    kept = numbers / 2 + 4 * numbers / 64 if setting == "4bit" else numbers + 4 * rows
    assert before.language_model - after.language_model == 2 * numbers - kept
    if setting == "4bit":  # with 8 bits, so small a model takes more for its sums of 32 bits
        assert after.linking < before.linking


def test_a_quantization_that_is_none(tmp_path: Path, models: Path) -> None:
    language = f'name = "{models / "language_model"}"\nquantization = "2bit"'
    result = call(write(tmp_path, models, language=language))
    assert result.exit_code == 1
    assert "use 8bit or 4bit, or null for none" in result.stderr


def test_the_evaluations_are_told(tmp_path: Path, models: Path) -> None:
    """With their number where the config tells it, and what one takes where it does not."""
    by_words = "[training]\nmax_epochs = 5\nmax_steps = 0"
    message = call(write(tmp_path, models, training=by_words), "--dev-mentions", 3600).stdout
    assert "mentions x 5 epochs  " in message
    each = re.search(r"each evaluation, 3,600 mentions +([\d.]+) hours", message)
    speed = re.search(r"linking +([\d.]+) mentions per second", message)
    assert each
    assert speed
    training = """
        [training]
        max_epochs = 10
        eval_frequency = 100
        [training.batcher]
        @batchers = "spacy.batch_by_sequence.v1"
        size = 4
    """
    config = write(tmp_path, models, training=training)
    slow = ("--tflops", 0.001, "--bandwidth", 1)
    message = call(config, "--mentions", 2000, "--docs", 400, "--dev-mentions", 36_000, *slow).stdout
    assert "training, 2,000 mentions x 10 epochs" in message
    all_of_them = re.search(r"10 evaluations, 36,000 mentions each +([\d.]+) hours", message)
    assert all_of_them
    assert "each evaluation" not in message
    one = estimate(read_plan(config), find_gpu(None, 0.001, 1), Data(mentions=2000, docs=400, dev_mentions=36_000))
    assert one.evaluations == 10
    assert one.evaluation_hours == pytest.approx(10 / one.mentions_per_second)
    assert float(all_of_them[1]) == pytest.approx(10 * one.evaluation_hours, abs=0.06)


def test_what_the_config_leaves_out_is_what_spacy_trains_with(tmp_path: Path, models: Path) -> None:
    """max_steps alone, or nothing at all: spaCy's batcher counts words, so that no epochs follow."""
    message = call(write(tmp_path, models), "--epochs", 3).stdout
    assert "x 3 epochs (assumed)" in message
    assert "101 evaluations" in message  # of its 20,000 updates
    message = call(write(tmp_path, models, training="[training]\nmax_steps = 1000")).stdout
    assert "x 5 epochs (assumed)" in message
    assert "6 evaluations" in message


def test_docs_follow_the_mentions(tmp_path: Path, models: Path) -> None:
    training = "[training]\nmax_epochs = 1\neval_frequency = 1\n[training.batcher]\n"
    training += '@batchers = "spacy.batch_by_sequence.v1"\nsize = 1'
    config = write(tmp_path, models, training=training)
    assert f"{Data().docs} evaluations" in call(config).stdout
    assert "1003 evaluations" in call(config, "--mentions", 2000).stdout
    assert "500 evaluations" in call(config, "--mentions", 2000, "--docs", 500).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no.cfg"], "no config there"),
        (["empty.cfg"], "one gemel_linker is needed"),
        (["my.cfg", "--gpu", "x"], "rtx-4060"),
        (["my.cfg", "--gpu", "x", "--tflops", "60"], "--bandwidth"),
        (["my.cfg", "--tflops", "60"], "give both"),
        (["my.cfg", "--bandwidth", "60"], "give both"),
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
