"""Several processes, however they are started: the same answers, and no hanging."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from spacy.language import Language

from spacy_gemel.models.frozen import FrozenModel
from spacy_gemel.registry import causal_lm, hugging_face_vision, open_clip_encoder, sentence_transformer_retriever
from tests.mini_pipeline import LINKER, assert_same, captions
from tests.sending import Sent

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> None:
    """A program of the tests, on two torch threads as a user has them, and not for ever."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, start_new_session=True, **pipes) as program:
        try:
            output, errors = program.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)  # its workers too
            pytest.fail("it hangs")
    assert program.returncode == 0, output + errors


@pytest.mark.parametrize("method", ["fork", "forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_two_processes_give_what_one_gives(method: str, saved: Path) -> None:
    """fork: with the threads of a user it hangs unless the workers have one each. The others: nothing is inherited."""
    run("tests.contract.started", method, saved)


def models_of(folder: Path) -> list[FrozenModel[Any]]:
    frozen = [
        causal_lm(str(folder / "language_model")),
        open_clip_encoder(str(folder / "vision_encoder")),
        sentence_transformer_retriever(str(folder / "sentence_encoder")).frozen,
        sentence_transformer_retriever(str(folder / "sentence_encoder-plain")).frozen,
        hugging_face_vision(str(folder / "vit")),
    ]
    return [model for model in frozen if model is not None]


@pytest.fixture
def own_models(models: Path, tmp_path: Path) -> Path:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    sizes = {"hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTModel(ViTConfig(**sizes, image_size=16, patch_size=8)).save_pretrained(folder / "vit")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder / "vit")
    return folder


def test_a_model_is_sent_by_its_name(own_models: Path) -> None:
    """It is the same object here, where it is loaded; in another process, one that is loaded there."""
    for frozen in models_of(own_models):
        model = frozen.load("cpu")
        sent = Sent(model)
        assert sent.size < 1000, frozen.what
        assert sent.receive() is model


def test_a_model_that_has_changed_is_not_sent(own_models: Path) -> None:
    for frozen in models_of(own_models):
        model = frozen.load("cpu")
        [weights] = list(Path(frozen.name).glob("*.safetensors"))
        os.utime(weights, (0, 0))
        with pytest.raises(ValueError, match="has changed since it was loaded"):
            Sent(model)
        shutil.rmtree(frozen.name)
        with pytest.raises(ValueError, match="or is gone"):
            Sent(model)


def test_the_whole_pipe_is_sent_without_what_it_keeps(trained: Language) -> None:
    expected = [trained(doc) for doc in captions(trained)]
    pipe: Any = trained.get_pipe(LINKER)
    there = Sent(pipe).receive()
    assert len(pipe._reader._cache) and len(pipe.linking_model.prompt_embedder._texts)
    assert not len(there._reader._cache) and not len(there.linking_model.prompt_embedder._texts)
    assert_same([there(doc) for doc in captions(trained)], expected)
