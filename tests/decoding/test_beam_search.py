"""The search against scoring every name, over random tries and beams, and against `transformers.generate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.decoding.beam_search import Hypothesis, beam_search, room_for_beams
from spacy_gemel.decoding.constraints import Constraint, TrieConstraint, Unconstrained
from spacy_gemel.decoding.decoder import Decoder
from spacy_gemel.decoding.self_check import make_decoder
from spacy_gemel.models.causal_lm import CausalLM, load_causal_lm
from tests.tries import trie_from_names

BEAMS = 5
END = 1
Name = tuple[int, ...]


@pytest.fixture(scope="module")
def model(models: Path) -> CausalLM:
    return load_causal_lm(str(models / "language_model"), revision=None, device="cpu", dtype=None)


@pytest.fixture(scope="module")
def decoder(model: CausalLM) -> Decoder:
    return make_decoder(model)


def search(
    decoder: Any, prompts: Sequence[torch.Tensor], constraint: Constraint, *, beam_size: int, **options: Any
) -> list[list[Hypothesis]]:
    room = room_for_beams(beam_size, constraint.max_tokens)
    state = decoder.prefill(prompts, tokens=constraint.max_tokens, room=room)
    return beam_search(state, constraint, beam_size=beam_size, **options)


def random_names(seed: int, count: int = 300) -> list[tuple[int, ...]]:
    """Distinct names of 1 to 7 tokens from few tokens, so that many are prefixes of others."""
    generator = np.random.default_rng(seed)
    names: set[Name] = set()
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


def test_company_changes_nothing(model: CausalLM, decoder: Decoder) -> None:
    """A mention alone, and among others of other lengths."""
    names = random_names(4)
    allowed = TrieConstraint(trie_from_names(names, vocab_size=400), END, 12)
    prompts = random_prompts(model, 5, 20)
    together = search(decoder, prompts, allowed, beam_size=BEAMS, n_names=BEAMS)
    for prompt, hypotheses in zip(prompts, together, strict=True):
        [alone] = search(decoder, [prompt], allowed, beam_size=BEAMS, n_names=BEAMS)
        assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
        np.testing.assert_allclose([h.score for h in alone], [h.score for h in hypotheses], atol=1e-4)


def test_free_search_equals_generate_without_constraint(model: CausalLM, decoder: Decoder) -> None:
    for prompt in random_prompts(model, 10, 10):
        [found] = search(decoder, [prompt], Unconstrained(model.vocab_size, END, 11), beam_size=BEAMS, n_names=1)
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


# On a table of scores

VOCAB = 12

# Few tokens, so that names are prefixes of others; some are given twice, some have one token.
tokens = st.integers(2, 6)
names_lists = st.lists(st.lists(tokens, min_size=1, max_size=5).map(tuple), min_size=1, max_size=25)
penalties = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])
limits = st.integers(1, 7)


class TableDecoder:
    """A decoder whose next scores are any function of the name so far; it has no cache to be wrong about."""

    def __init__(self, free_slots: int = 1) -> None:
        self.free_slots = free_slots

    def prefill(self, prompts: Sequence[torch.Tensor], *, tokens: int, room: int) -> "TableState":
        self.last = TableState([int(prompt[0, 0]) for prompt in prompts], room, self.free_slots)
        return self.last


class TableState:
    def __init__(self, seeds: list[int], room: int, free_slots: int = 1) -> None:
        self.seeds = seeds
        self.room = room
        self.free_slots = free_slots
        self.steps = self.rows = 0
        self.slots: list[list[int]] = [[] for _ in seeds]
        self.logits = torch.stack([self.scores_after(seed, ()) for seed in seeds])

    @staticmethod
    def scores_after(seed: int, name: Name) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng([seed, *name]).normal(0, 3, VOCAB).astype(np.float32))

    def extend(
        self, tokens: torch.Tensor, seen: torch.Tensor, depth: torch.Tensor, mentions: slice = slice(None)
    ) -> torch.Tensor:
        self.steps += 1
        self.rows += len(tokens)
        assert seen.shape[-1] <= self.room
        for slots, row in zip(self.slots[mentions], tokens.tolist(), strict=True):
            slots[seen.shape[-1] - len(row) :] = row
        rows = []
        asked = self.seeds[mentions], self.slots[mentions]
        for seed, slots, own, depths in zip(*asked, seen.tolist(), depth.tolist(), strict=True):
            names = [tuple(token for token, mine in zip(slots, beam, strict=True) if mine) for beam in own]
            assert [len(name) for name in names] == [each + 1 for each in depths]
            rows.append(torch.stack([self.scores_after(seed, name) for name in names]))
        return torch.stack(rows)


def prompt_of(seed: int) -> torch.Tensor:
    return torch.full((1, 1), float(seed))


def score_all(seed: int, names: Sequence[Name], length_penalty: float) -> list[tuple[Name, float]]:
    """Every name's score, best first."""
    scored = []
    for name in set(names):
        whole = (*name, END)
        total = sum(
            float(torch.log_softmax(TableState.scores_after(seed, whole[:index]), dim=-1)[token])
            for index, token in enumerate(whole)
        )
        scored.append((name, total / len(whole) ** length_penalty))
    return sorted(scored, key=lambda pair: -pair[1])


