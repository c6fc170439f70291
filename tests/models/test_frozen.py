"""Frozen models by name are shared within a process."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spacy_gemel.models.frozen import FrozenModel, loading
from spacy_gemel.models.vision_encoder import VisionEncoder
from spacy_gemel.registry import causal_lm, open_clip_encoder, sentence_transformer_retriever


def test_one_model_for_all_pipes_of_a_process(models: Path) -> None:
    first: FrozenModel[VisionEncoder] = open_clip_encoder(str(models / "vision_encoder"))
    second: FrozenModel[VisionEncoder] = open_clip_encoder(str(models / "vision_encoder"))
    assert first.load("cpu") is second.load("cpu")
    other = open_clip_encoder(str(models / "vision_encoder"), projection=True)
    assert other.load("cpu") is not first.load("cpu")


DAMAGED = {
    "language_model": [
        ("model.safetensors", b"\xff" * 8 + b"{}"),
        ("config.json", b'{"model_type": "llama", "initializer_range": "much"}'),
        ("tokenizer.json", b'{"truncation": " "}'),
        ("tokenizer_config.json", b'{"tokenizer_class": {}}'),
    ],
    "vision_encoder": [("open_clip_model.safetensors", b"\xff" * 9), ("open_clip_config.json", b'{"model_cfg": 7}')],
    "sentence_encoder": [
        ("modules.json", b"7.5"),
        ("1_Pooling/config.json", b'["mean"]'),
        ("config_sentence_transformers.json", b'"x"'),
        ("sentence_bert_config.json", b'{"max_seq_length": [[7]]}'),
        ("tokenizer_config.json", b"0.5"),
    ],
}
LOADERS: dict[str, Callable[[str], FrozenModel[Any] | None]] = {
    "language_model": causal_lm,
    "vision_encoder": open_clip_encoder,
    "sentence_encoder": lambda name: sentence_transformer_retriever(name).frozen,
}


@pytest.mark.parametrize(("model", "file", "content"), [(m, *change) for m in DAMAGED for change in DAMAGED[m]])
def test_a_file_that_its_library_cannot_read(
    models: Path, tmp_path: Path, model: str, file: str, content: bytes
) -> None:
    """Each raises another class, some only when the model is first used."""
    folder = shutil.copytree(models / model, tmp_path / "model")
    (folder / file).write_bytes(content)
    frozen = LOADERS[model](str(folder))
    assert frozen is not None
    with pytest.raises(ValueError, match=rf"The .* '{folder}' could not be loaded \(") as raised:
        frozen.load("cpu")
    assert raised.value.__cause__ is not None


def test_a_lack_of_memory_is_no_damage() -> None:
    with pytest.raises(MemoryError), loading("language model", "x"):
        raise MemoryError


def test_a_name_with_a_user_who_does_not_exist(tmp_path: Path) -> None:
    for name in ("~nobody-here/model", "~nobody\0/a/b"):
        with pytest.raises(ValueError, match="does not exist"):
            causal_lm(name).load("cpu")


def test_a_folder_that_is_no_models_is_not_walked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos" / "more").mkdir(parents=True)
    monkeypatch.setattr(Path, "rglob", lambda *_: pytest.fail("it is walked through"))
    with pytest.raises(ValueError, match="could not be loaded"):
        causal_lm(str(tmp_path)).load("cpu")


def test_a_bundle_is_known_by_every_setting_that_chooses_the_files(tmp_path: Path) -> None:
    """Also by one that a new encoder brings; a bundle that is older than the setting stays valid."""

    def frozen(**settings: object) -> FrozenModel[Any]:
        return FrozenModel("vision encoder", "nowhere:load", "nowhere:bundle", "name", None, tuple(settings.items()))

    marker = tmp_path / "bundle.json"
    marker.write_text('{"name": "name", "revision": "a", "variant": "small"}')
    assert frozen(revision="a", variant="small", dtype="bfloat16").is_bundled(tmp_path)
    assert not frozen(revision="a", variant="large").is_bundled(tmp_path)
    assert not frozen(revision="b", variant="small").is_bundled(tmp_path)
    marker.write_text('{"name": "name", "revision": null}')
    assert frozen(revision=None, variant="small").is_bundled(tmp_path)
    assert not frozen(variant="small").is_bundled(tmp_path)  # another kind of model, which has no revision
