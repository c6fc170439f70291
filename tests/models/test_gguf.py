"""Language models in GGUF files: the same model as from safetensors, bundled as such, and one error for each defect."""

import importlib.util
import json
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import spacy
import torch
from safetensors.torch import load_file, save_file
from spacy.language import Language

from benchmarks.gguf_file import write_gguf
from spacy_gemel.cli.model_card import make_meta, missing_models
from spacy_gemel.models.causal_lm import CausalLM, load_causal_lm
from spacy_gemel.models.gguf import missing_packages
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.registry import causal_lm
from spacy_gemel.utils.files import files_in
from spacy_gemel.utils.messages import ModelWarning
from tests.commands import call, failed
from tests.mini_pipeline import LINKER, add_linker, assert_same, captions, entity_id, linker, make_pipeline
from tests.models.test_tokenizer import FAMILIES, save_family
from tests.tiny import NAMES

Type = gguf.GGMLQuantizationType
REAL = Path(__file__).parents[2] / "assets" / "real" / "language_model"
pytestmark = needs_gguf = pytest.mark.skipif(bool(missing_packages()), reason="needs spacy-gemel[gguf]")
KINDS = pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.Q8_0], ids=lambda kind: kind.name)


@pytest.fixture(scope="module")
def original(models: Path) -> Path:
    return models / "language_model"


