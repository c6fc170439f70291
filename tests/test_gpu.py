"""What must be the same on a GPU as on the CPU. Needs --gpu and a CUDA device."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spacy_gemel.kb.trie_builder import trie_from_names
from spacy_gemel.language.loading import load_causal_lm
from spacy_gemel.search.beam import beam_search
from spacy_gemel.search.names import TrieNames
from tests.search.test_beam import BEAMS, END, random_names

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_the_same_names_as_on_the_cpu(models: Path) -> None:
    names = TrieNames(trie_from_names(random_names(0), vocab_size=400), END, 11)
    generator = np.random.default_rng(0)
    ids = [generator.integers(2, 400, size=size).tolist() for size in (5, 40, 41, 90)]
    found = []
    for device in ("cpu", "cuda:0"):
        model = load_causal_lm(str(models / "language_model"), revision=None, device=device, dtype=None)
        prompts = [model.embed(row) for row in ids]
        found.append(beam_search(model, prompts, names, beam_size=BEAMS, n_names=BEAMS))
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
    from spacy_gemel.language.memory import is_out_of_memory

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, device="cuda:0")
    assert is_out_of_memory(caught.value)
