"""Code that lies in a model's folder is never run, whatever stdin says."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spacy_gemel.models.causal_lm import load_causal_lm
from spacy_gemel.models.sentence_encoder import load_sentence_encoder
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.models.vision_encoder import load_hugging_face_vision

LOADERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "language model": (
        "language_model",
        lambda name: load_causal_lm(name, revision=None, device="cpu", dtype=None),
    ),
    "tokenizer": ("language_model", load_tokenizer),
    "vision encoder": (
        "language_model",  # its config names code of its own, so that it does not matter what it was
        lambda name: load_hugging_face_vision(name, revision=None, device="cpu", dtype=None),
    ),
    **{
        f"sentence encoder, pooling {pooling}": (
            "sentence_encoder-plain",
            lambda name, pooling=pooling: load_sentence_encoder(name, device="cpu", pooling=pooling),
        )
        for pooling in ("pooler", "mean")
    },
    "sentence-transformers": ("sentence_encoder", lambda name: load_sentence_encoder(name, device="cpu")),
}


@pytest.fixture
def hostile(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a copy of a model whose config names code beside it, which leaves the file `ran`."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))

    def copy(source: str) -> Path:
        folder = tmp_path / "model"
        shutil.copytree(models / source, folder)
        (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n", encoding="utf8")
        classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoImageProcessor")
        config = json.loads((folder / "config.json").read_text(encoding="utf8"))
        config |= {"model_type": "own", "auto_map": dict.fromkeys(classes, "own.Own")}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf8")
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf8"))
        tokenizer |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf8")
        processor = {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}}
        (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf8")
        return folder

    return copy


@pytest.mark.parametrize("part", LOADERS)
def test_a_models_own_code_is_not_run(part: str, hostile: Callable[[str], Path], tmp_path: Path) -> None:
    source, load = LOADERS[part]
    folder = hostile(source)
    with pytest.raises(ValueError, match="could not be loaded"):
        load(str(folder))
    assert not (tmp_path / "ran").exists()


def test_no_class_but_those_of_sentence_transformers(models: Path, tmp_path: Path) -> None:
    """`joblib.numpy_pickle` has a function `load` as well, which would unpickle the path beside it."""
    folder = tmp_path / "encoder"
    shutil.copytree(models / "sentence_encoder", folder)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf8"))
    modules[1]["type"] = "joblib.numpy_pickle"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf8")
    with pytest.raises(ValueError, match=r"'joblib\.numpy_pickle' is none of sentence-transformers' own"):
        load_sentence_encoder(str(folder), device="cpu")
