"""The search against `transformers.generate` with the same names, one mention at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spacy_gemel.decoding.beam_search import beam_search
from spacy_gemel.decoding.constraints import TrieConstraint, Unconstrained
from spacy_gemel.decoding.decoder import Decoder
from spacy_gemel.decoding.self_check import make_decoder
from spacy_gemel.kb.trie_builder import trie_from_names
from spacy_gemel.models.causal_lm import CausalLM, load_causal_lm

BEAMS = 5
END = 1


@pytest.fixture(scope="module")
def model(models: Path) -> CausalLM:
    return load_causal_lm(str(models / "language_model"), revision=None, device="cpu", dtype=None)


@pytest.fixture(scope="module")
def decoder(model: CausalLM) -> Decoder:
    return make_decoder(model)


def random_names(seed: int, count: int = 300) -> list[tuple[int, ...]]:
    """Distinct names of 1 to 7 tokens from few tokens, so that many are prefixes of others."""
    generator = np.random.default_rng(seed)
    names = set()
    while len(names) < count:
        length = int(generator.integers(1, 8))
        names.add(tuple(int(token) for token in generator.integers(2, 14, size=length)))
    return sorted(names)


def random_prompts(model: CausalLM, seed: int, count: int) -> list[torch.Tensor]:
    generator = np.random.default_rng(seed)
    return [
        model.embed(generator.integers(2, model.vocab_size, size=int(generator.integers(5, 60))).tolist())
        for _ in range(count)
    ]


def reference(
    model: CausalLM,
    prompt: torch.Tensor,
    names: list[tuple[int, ...]],
    early_stopping: Any = "never",
    *,
    beams: int = BEAMS,
    length_penalty: float = 1.0,
    limit: int = 11,
    end: int = END,
) -> list[tuple[tuple[int, ...], float]]:
    """What transformers' own constrained beam search gives: names with scores, best first.

    Without what it gives where fewer names than beams are left, and what has not ended within `limit` tokens.
    """
    following: dict[tuple[int, ...], set[int]] = {}
    for name in names:
        whole = (*name, end)
        for depth in range(len(whole)):
            following.setdefault(whole[:depth], set()).add(whole[depth])

    def allowed(_batch: int, ids: torch.Tensor) -> list[int]:
        return sorted(following.get(tuple(ids.tolist()), {end}))

    output = model.model.generate(
        inputs_embeds=prompt[None],
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=limit + 1,
        do_sample=False,
        prefix_allowed_tokens_fn=allowed,
        early_stopping=early_stopping,
        length_penalty=length_penalty,
        eos_token_id=end,
        pad_token_id=end,
        output_scores=True,
        return_dict_in_generate=True,
    )
    found = []
    for row, score in zip(output.sequences.tolist(), output.sequences_scores.tolist(), strict=True):
        if end in row and score > -1e4:
            found.append((tuple(row[: row.index(end)]), score))
    return found


def test_same_names_and_scores_as_generate(model: CausalLM, decoder: Decoder) -> None:
    """The same five names in the same order, scores within 1e-4."""
    names = random_names(0)
    allowed = TrieConstraint(trie_from_names(names, vocab_size=400), END, 12)
    prompts = random_prompts(model, 1, 80)
    found = [
        hypotheses
        for start in range(0, 80, 40)
        for hypotheses in beam_search(decoder, prompts[start : start + 40], allowed, beam_size=BEAMS, n_names=BEAMS)
    ]
    for prompt, hypotheses in zip(prompts, found, strict=True):
        expected = reference(model, prompt, names)
        assert [hypothesis.tokens for hypothesis in hypotheses] == [name for name, _ in expected]
        np.testing.assert_allclose([h.score for h in hypotheses], [score for _, score in expected], atol=1e-4)


def test_company_changes_nothing(model: CausalLM, decoder: Decoder) -> None:
    """A mention alone, and among others of other lengths."""
    names = random_names(4)
    allowed = TrieConstraint(trie_from_names(names, vocab_size=400), END, 12)
    prompts = random_prompts(model, 5, 20)
    together = beam_search(decoder, prompts, allowed, beam_size=BEAMS, n_names=BEAMS)
    for prompt, hypotheses in zip(prompts, together, strict=True):
        [alone] = beam_search(decoder, [prompt], allowed, beam_size=BEAMS, n_names=BEAMS)
        assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
        np.testing.assert_allclose([h.score for h in alone], [h.score for h in hypotheses], atol=1e-4)


def test_free_search_equals_generate_without_constraint(model: CausalLM, decoder: Decoder) -> None:
    for prompt in random_prompts(model, 10, 10):
        [found] = beam_search(decoder, [prompt], Unconstrained(model.vocab_size, END, 11), beam_size=BEAMS, n_names=1)
        output = model.model.generate(
            inputs_embeds=prompt[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=BEAMS,
            max_new_tokens=12,
            do_sample=False,
            early_stopping="never",
            eos_token_id=END,
            pad_token_id=END,
            output_scores=True,
            return_dict_in_generate=True,
        )
        ids = output.sequences[0].tolist()
        if END in ids:  # generate also returns what has not ended at the limit; the search does not
            assert found[0].tokens == tuple(ids[: ids.index(END)])
            assert found[0].score == pytest.approx(float(output.sequences_scores[0]), abs=1e-4)
