"""The three models under assets/mini load through their own libraries, and are the ones that were trained."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import srsly
from hypothesis import given, settings
from hypothesis import strategies as st
from mini_world.checksums import all_sums, check_checksums, write_checksums
from mini_world.distractors import make_distractors
from mini_world.names import KINDS, WORLD_SEED, load_world
from mini_world.prompts import question
from mini_world.tokens import train_tokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ASSETS = Path(__file__).resolve().parents[2] / "assets" / "mini"
needs_assets = pytest.mark.skipif(not (ASSETS / "checksums.json").exists(), reason="the mini models have not been made")


def test_checksums_tell_changes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    write_checksums(tmp_path)
    assert check_checksums(tmp_path) == []
    (tmp_path / "b").write_text("three")
    (tmp_path / "sub" / "a").unlink()
    (tmp_path / "c").write_text("new")
    assert sorted(check_checksums(tmp_path)) == ["b: changed", "c: not listed", "sub/a: missing"]


@needs_assets
def test_assets_are_as_listed_small_and_free_of_pickles() -> None:
    assert check_checksums(ASSETS) == []
    files = [path for path in ASSETS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    assert not [name for name in all_sums(ASSETS) if name.endswith((".bin", ".pt", ".pth", ".pkl", ".npy"))]


@needs_assets
def test_the_models_are_of_the_world_that_the_project_makes() -> None:
    report = json.loads((ASSETS / "pretrain.json").read_text(encoding="utf8"))
    seeds = {name: model["settings"]["seed"] for name, model in report["models"].items()}
    assert seeds == dict.fromkeys(("language_model", "vision_encoder", "sentence_encoder"), WORLD_SEED)
    assert srsly.read_yaml(ASSETS.parents[1] / "project.yml")["vars"]["world_seed"] == WORLD_SEED


@needs_assets
def test_language_model_loads_and_ends_a_name_with_a_newline() -> None:
    transformers = pytest.importorskip("transformers")
    path = str(ASSETS / "language_model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.LlamaForCausalLM.from_pretrained(path)
    assert len(tokenizer("\n", add_special_tokens=False)["input_ids"]) == 1
    assert all(len(tokenizer(kind, add_special_tokens=False)["input_ids"]) == 1 for kind in KINDS)
    assert model.config.vocab_size == len(tokenizer) and tokenizer.eos_token_id is not None
    assert next(model.parameters()).dtype.is_floating_point
    whole = tokenizer(question("A Mercury", "Mercury") + "Mercury (planet)\n", add_special_tokens=False)["input_ids"]
    asked = tokenizer(question("A Mercury", "Mercury"), add_special_tokens=False)["input_ids"]
    name = tokenizer("Mercury (planet)", add_special_tokens=False)["input_ids"]
    assert whole == asked + name + tokenizer("\n", add_special_tokens=False)["input_ids"]


_TOKENIZER = train_tokenizer(load_world(), make_distractors(load_world(), WORLD_SEED))


@settings(max_examples=200)
@given(st.text(max_size=40))
def test_any_text_decodes_to_itself(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    ids = _TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert _TOKENIZER.decode(ids) == text


@needs_assets
def test_vision_encoder_loads_through_open_clip() -> None:
    open_clip = pytest.importorskip("open_clip")
    import torch
    from mini_world.drawing import draw

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{ASSETS / 'vision_encoder'}")
    model.visual.proj = None
    pixels = preprocess(draw("car", np.random.default_rng(0)))
    with torch.inference_mode():
        assert model.visual(pixels[None]).shape == (1, 96)


@needs_assets
def test_sentence_encoder_knows_forms_of_one_name() -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(ASSETS / "sentence_encoder"), device="cpu")
    hawks, hawthorn, mercury = model.encode(["Hawks", "Hawthorn", "Mercury"], normalize_embeddings=True)
    assert hawks @ hawthorn > hawks @ mercury
