"""The command, and the configs that carry what it says."""

import json
import re
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import spacy.util
import torch
import transformers
from spacy.schemas import ConfigSchemaTraining
from spacy.training.loop import create_train_batches
from spacy.util import registry
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from research import sizes
from spacy_gemel.__main__ import app
from spacy_gemel.cli.common import read_config
from spacy_gemel.cli.size import lines
from spacy_gemel.cli.size_estimate import GPUS, KNOWN, Data, Gpu, estimate, find_gpu, language_model, vision_encoder
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.utils.files import resolve
from tests.tokenizer_types import TYPES

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
CARRIED = {"small.cfg": "rtx-4060", "paper.cfg": "a100"}
# The language models that configs name, each with the type of its tokenizer.
TOKENIZERS = {
    "HuggingFaceTB/SmolLM2-1.7B": "smollm",
    "meta-llama/Llama-2-7b-hf": "llama",
    "../assets/real/language_model": "smollm",  # which `project run real-models` makes
}


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["size", *(str(argument) for argument in arguments)])


Figures = dict[str, Any]


def estimate_of(config: Path, gpu: Gpu = GPUS["rtx-4060"], data: Data | None = None, **settings: Any) -> Figures:
    _, linker, training, folder = read_config(config)
    return estimate({**linker, **settings}, training, gpu, data or Data(), folder)