@given(
    names=names_lists, seeds=st.lists(st.integers(0, 99), min_size=1, max_size=4), penalty=penalties, limit=limits,
    wanted=st.integers(1, 8),
)  # fmt: skip
@settings(max_examples=150)
def test_a_beam_as_wide_as_the_trie_finds_the_best_names(
    names: list[Name], seeds: list[int], penalty: float, limit: int, wanted: int
) -> None:
    """All names are then kept to their end: the search must give the order of scoring every one, and stop exactly."""
    allowed = TrieConstraint(trie_from_names(names, vocab_size=VOCAB), END, limit)
    found = search(
        TableDecoder(),
        [prompt_of(seed) for seed in seeds],
        allowed,
        beam_size=max(len(set(names)), wanted),
        n_names=wanted,
        length_penalty=penalty,
    )
    short = [name for name in names if len(name) <= limit]
    for seed, hypotheses in zip(seeds, found, strict=True):
        expected = score_all(seed, short, penalty)[:wanted]
        assert [h.tokens for h in hypotheses] == [name for name, _ in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for _, score in expected], abs=1e-4, rel=1e-6)
        assert all(allowed.trie.rows_at(h.edge).size == names.count(h.tokens) for h in hypotheses)


@given(
    names=names_lists, seeds=st.lists(st.integers(0, 99), min_size=2, max_size=6), beams=st.integers(1, 6),
    penalty=penalties, wanted=st.integers(1, 6),
)  # fmt: skip
@settings(max_examples=100)
def test_neither_company_nor_the_number_asked_for_changes_a_name(
    names: list[Name], seeds: list[int], beams: int, penalty: float, wanted: int
) -> None:
    allowed = TrieConstraint(trie_from_names(names, vocab_size=VOCAB), END, 7)
    decoder = TableDecoder()
    together = search(
        decoder,
        [prompt_of(seed) for seed in seeds],
        allowed,
        beam_size=beams,
        n_names=wanted,
        length_penalty=penalty,
    )
    for seed, hypotheses in zip(seeds, together, strict=True):
        [alone] = search(decoder, [prompt_of(seed)], allowed, beam_size=beams, n_names=beams, length_penalty=penalty)
        assert hypotheses == alone[:wanted]


@given(
    names=names_lists, more=names_lists, seeds=st.lists(st.integers(0, 99), min_size=1, max_size=4),
    beams=st.integers(1, 6), penalty=penalties, limit=limits, free_slots=st.integers(2, 60),
)  # fmt: skip
@settings(max_examples=150)
def test_what_is_scored_ahead_changes_no_answer_and_saves_passes(
    names: list[Name], more: list[Name], seeds: list[int], beams: int, penalty: float, limit: int, free_slots: int
) -> None:
    """Nor does it take room that the search needs, which the state's table would not allow."""
    allowed = TrieConstraint(trie_from_names(names, vocab_size=VOCAB), END, limit, trie_from_names(more, VOCAB))
    options: dict[str, Any] = {"beam_size": beams, "n_names": beams, "length_penalty": penalty}
    plain, ahead = TableDecoder(), TableDecoder(free_slots)
    one_by_one = [search(plain, [prompt_of(seed)], allowed, **options)[0] for seed in seeds]
    assert search(ahead, [prompt_of(seed) for seed in seeds], allowed, **options) == one_by_one
    for seed in seeds:
        search(plain, [prompt_of(seed)], allowed, **options)
        search(ahead, [prompt_of(seed)], allowed, **options)
        assert ahead.last.steps <= plain.last.steps


def test_finished_mentions_are_not_carried_along() -> None:
    """Here a row costs as much as another pass."""
    allowed = TrieConstraint(trie_from_names(random_small_names(0), vocab_size=VOCAB), END, 7)
    together, alone = TableDecoder(), TableDecoder()
    search(together, [prompt_of(seed) for seed in range(30)], allowed, beam_size=2, n_names=1)
    rows = []
    for seed in range(30):
        search(alone, [prompt_of(seed)], allowed, beam_size=2, n_names=1)
        rows.append(alone.last.rows)
    assert len({*rows}) > 2
    assert together.last.rows <= sum(rows)