@pytest.fixture(scope="module")
def file(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(original, tmp_path_factory.mktemp("gguf") / "model.gguf", Type.Q8_0)


def load(path: Path, dtype: str | None = None) -> CausalLM:
    return load_causal_lm(str(path), revision=None, device="cpu", dtype=dtype)


def logits(model: CausalLM, ids: Sequence[int] = range(2, 60)) -> torch.Tensor:
    embeddings = model.embed(ids)[None]
    with torch.no_grad():
        return model.forward(embeddings, torch.arange(len(ids)))


# The same model


@KINDS
def test_the_same_logits_as_from_safetensors_with_the_same_weights(original: Path, tmp_path: Path, kind: Type) -> None:
    rounded = shutil.copytree(original, tmp_path / "rounded")
    weights = load_file(original / "model.safetensors")
    for name, value in weights.items():
        if value.ndim == 2:
            weights[name] = torch.from_numpy(gguf.dequantize(gguf.quantize(value.numpy(), kind), kind).copy())
    save_file(weights, rounded / "model.safetensors", {"format": "pt"})
    model = load(write_gguf(original, tmp_path / "model.gguf", kind))
    torch.testing.assert_close(logits(model), logits(load(rounded)), rtol=1e-4, atol=1e-5)
    assert model.dtype == torch.float32
    assert not model.quantized
    assert not any(parameter.requires_grad for parameter in model.model.parameters())


@pytest.mark.parametrize(
    ("family", "pre"), [("GPT-2", "default"), ("SmolLM2", "smollm"), ("Llama-3", "llama-bpe"), ("Llama-2", "default")]
)
def test_the_same_tokens_also_from_the_bundle(tmp_path: Path, family: str, pre: str) -> None:
    kind = FAMILIES[family].kind
    save_family(replace(FAMILIES["Llama-2"], kind=kind), tmp_path / "original")
    file = write_gguf(tmp_path / "original", tmp_path / "model.gguf", pre=pre)
    causal_lm(str(file)).bundle(tmp_path / "bundle")
    one, other, bundled = (load_tokenizer(str(path)) for path in (file, tmp_path / "original", tmp_path / "bundle"))
    texts = [*NAMES, "tab\tand  two spaces", "🌍 naïve", "</s> and <s>\n", "in 2020, 1,234.5%"]
    assert one.encode(texts) == other.encode(texts)
    assert [one.decode(ids) for ids in one.encode(NAMES)] == NAMES
    assert one.end_id("eos") == other.end_id("eos")
    assert one.special_ids >= {one.end_id("eos")}
    assert one.fingerprint == bundled.fingerprint
    assert one.special_ids == bundled.special_ids


def test_a_dtype(file: Path) -> None:
    assert load(file, "bfloat16").dtype == torch.bfloat16


def test_a_relative_name_is_looked_for_as_a_folder_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    frozen = causal_lm(file.name)
    assert frozen.source() == str(file)
    assert frozen.load("cpu") is causal_lm(str(file)).load("cpu")


def test_the_knowledge_base_is_built_by_the_file_s_own_tokenizer(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    write_entities(tmp_path / "entities.jsonl")
    result = call("build-kb", tmp_path / "entities.jsonl", tmp_path / "kb", "--tokenizer", file.name)
    assert result.exit_code == 0, result.output
    meta = json.loads((tmp_path / "kb" / "meta.json").read_text(encoding="utf8"))
    assert meta["tokenizer_fingerprint"] == load_tokenizer(str(file)).fingerprint


def write_entities(path: Path) -> None:
    rows = [json.dumps({"id": entity_id(name), "name": name}) for name in NAMES]
    path.write_text("\n".join(rows), encoding="utf8")


# Saved


@pytest.fixture
def own(file: Path, tmp_path: Path) -> Path:
    """A copy of the file that a test may change."""
    return Path(shutil.copy2(file, tmp_path / "own.gguf"))


@pytest.fixture(scope="module")
def kb(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kb")
    write_entities(folder / "entities.jsonl")
    assert call("build-kb", folder / "entities.jsonl", folder / "kb", "--tokenizer", file).exit_code == 0
    return folder / "kb"


def pipeline(models: Path, kb: Path, own: Path, **changes: Any) -> Language:
    block = {"@misc": "spacy_gemel.CausalLM.v1", "name": str(own)}
    return make_pipeline(models, kb, language_model=block, **changes)


@pytest.mark.parametrize("form", ["disk", "bytes"])
def test_a_bundle_holds_safetensors_and_links_without_the_file(
    models: Path, kb: Path, own: Path, tmp_path: Path, form: str
) -> None:
    nlp = pipeline(models, kb, own, bundle_models=True)
    expected = list(nlp.pipe(captions(nlp)))
    nlp.to_disk(tmp_path / "saved")
    data = nlp.to_bytes()
    own.unlink()
    if form == "disk":
        loaded = spacy.load(tmp_path / "saved")
    else:
        block = {"@misc": "spacy_gemel.CausalLM.v1", "name": str(own)}
        loaded = add_linker(spacy.blank("en"), models, language_model=block, bundle_models=True).from_bytes(data)
    assert_same(list(loaded.pipe(captions(loaded))), expected)
    bundle = tmp_path / "saved" / LINKER / "models" / "language_model"
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(files_in(bundle))
    assert not [name for name in files_in(tmp_path / "saved") if name.endswith(".gguf")]
    assert load_tokenizer(str(bundle)).fingerprint == linker(nlp).linking_model.language_model.tokenizer.fingerprint
    loaded.to_disk(tmp_path / "again")
    again = spacy.load(tmp_path / "again")
    assert_same(list(again.pipe(captions(again))), expected)


def test_a_bundle_has_the_dtype_of_the_config(models: Path, kb: Path, own: Path, tmp_path: Path) -> None:
    block = {"@misc": "spacy_gemel.CausalLM.v1", "name": str(own), "dtype": "bfloat16"}
    make_pipeline(models, kb, language_model=block, bundle_models=True).to_disk(tmp_path)
    weights = load_file(tmp_path / LINKER / "models" / "language_model" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}


def test_a_pipe_that_is_not_bundled_finds_the_file_from_anywhere(
    models: Path, kb: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nlp = pipeline(models, kb, Path(own.name))
    nlp.to_disk(tmp_path / "saved")
    expected = list(nlp.pipe(captions(nlp)))
    assert "own.gguf" in missing_models(nlp)
    assert any(
        source["name"].startswith("Language model: own.gguf, sha256 ") for source in make_meta(nlp, {})["sources"]
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = spacy.load(tmp_path / "saved")
    assert_same(list(loaded.pipe(captions(loaded))), expected)
    own.unlink()
    with pytest.raises(ValueError, match=r"The language model 'own.gguf' does not exist: there is no 'own.gguf' besid"):
        spacy.load(tmp_path / "saved")


def test_another_file_in_its_place_is_never_bundled(models: Path, kb: Path, own: Path, tmp_path: Path) -> None:
    nlp = pipeline(models, kb, own, bundle_models=True)
    nlp.to_disk(tmp_path / "saved")
    before = (tmp_path / "saved" / LINKER / "models" / "language_model" / "model.safetensors").read_bytes()
    with own.open("ab") as changed:
        changed.write(b"\0" * 32)
    with pytest.raises(ValueError, match=r"own\.gguf no longer holds the model that was loaded"):
        nlp.to_disk(tmp_path / "saved")
    assert (tmp_path / "saved" / LINKER / "models" / "language_model" / "model.safetensors").read_bytes() == before
    changed_file = pipeline(models, kb, own, bundle_models=True)  # loaded anew, it is
    changed_file.to_disk(tmp_path / "saved")


# What cannot be read


def cut(source: Path, target: Path, size: int) -> Path:
    target.write_bytes(source.read_bytes()[:size])
    return target


def with_unknown_type(source: Path, target: Path) -> Path:
    """A tensor of a quantization of the future: its type is the number after the name and the dimensions."""
    content = bytearray(source.read_bytes())
    start = content.index(b"output_norm.weight") + len("output_norm.weight")
    struct.pack_into("<I", content, start + 4 + 8, 99)
    target.write_bytes(content)
    return target


def with_long_list(source: Path, target: Path) -> Path:
    """A list that says it has more numbers than a machine could count to."""
    content = bytearray(source.read_bytes())
    key = b"tokenizer.ggml.scores"
    struct.pack_into("<Q", content, content.index(key) + len(key) + 8, 2**60)
    target.write_bytes(content)
    return target


def with_a_key_twice(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes().replace(b"ggml.eos_token_id", b"ggml.bos_token_id"))
    return target


Defect = Callable[[Path, Path, Path], Path]
DEFECTS: dict[str, tuple[Defect, str]] = {
    "no GGUF": (lambda original, file, path: cut(original / "config.json", path, 100), "is no GGUF file: give one, or"),
    "empty": (lambda original, file, path: cut(file, path, 0), "is no GGUF file: give one, or a folder"),
    "cut in its head": (lambda original, file, path: cut(file, path, 200), "is cut short or damaged"),
    "cut in its tokens": (lambda original, file, path: cut(file, path, 2000), "is cut short or damaged"),
    "cut in its weights": (
        lambda original, file, path: cut(file, path, file.stat().st_size - 5000),
        "is cut short or damaged",
    ),
    "cut at its end": (
        lambda original, file, path: cut(file, path, file.stat().st_size - 64),
        "is cut short or damaged",
    ),
    "a list without an end": (
        lambda original, file, path: with_long_list(file, path),
        "is cut short or damaged (it says that it holds more than it does)",
    ),
    "a key twice": (lambda original, file, path: with_a_key_twice(file, path), "is cut short or damaged"),
    "not there": (lambda original, file, path: path, "does not exist"),
    "another architecture": (
        lambda original, file, path: write_gguf(original, path, architecture="whisper"),
        "architecture whisper is not supported yet.). Give a local folder that holds it, or a GGUF file of an archit",
    ),
    "an unknown quantization": (
        lambda original, file, path: with_unknown_type(file, path),
        "has a quantization that gguf does not know (",
    ),
    "a quantization that nothing reads": (
        lambda original, file, path: write_gguf(
            original, path, **{"blk.0.x.weight": (np.zeros((1, 292), np.uint8), None, Type.Q8_K)}
        ),
        "holds Q8_K tensors, such as blk.0.x.weight, which gguf cannot dequantise: give a file of another quantization",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_file_that_cannot_be_read_is_one_error(original: Path, file: Path, tmp_path: Path, defect: str) -> None:
    make, message = DEFECTS[defect]
    path = make(original, file, tmp_path / "bad.gguf")
    with pytest.raises(ValueError) as raised:
        causal_lm(str(path)).load("cpu")
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    write_entities(tmp_path / "entities.jsonl")
    result = call("build-kb", tmp_path / "entities.jsonl", tmp_path / "kb", "--tokenizer", path)
    failed(result, message)
    assert not (tmp_path / "kb").exists()


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("gguf", "gguf"),
        ("accelerate", "accelerate"),
        ("transformers.integrations.gguf", "transformers 5.24 or later"),
    ],
)
def test_the_extra_is_named(file: Path, module: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(ValueError, match=rf'needs {missing}, which is not installed: run pip install "spacy-gemel\[g'):
        load(file)


def test_it_is_not_quantized_again(file: Path) -> None:
    with pytest.raises(ValueError, match=r"quantization = '8bit' cannot be used with the GGUF file .*set quantization"):
        causal_lm(str(file), quantization="8bit").load("cpu")


def test_scaled_rotary_frequencies_are_told_of(original: Path, tmp_path: Path) -> None:
    path = write_gguf(original, tmp_path / "m.gguf", **{"rope_freqs.weight": np.ones(4, dtype=np.float32)})
    with pytest.warns(ModelWarning, match=r"rope_freqs\.weight.*which transformers ignores"):
        load(path)


# The real one


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs assets/real: python -m spacy project run real-models")
def test_the_real_file_is_the_model_that_was_made_from_it() -> None:
    [path] = REAL.glob("*.gguf")
    one, other = load(path), load(REAL)
    assert one.tokenizer.fingerprint == other.tokenizer.fingerprint
    ids = one.tokenizer.encode(["Mercury seen at dawn is a planet, a car or a god.\n"])[0]
    torch.testing.assert_close(logits(one, ids), logits(other, ids), rtol=1e-4, atol=1e-4)
