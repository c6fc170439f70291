"""Names scored on prompts that have been read: against plain forward passes, and against the search itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.decoding.beam_search import beam_search
from spacy_gemel.decoding.constraints import TrieConstraint
from spacy_gemel.decoding.decoder import SequentialDecoder, SharedPrefixDecoder
from spacy_gemel.decoding.kv_cache import AttentionWindows
from spacy_gemel.decoding.score_names import score_names
from spacy_gemel.decoding.self_check import make_decoder
from spacy_gemel.models.causal_lm import CausalLM, load_causal_lm
from tests.decoding.test_beam_search import (
    END,
    Name,
    TableState,
    penalties,
    random_names,
    random_prompts,
    score_all,
    tokens,
)
from tests.tries import trie_from_names

LIMIT = 7


@given(
    names=st.lists(st.lists(st.lists(tokens, min_size=1, max_size=5).map(tuple), max_size=12), min_size=1, max_size=4),
    beams=st.integers(1, 5), penalty=penalties,
)  # fmt: skip
@settings(max_examples=150)
def test_each_mentions_names_are_scored_within_the_room_of_a_search(
    names: list[list[Name]], beams: int, penalty: float
) -> None:
    longest = max((len(name) for own in names for name in own), default=1)
    state = TableState(list(range(len(names))), room=beams * longest)
    found = score_names(state, names, END, length_penalty=penalty)
    for seed, (own, scores) in enumerate(zip(names, found, strict=True)):
        expected = dict(score_all(seed, own, penalty))
        assert scores == pytest.approx([expected[name] for name in own], abs=1e-4, rel=1e-6)


@pytest.fixture(scope="module")
def model(models: Path) -> CausalLM:
    return load_causal_lm(str(models / "language_model"), revision=None, device="cpu", dtype=None)


def plain(model: CausalLM, prompt: torch.Tensor, name: Name) -> float:
    """The sum of transformers' own log-probabilities over name and end, divided by their number."""
    whole = [*name, END]
    with torch.no_grad():
        logits = model.model(inputs_embeds=torch.cat([prompt, model.embed(whole[:-1])])[None]).logits[0]
    values = torch.log_softmax(logits[len(prompt) - 1 :], dim=-1)
    return sum(float(values[index, token]) for index, token in enumerate(whole)) / len(whole)


@pytest.mark.parametrize("way", [SharedPrefixDecoder, SequentialDecoder])
@pytest.mark.parametrize("searched", [False, True])
def test_the_scores_of_plain_transformers(model: CausalLM, way: type, searched: bool) -> None:
    """After a search as well as before one, whichever way the model goes; mentions have many names, few or none."""
    prompts = random_prompts(model, 21, 6)
    all_names = random_names(22, 60)
    names = [all_names[:13], all_names[13:14], [], all_names[14:30], all_names[:13], all_names[40:45]]
    beams = 4
    state = (
        SharedPrefixDecoder(model, prompts, beams * LIMIT, AttentionWindows.of(model.model))
        if way is SharedPrefixDecoder
        else SequentialDecoder(model, prompts)
    )
    allowed = TrieConstraint(trie_from_names(random_names(23), vocab_size=400), END, LIMIT)
    before = beam_search(state, allowed, beam_size=beams, n_names=beams) if searched else None
    found = score_names(state, names, END)
    for prompt, own, scores in zip(prompts, names, found, strict=True):
        np.testing.assert_allclose(scores, [plain(model, prompt, name) for name in own], atol=1e-4)
    if before is not None:  # and the search gives again what it gave
        again = beam_search(state, allowed, beam_size=beams, n_names=beams)
        assert [[h.tokens for h in row] for row in again] == [[h.tokens for h in row] for row in before]


def test_a_found_name_has_the_score_that_the_search_gave_it(model: CausalLM) -> None:
    prompts = random_prompts(model, 24, 10)
    allowed = TrieConstraint(trie_from_names(random_names(25), vocab_size=400), END, LIMIT)
    state = make_decoder(model).prefill(prompts, tokens=LIMIT, room=5 * LIMIT)
    results = beam_search(state, allowed, beam_size=5, n_names=5)
    scores = score_names(state, [[h.tokens for h in found] for found in results], END)
    for found, own in zip(results, scores, strict=True):
        np.testing.assert_allclose(own, [h.score for h in found], atol=1e-5)


def test_nothing_is_computed_for_no_names() -> None:
    state = TableState([1, 2], room=0)
    assert score_names(state, [[], []], END) == [[], []]
    assert state.steps == 0