@cache
def figures_of(name: str, gpu: str) -> Figures:
    return estimate_of(CONFIGS / name, GPUS[gpu])


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
        @misc = "spacy_gemel.{parts.get("vision_loader", "OpenCLIP")}.v1"
        {parts["vision"]}
        [components.gemel_linker.retriever]
        @misc = "spacy_gemel.BM25Retriever.v1"
        {parts.get("training", "")}
    """
    folder.mkdir(exist_ok=True)
    (folder / "my.cfg").write_text("\n".join(line.strip() for line in config.splitlines()))
    return folder / "my.cfg"


@pytest.mark.parametrize("name", CARRIED)
def test_the_config_is_one_that_spacy_takes(name: str) -> None:
    """All but the models and the data, which are not here, is resolved."""
    paths = {f"paths.{part}": part for part in ("train", "dev", "kb")}
    config = spacy.util.load_config(CONFIGS / name, overrides=paths, interpolate=False)
    nlp = spacy.util.load_model_from_config(config, auto_fill=True, validate=True)
    assert isinstance(nlp.get_pipe("gemel_linker"), GemelLinker)
    training = registry.resolve(nlp.config.interpolate()["training"], schema=ConfigSchemaTraining)
    assert training["max_epochs"] == 5
    assert "ntested" in (CONFIGS / name).read_text(encoding="utf8").split("[paths]")[0]


@pytest.mark.parametrize(("name", "gpu"), CARRIED.items())
def test_a_config_carries_what_is_computed_of_it(name: str, gpu: str) -> None:
    *computed, verdict = lines(figures_of(name, gpu), GPUS[gpu], Data())
    assert verdict.startswith("fits: ")
    message = (CONFIGS / name).read_text(encoding="utf8").split("[paths]")[0]
    kept = dict(re.findall(r"^#   (\S.*?)  +(\S.*)$", message, re.M))
    assert list(kept) == [line.split("  ")[0] for line in computed]
    for label, line in zip(kept, computed, strict=True):
        # other versions of the libraries run other operations
        assert numbers(line[len(label) :]) == pytest.approx(numbers(kept[label]), rel=0.1, abs=0.011), label


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.cfg")))
def test_names_end_as_the_tokenizer_lets_them(name: str, tmp_path: Path) -> None:
    linker = read_config(CONFIGS / name)[1]
    model = linker["language_model"]["name"]
    folder = resolve(model, [CONFIGS])
    if not folder.is_dir():
        folder = tmp_path
        TYPES[TOKENIZERS[model]](folder)
    assert load_tokenizer(str(folder)).end_id(linker["name_end"]) >= 0


def test_a_tokenizer_that_joins_the_newline_would_be_noticed(tmp_path: Path) -> None:
    TYPES["qwen"](tmp_path)
    with pytest.raises(ValueError, match="eos"):
        load_tokenizer(str(tmp_path)).end_id(read_config(CONFIGS / "small.cfg")[1]["name_end"])


@pytest.mark.parametrize("name", CARRIED)
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


def test_the_page_on_sizes_has_the_table_that_is_computed() -> None:
    assert sizes.table() in (ROOT / "docs" / "sizes.md").read_text(encoding="utf8")


def test_the_small_config_is_for_8_gb() -> None:
    linker = read_config(CONFIGS / "small.cfg")[1]
    assert (linker["language_model"]["dtype"], linker["name_end"]) == ("bfloat16", "newline")
    small = figures_of("small.cfg", "rtx-4060")
    assert 0.5e9 <= small["parameters"] <= 2e9
    assert max(small["training"], small["linking"]) <= 0.9 * 8 * 2**30
    # what the header and the comments say of other settings
    more = estimate_of(CONFIGS / "small.cfg", batch_tokens=8192)
    assert more["training"] > 8 * 2**30 > more["linking"]
    says = re.search(r"batch_tokens = 8192 links ([\d.]+) mentions per second in ([\d.]+) GiB", header("small.cfg"))
    assert says
    computed = [more["mentions_per_second"], more["linking"] / 2**30]
    assert numbers(" ".join(says.groups())) == pytest.approx(computed, rel=0.1)
    twice = estimate_of(CONFIGS / "small.cfg", batch_tokens=2 * linker["batch_tokens"])
    assert twice["training"] > 8 * 2**30


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("meta-llama/Llama-2-7b-hf", 6738.4),
        ("facebook/opt-350m", 331.2),
        ("facebook/opt-6.7b", 6658.5),
        ("HuggingFaceTB/SmolLM2-1.7B", 1711.4),
        ("Qwen/Qwen2.5-0.5B", 494.0),
    ],
)
def test_parameters_are_those_of_the_released_weights(name: str, millions: float) -> None:
    """But for norms and biases."""
    assert language_model(KNOWN[name]).parameters / 1e6 == pytest.approx(millions, rel=0.002)


def test_settings_that_cost(tmp_path: Path, models: Path) -> None:
    plain = estimate_of(write(tmp_path, models))
    assert (plain["prompt"], plain["epochs"], plain["retriever"]) == (17 * 52, 5, 0)
    fewer = estimate_of(write(tmp_path, models), n_training_demonstrations=2)
    assert (fewer["training_prompt"], fewer["prompt"]) == (3 * 52, plain["prompt"])
    assert fewer["step_operations"] < plain["step_operations"] / 3
    assert fewer["training_hours"] <= plain["training_hours"]
    text = estimate_of(write(tmp_path, models), use_image=False)
    assert (text["encoder"], text["mapper"], text["prompt"]) == (0, 0, 17 * 48)
    half = estimate_of(write(tmp_path, models, vision=f'name = "{models / "vision_encoder"}"\ndtype = "float16"'))
    assert 2 * half["encoder"] == plain["encoder"]
    assert plain["mapper"] == 4 * (24 + 1) * 4 * 32
    assert plain["description_vectors"] == 0  # BM25 has no encoder
    assert figures_of("small.cfg", "rtx-4060")["description_vectors"] == 6_000_000 * 384 * 2


def test_a_model_that_is_not_known_by_its_config(tmp_path: Path, models: Path) -> None:
    config = write(tmp_path, models, language='name = "nobody/knows"')
    result = call(config)
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert "--model-config" in result.stderr
    (tmp_path / "its.json").write_text(json.dumps(KNOWN["facebook/opt-350m"]))
    result = call(config, "--model-config", tmp_path / "its.json", "--tflops", 7, "--bandwidth", 100)
    assert result.exit_code == 0, result.output
    assert "0.331B parameters" in result.stdout
    assert "at 7 TFLOP/s and 100 GB/s" in result.stdout


def test_an_encoder_that_cannot_be_built_is_left_out(tmp_path: Path, models: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"model_type": "nobodys", "hidden_sizes": [256, 512]}')
    result = call(write(tmp_path, models, vision='name = "odd"', vision_loader="HuggingFaceVision"))
    assert result.exit_code == 0, result.output
    assert "not included: vision_encoder: it is left out" in result.stdout


RESNET = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1]}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "image_size": 32}


@pytest.mark.parametrize(
    "encoder",
    [
        transformers.ResNetModel(transformers.ResNetConfig(**RESNET)),
        transformers.ViTModel(transformers.ViTConfig(**VIT)),
    ],
    ids=["ResNet", "ViT"],
)
def test_an_encoder_counts_as_the_model_that_is_loaded(encoder: Any, tmp_path: Path) -> None:
    encoder.eval().save_pretrained(tmp_path)
    encoder.config._attn_implementation = "eager"  # torch does not count a processor's fused attention
    side = getattr(encoder.config, "image_size", 224)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = encoder(pixel_values=torch.zeros(1, 3, side, side))
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    block = {"@misc": "spacy_gemel.HuggingFaceVision.v1", "name": str(tmp_path)}
    width = output.pooler_output.flatten(1).shape[1]
    assert vision_encoder(block, tmp_path) == (parameters, width, counter.get_total_flops())


def test_a_resnet_101_takes_the_operations_that_its_paper_gives(tmp_path: Path) -> None:
    """7.6 billion multiply-adds (He et al. 2016, table 1), without the strides of version 1.5: 7.8."""
    transformers.ResNetConfig(depths=[3, 4, 23, 3]).save_pretrained(tmp_path)
    block = {"@misc": "spacy_gemel.HuggingFaceVision.v1", "name": str(tmp_path)}
    assert vision_encoder(block, tmp_path)[2] / 2e9 == pytest.approx(7.8, rel=0.01)


def test_an_encoder_of_timm_counts_with_its_features(tmp_path: Path, models: Path) -> None:
    """All that its config.json says is its name; one that timm does not know is left out."""
    for name in ("tf_efficientnet_lite0", "nobody"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": "timm_wrapper", "architecture": name}))
    timm = {"vision_loader": "HuggingFaceVision"}
    figures = estimate_of(write(tmp_path, models, vision=f'name = "{tmp_path / "tf_efficientnet_lite0"}"', **timm))
    assert figures["encoder"] / 4e6 == pytest.approx(3.37, rel=0.01)  # of 4.65 million with its classifier
    assert figures["mapper"] == 4 * (1280 + 1) * 4 * 32
    assert figures["unknown"] == []
    unknown = estimate_of(write(tmp_path, models, vision=f'name = "{tmp_path / "nobody"}"', **timm))
    assert "vision_encoder" in unknown["unknown"][0]


def test_another_gpu(tmp_path: Path, models: Path) -> None:
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
    assert verdict("--tflops", 60).endswith("of 8 GiB")


@pytest.mark.parametrize("setting", ["4bit", "8bit"])
def test_quantized_weights_count_as_they_are_kept(tmp_path: Path, models: Path, setting: str) -> None:
    name = f'name = "{models / "language_model"}"'
    plain, named = (
        write(tmp_path / kind, models, language=f"{name}\n{more}")
        for kind, more in (("plain", 'dtype = "bfloat16"'), ("named", f'quantization = "{setting}"'))
    )
    before, after = estimate_of(plain), estimate_of(named)
    assert after["parameters"] == before["parameters"]
    # two layers of 32 x 64 x 3 and, with two heads of keys for four, 32 x 32 x 2 and 32 x 16 x 2
    quantized = 2 * (3 * 32 * 64 + 2 * 32 * 32 + 2 * 32 * 16)
    bytes_each = 0.5 + 4 / 64 if setting == "4bit" else 1
    assert before["language_model"] - after["language_model"] == quantized * (2 - bytes_each)
    assert after["linking"] < before["linking"]


def test_a_quantization_that_is_none(tmp_path: Path, models: Path) -> None:
    language = f'name = "{models / "language_model"}"\nquantization = "2bit"'
    result = call(write(tmp_path, models, language=language))
    assert result.exit_code == 1
    assert "use 8bit or 4bit, or null for none" in result.stderr


def test_the_number_of_evaluations(tmp_path: Path, models: Path) -> None:
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
    one = estimate_of(config, find_gpu(None, 0.001, 1), Data(mentions=2000, docs=400, dev_mentions=36_000))
    assert one["evaluations"] == 10
    assert one["evaluation_hours"] == pytest.approx(10 / one["mentions_per_second"])
    assert float(all_of_them[1]) == pytest.approx(10 * one["evaluation_hours"], abs=0.06)


def test_what_the_config_leaves_out_is_what_spacy_trains_with(tmp_path: Path, models: Path) -> None:
    """max_steps alone, or nothing at all: spaCy's batcher counts words, so that no epochs follow."""
    message = call(write(tmp_path, models), "--epochs", 3).stdout
    assert "x 3 epochs (assumed)" in message
    assert "101 evaluations" in message  # of its 20,000 updates
    message = call(write(tmp_path, models, training="[training]\nmax_steps = 1000")).stdout
    assert "x 5 epochs (assumed)" in message
    assert "6 evaluations" in message


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no.cfg"], "no config there"),
        (["empty.cfg"], "one gemel_linker is needed"),
        (["my.cfg", "--gpu", "x"], "rtx-4060"),
        (["my.cfg", "--gpu", "x", "--tflops", "60"], "--bandwidth"),
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
