"""The exact search against scoring every name: over random tries and scores, and with small random models."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.decoding.beam_search import beam_search, room_for_beams
from spacy_gemel.decoding.constraints import TrieConstraint
from spacy_gemel.decoding.exact_search import exact_search
from spacy_gemel.decoding.score_names import score_names
from spacy_gemel.decoding.self_check import make_decoder
from spacy_gemel.models.causal_lm import CausalLM, load_causal_lm
from tests.decoding.test_beam_search import (
    END,
    VOCAB,
    Name,
    TableDecoder,
    TableState,
    limits,
    names_lists,
    penalties,
    prompt_of,
    random_prompts,
    score_all,
    search,
)
from tests.tries import trie_from_names

ENOUGH = 10_000


def table(seeds: list[int], constraint: TrieConstraint, beam_size: int, more: int, free_slots: int = 1) -> TableState:
    return TableState(seeds, room_for_beams(beam_size, constraint.max_tokens) + more, free_slots)


@given(
    names=names_lists, more=names_lists, seeds=st.lists(st.integers(0, 99), min_size=1, max_size=4),
    beams=st.integers(1, 4), penalty=penalties, limit=limits, free_slots=st.integers(1, 20),
)  # fmt: skip
@settings(max_examples=200)
def test_the_first_is_the_best_of_all_names(
    names: list[Name], more: list[Name], seeds: list[int], beams: int, penalty: float, limit: int, free_slots: int
) -> None:
    """Of two tries, whatever the beams miss; certified, within the room that was asked for."""
    allowed = TrieConstraint(trie_from_names(names, VOCAB), END, limit, trie_from_names(more, VOCAB))
    state = table(seeds, allowed, beams, 300, free_slots)
    results = exact_search(state, allowed, beam_size=beams, n_names=beams, max_tokens=ENOUGH, length_penalty=penalty)
    short = [name for name in names + more if len(name) <= limit]
    for seed, (found, certificate) in zip(seeds, results, strict=True):
        expected = score_all(seed, short, penalty)
        assert bool(found) == bool(expected) == (certificate is not None)
        if certificate is not None:
            assert certificate.exact
            assert certificate.gap == 0
            assert found[0].score == pytest.approx(expected[0][1], abs=1e-4, rel=1e-6)
            scores = dict(expected)
            assert [hypothesis.score for hypothesis in found] == sorted((h.score for h in found), reverse=True)
            for hypothesis in found:
                assert hypothesis.score == pytest.approx(scores[hypothesis.tokens], abs=1e-4, rel=1e-6)
                bearers = names.count(hypothesis.tokens) + more.count(hypothesis.tokens)
                assert len(allowed.rows_at(hypothesis.edge)) == bearers


@given(
    names=names_lists, seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3), beams=st.integers(1, 3),
    penalty=penalties, limit=limits, most=st.integers(0, 12),
)  # fmt: skip
@settings(max_examples=200)
def test_where_it_gives_up_its_bounds_hold(
    names: list[Name], seeds: list[int], beams: int, penalty: float, limit: int, most: int
) -> None:
    """No worse than the beams, and no name is better by more than the gap; the mass lies between its bounds."""
    allowed = TrieConstraint(trie_from_names(names, VOCAB), END, limit)
    options: dict[str, Any] = {"beam_size": beams, "n_names": beams, "length_penalty": penalty}
    beam_results = search(TableDecoder(), [prompt_of(seed) for seed in seeds], allowed, **options)
    results = exact_search(table(seeds, allowed, beams, most), allowed, max_tokens=most, **options)
    short = [name for name in names if len(name) <= limit]
    for seed, beam_found, (found, certificate) in zip(seeds, beam_results, results, strict=True):
        if certificate is None:
            assert not beam_found
            continue
        assert all(mine.score >= theirs.score - 1e-5 for mine, theirs in zip(found, beam_found, strict=False))
        assert len(found) >= len(beam_found)
        expected = score_all(seed, short, penalty)
        assert found[0].score <= expected[0][1] + 1e-4 <= found[0].score + certificate.gap + 2e-4
        assert certificate.exact == (certificate.gap == 0)
        masses = {name: math.exp(score) for name, score in score_all(seed, short, 0.0)}
        share = sum(masses[hypothesis.tokens] for hypothesis in found) / sum(masses.values())
        low, high = certificate.mass
        assert low - 1e-5 <= share <= high + 1e-5
        assert 0 < low <= high <= 1 + 1e-9


def test_if_the_beams_have_the_best_name_no_token_is_scored_in_vain() -> None:
    """Those that are scored after the beams could begin a better name, for all that was known."""
    generator = np.random.default_rng(0)
    names = [tuple(generator.integers(2, 9, size=generator.integers(1, 8)).tolist()) for _ in range(400)]
    beginnings = {name[:length] for name in names for length in range(1, len(name) + 1)}
    deepest = {
        beginning: max(len(name) for name in names if name[: len(beginning)] == beginning) + 1
        for beginning in beginnings
    }
    allowed = TrieConstraint(trie_from_names(names, VOCAB), END, 7)
    compared = 0
    for seed in range(30):
        decoder = TableDecoder()
        [[by_beams]] = search(decoder, [prompt_of(seed)], allowed, beam_size=5, n_names=1)
        state = table([seed], allowed, 5, ENOUGH)
        [(found, certificate)] = exact_search(state, allowed, beam_size=5, n_names=1, max_tokens=ENOUGH)
        assert certificate is not None
        assert certificate.passes == state.steps
        if by_beams.tokens == found[0].tokens:
            needed = 0
            for beginning, length in deepest.items():
                logits = [TableState.scores_after(seed, beginning[:index]) for index in range(len(beginning))]
                log_probs = torch.log_softmax(torch.stack(logits), dim=-1)[range(len(beginning)), beginning]
                needed += float(log_probs.sum()) / length > found[0].score - 1e-6
            assert len(state.slots[0]) <= needed + len(decoder.last.slots[0])
            compared += 1
    assert compared > 10


@pytest.fixture(scope="module")
def model(models: Path) -> CausalLM:
    return load_causal_lm(str(models / "language_model"), revision=None, device="cpu", dtype=None)


@pytest.mark.parametrize("seed", [0, 1])
def test_three_thousand_names_with_a_random_model(model: CausalLM, seed: int) -> None:
    """The beams alone miss the best name of some."""
    generator = np.random.default_rng(seed)
    names: list[Name] = list(
        {tuple(generator.integers(2, 60, size=generator.integers(1, 7)).tolist()) for _ in range(3_000)}
    )
    allowed = TrieConstraint(trie_from_names(names, vocab_size=400), END, 8)
    prompts = random_prompts(model, seed, 5)
    room = room_for_beams(2, allowed.max_tokens) + 4_000
    state = make_decoder(model).prefill(prompts, tokens=allowed.max_tokens, room=room)
    beams = beam_search(state, allowed, beam_size=2, n_names=1)
    results = exact_search(state, allowed, beam_size=2, n_names=2, max_tokens=4_000)
    missed = 0
    for scores, [by_beams], (found, certificate) in zip(
        score_names(state, [names] * len(prompts), END), beams, results, strict=True
    ):
        best = int(np.argmax(scores))
        assert certificate is not None
        assert certificate.exact
        assert found[0].tokens == names[best]
        assert found[0].score == pytest.approx(scores[best], abs=1e-4)
        total = np.exp(np.array(scores) * [len(name) + 1 for name in names]).sum()
        share = sum(math.exp(h.score * (len(h.tokens) + 1)) for h in found) / total
        assert certificate.mass[0] - 1e-4 <= share <= certificate.mass[1] + 1e-4
        missed += by_beams.tokens != names[best]
    assert missed