def test_forced_tokens_take_no_passes_of_their_own() -> None:
    names = [(2, 3, 4, 5, 6, 7), (2, 3, 4, 5, 8), (9, 2, 2)]
    allowed = TrieConstraint(trie_from_names(names, vocab_size=VOCAB), END, 7)
    for free_slots, passes in ((1, 6), (16, 1)):
        decoder = TableDecoder(free_slots)
        [found] = search(decoder, [prompt_of(3)], allowed, beam_size=3, n_names=3)
        assert len(found) == 3
        assert decoder.last.steps == passes


def random_small_names(seed: int) -> list[Name]:
    generator = np.random.default_rng(seed)
    return [tuple(generator.integers(2, 7, size=generator.integers(1, 8)).tolist()) for _ in range(200)]


def test_it_stops_when_the_last_name_asked_for_is_settled() -> None:
    names = random_small_names(0)
    allowed = TrieConstraint(trie_from_names(names, vocab_size=VOCAB), END, 7)
    decoder, steps = TableDecoder(), []
    for wanted in (1, 3, 5):
        steps.append(0)
        for seed in range(30):
            search(decoder, [prompt_of(seed)], allowed, beam_size=5, n_names=wanted)
            steps[-1] += decoder.last.steps
    assert steps[0] < steps[1] < steps[2] < 30 * max(len(name) for name in names)


@given(seed=st.integers(0, 99), penalty=penalties, limit=st.integers(1, 2), wanted=st.integers(1, 8))
@settings(max_examples=30)
def test_a_free_search_with_a_wide_beam_finds_the_best_of_all(
    seed: int, penalty: float, limit: int, wanted: int
) -> None:
    words = [token for token in range(VOCAB) if token != END]
    every: list[Name] = [(), *((a,) for a in words), *((a, b) for a in words for b in words if limit == 2)]
    [found] = search(
        TableDecoder(),
        [prompt_of(seed)],
        Unconstrained(VOCAB, END, limit),
        beam_size=VOCAB ** (limit + 1),
        n_names=wanted,
        length_penalty=penalty,
    )
    assert [h.tokens for h in found] == [name for name, _ in score_all(seed, every, penalty)[:wanted]]


def assert_as_generate(
    model: CausalLM, prompts: list[torch.Tensor], names: list[Name], beams: int, penalty: float, limit: int
) -> None:
    """Batched here, one prompt at a time there."""
    allowed = TrieConstraint(trie_from_names(names, vocab_size=400), END, limit)
    found = search(make_decoder(model), prompts, allowed, beam_size=beams, n_names=beams, length_penalty=penalty)
    for prompt, hypotheses in zip(prompts, found, strict=True):
        expected = reference(model, prompt, names, beams=beams, length_penalty=penalty, limit=limit)
        assert [h.tokens for h in hypotheses][: len(expected)] == [name for name, _ in expected]
        assert [h.score for h in hypotheses][: len(expected)] == pytest.approx(
            [score for _, score in expected], abs=1e-4, rel=1e-6
        )
        if limit >= max(len(name) for name in names):  # else generate keeps places for names that have not ended
            assert len(hypotheses) == len(expected)


@given(
    names=st.lists(st.lists(st.integers(2, 9), min_size=1, max_size=5).map(tuple), min_size=1, max_size=60),
    seed=st.integers(0, 10_000), mentions=st.integers(1, 3), beams=st.integers(2, 6),
    penalty=penalties, limit=st.integers(2, 6),
)  # fmt: skip
@settings(max_examples=25)
def test_random_tries_against_generate(
    model: CausalLM, names: list[Name], seed: int, mentions: int, beams: int, penalty: float, limit: int
) -> None:
    assert_as_generate(model, random_prompts(model, seed, mentions), sorted(set(names)), beams, penalty, limit)


def many_names(seed: int, count: int = 10_000) -> list[Name]:
    """Distinct names of 1 to 6 tokens, some of them prefixes of others."""
    generator = np.random.default_rng(seed)
    names: set[Name] = set()
    while len(names) < count:
        names.add(tuple(generator.integers(2, 60, size=int(generator.integers(1, 7))).tolist()))
    return sorted(names)


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), beams=st.integers(2, 6), penalty=penalties, limit=st.integers(3, 12))
@settings(max_examples=5)
def test_ten_thousand_names_against_generate(
    model: CausalLM, seed: int, beams: int, penalty: float, limit: int
) -> None:
    assert_as_generate(model, random_prompts(model, seed, 3), many_names(seed), beams, penalty, limit)
