"""What must be the same on a GPU as on the CPU. Needs --gpu and a CUDA device."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from spacy.language import Language

from spacy_gemel.decoding.constraints import TrieConstraint
from spacy_gemel.decoding.self_check import make_decoder
from spacy_gemel.models.causal_lm import load_causal_lm
from tests.decoding.test_beam_search import BEAMS, END, random_names, search
from tests.mini_pipeline import COLOURS, examples, make_config, make_doc, make_kb, make_pipeline, picture
from tests.tries import trie_from_names

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_the_same_names_as_on_the_cpu(models: Path) -> None:
    names = TrieConstraint(trie_from_names(random_names(0), vocab_size=400), END, 11)
    generator = np.random.default_rng(0)
    ids = [generator.integers(2, 400, size=size).tolist() for size in (5, 40, 41, 90)]
    found = []
    for device in ("cpu", "cuda:0"):
        model = load_causal_lm(str(models / "language_model"), revision=None, device=device, dtype=None)
        prompts = [model.embed(row) for row in ids]
        found.append(search(make_decoder(model), prompts, names, beam_size=BEAMS, n_names=BEAMS))
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert [h.tokens for h in on_gpu] == [h.tokens for h in on_cpu]
        assert [h.score for h in on_gpu] == pytest.approx([h.score for h in on_cpu], abs=1e-3)


def test_the_gradient_is_that_of_the_cpu(models: Path) -> None:
    gradients = []
    for device in ("cpu", "cuda:0"):
        model = load_causal_lm(str(models / "language_model"), revision=None, device=device, dtype=None)
        prompt = model.embed([3, 4, 5, 6]).clone().requires_grad_()
        model.name_loss([prompt], [[7, 8, END]]).sum().backward()
        assert prompt.grad is not None
        gradients.append(prompt.grad.cpu())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)


def test_memory_that_runs_out_is_known_as_such(models: Path) -> None:
    from spacy_gemel.models.memory import is_out_of_memory

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, device="cuda:0")
    assert is_out_of_memory(caught.value)


BLOCKS = {
    "language_model": "spacy_gemel.CausalLM.v1",
    "vision_encoder": "spacy_gemel.OpenCLIP.v1",
    "retriever": "spacy_gemel.SentenceTransformerRetriever.v1",
}


def on_gpu(models: Path) -> dict[str, Any]:
    """The blocks of the tests' config, each with its device."""
    blocks = make_config(models)
    return {part: {**blocks[part], "device": "cuda:0"} for part in BLOCKS}


def learn(nlp: Language, updates: int) -> list[float]:
    optimizer = nlp.resume_training()
    losses = []
    for _ in range(updates):
        message: dict[str, float] = {}
        nlp.update(examples(nlp), sgd=optimizer, losses=message)
        losses.append(message["gemel_linker"])
    return losses


def linked(nlp: Language) -> list[list[tuple[str, float]]]:
    """The candidates of a mention beside each picture, and without one."""
    found = []
    for image in [*(picture(name, 9) for name in COLOURS), None]:
        doc = nlp(make_doc(nlp, "A photo of Mercury number 9.", "Mercury", image=image))
        found.append([(c.kb_id, c.score) for c in doc.ents[0]._.gemel_candidates])
    return found


def assert_alike(
    found: list[list[tuple[str, float]]], expected: list[list[tuple[str, float]]], tolerance: float
) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        scores = dict(theirs)
        assert ours[0][1] == pytest.approx(scores[ours[0][0]], abs=tolerance)
        assert max(scores.values()) - scores[ours[0][0]] <= tolerance  # the best, or as good


def test_a_pipeline_learns_and_links_as_on_the_cpu(models: Path, tmp_path: Path) -> None:
    kb = make_kb(tmp_path, models)
    on_cpu = make_pipeline(models, kb)
    nlp = make_pipeline(models, kb, **on_gpu(models))
    pipe: Any = nlp.get_pipe("gemel_linker")
    assert pipe.linking_model.language_model.device.type == "cuda"
    pipe.model.from_bytes(on_cpu.get_pipe("gemel_linker").model.to_bytes())  # type: ignore[attr-defined]
    assert learn(nlp, 4) == pytest.approx(learn(on_cpu, 4), rel=1e-3)
    expected = linked(on_cpu)
    assert_alike(linked(nlp), expected, 1e-2)
    # saved on one and loaded on the other
    nlp.to_disk(tmp_path / "saved")
    changes = {"components": {"gemel_linker": {part: {"device": "cpu"} for part in BLOCKS}}}
    assert_alike(linked(spacy.load(tmp_path / "saved", config=changes)), expected, 1e-2)
    changes["components"]["gemel_linker"]["language_model"] = {"device": "cuda:0", "dtype": "bfloat16"}
    assert_alike(linked(spacy.load(tmp_path / "saved", config=changes)), expected, 0.5)


_WITH_CUPY = """
import json, sys
from pathlib import Path
import spacy
spacy.require_gpu()
from tests.mini_pipeline import make_pipeline
from tests.test_gpu import learn, linked
models, kb, saved = map(Path, sys.argv[1:])
nlp = make_pipeline(models, kb)
pipe = nlp.get_pipe("gemel_linker")
assert type(pipe.model.ops).__name__ == "CupyOps"
assert pipe.linking_model.language_model.device.type == "cuda"
assert next(pipe._reader.encoder.model.parameters()).device.type == "cuda"
losses = learn(nlp, 4)
assert losses[-1] < losses[0]
nlp.to_disk(saved)
print(json.dumps(linked(nlp)))
"""


def test_require_gpu_puts_all_of_it_there(models: Path, tmp_path: Path) -> None:
    pytest.importorskip("cupy")
    kb = make_kb(tmp_path, models)
    saved = tmp_path / "saved"
    done = subprocess.run(
        [sys.executable, "-c", _WITH_CUPY, str(models), str(kb), str(saved)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert_alike(linked(spacy.load(saved)), json.loads(done.stdout.splitlines()[-1]), 1e-2)
