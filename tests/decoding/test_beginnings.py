"""Prompts that begin alike are read once, with the answers of prompts that are read whole."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spacy_gemel.decoding.beam_search import beam_search, room_for_beams
from spacy_gemel.decoding.beginnings import Beginning, BeginningCache, Sharing
from spacy_gemel.decoding.constraints import TrieConstraint
from spacy_gemel.decoding.decoder import Decoder, DecoderState
from tests.decoding.test_beam_search import BEAMS, END, decoder, model, random_names
from tests.decoding.test_decoder import FAMILIES, WINDOWED, load, save
from tests.sending import Sent
from tests.tries import trie_from_names

__all__ = ["decoder", "model"]  # fixtures
Prompts = list[list[int]]
CONSTRAINT = TrieConstraint(trie_from_names(random_names(0, 100), vocab_size=400), END, 12)


def read(decoder: Decoder, prompts: Sequence[Tensor], sharing: Sharing | None = None) -> DecoderState:
    room = room_for_beams(BEAMS, CONSTRAINT.max_tokens)
    return decoder.prefill(prompts, tokens=CONSTRAINT.max_tokens, room=room, sharing=sharing)


def assert_same_answers(decoder: Decoder, prompts: Sequence[Tensor], sharing: Sharing) -> None:
    shared, whole = read(decoder, prompts, sharing), read(decoder, prompts)
    torch.testing.assert_close(shared.logits, whole.logits, atol=1e-3, rtol=1e-4)
    pairs = zip(
        *(beam_search(each, CONSTRAINT, beam_size=BEAMS, n_names=BEAMS) for each in (shared, whole)), strict=True
    )
    for names, expected in pairs:
        assert [name.tokens for name in names] == [name.tokens for name in expected]
        assert [name.score for name in names] == pytest.approx([name.score for name in expected], abs=1e-4)


class ReadTokens:
    """The tokens of each forward pass, padding included."""

    def __init__(self, decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes: list[tuple[int, int]] = []
        forward = decoder.model.forward

        def counted(embeddings: Tensor, *args: object, **options: object) -> Tensor:
            self.passes.append((embeddings.shape[0], embeddings.shape[1]))
            return forward(embeddings, *args, **options)  # type: ignore[arg-type]

        monkeypatch.setitem(vars(decoder.model), "forward", counted)


@pytest.mark.parametrize("family, is_windowed", [*((f, False) for f in FAMILIES), *((f, True) for f in WINDOWED)])
def test_family(family: str, is_windowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sets of demonstrations, a text that two mentions share, a prompt of its own; then again, from the cache."""
    save(family, (WINDOWED if is_windowed else FAMILIES)[family], tmp_path)
    decoder = load(tmp_path)
    generator = np.random.default_rng(3)
    first, second, text, *ends = (generator.integers(2, 400, size=size).tolist() for size in (90, 70, 40, 5, 9, 3, 80))
    prompts = [
        first + text + ends[0],
        first + ends[1],
        ends[3],
        second + ends[1],
        first + text + ends[2],
        second + text,
    ]
    sharing = Sharing(prompts, [90, 90, 0, 70, 90, 70], BeginningCache())
    embedded = [decoder.model.embed(ids) for ids in prompts]
    tokens = ReadTokens(decoder, monkeypatch)
    read(decoder, embedded, sharing)
    # Three prompts are read whole, then what follows these in the others.
    assert tokens.passes == [(3, 135), (3, 40)]
    tokens.passes.clear()
    assert_same_answers(decoder, embedded, sharing)
    assert tokens.passes[0] == (1, 80)  # the prompt of its own


TREES = st.lists(st.lists(st.integers(2, 4), min_size=1, max_size=30), min_size=1, max_size=7)


@given(prompts=TREES, kept=st.lists(st.integers(0, 12), min_size=7, max_size=7), data=st.data())
@settings(max_examples=60)
def test_generated_prompts(decoder: Decoder, prompts: Prompts, kept: list[int], data: st.DataObject) -> None:
    """Of few tokens, so that many begin alike; batch after batch with one cache."""
    cache = BeginningCache()
    for batch in (prompts, data.draw(st.permutations(prompts)), prompts[:1]):
        lengths = [min(length, len(ids) - 1) for ids, length in zip(batch, kept, strict=False)]
        embedded = [decoder.model.embed(ids) for ids in batch]
        assert_same_answers(decoder, embedded, Sharing(batch, lengths, cache, min_shared=1))


def test_a_beginning_that_changed_is_read_again(decoder: Decoder) -> None:
    """As after a step of the mapper, whose soft tokens have the same numbers before and after."""
    ids = np.random.default_rng(0).integers(2, 300, size=(3, 100)).tolist()
    ids = [ids[0][:80] + row[80:] for row in ids]
    sharing = Sharing(ids, [80] * 3, BeginningCache())
    embedded = [decoder.model.embed(row) for row in ids]
    before = read(decoder, embedded, sharing).logits
    changed = [torch.cat([row[:4] + 0.1, row[4:]]) for row in embedded]
    assert_same_answers(decoder, changed, sharing)
    assert (read(decoder, changed, sharing).logits - before).abs().max() > 1e-2


@pytest.mark.parametrize("dtype, ulp", [(torch.float32, 2**-23), (torch.bfloat16, 2**-7)])
def test_rounding_changes_no_beginning_and_a_small_step_of_the_mapper_does(dtype: torch.dtype, ulp: float) -> None:
    generator = torch.Generator().manual_seed(0)
    embedded = torch.randn(20, 8, generator=generator)
    embedded[0, 0] = 4  # far larger than most
    known = Beginning(embedded.to(dtype), ())
    prompt = torch.cat([embedded, embedded])
    assert known.begins((prompt * (1 + 1e-7)).to(dtype))
    assert known.begins((prompt + 1e-7).to(dtype))
    assert not known.begins((prompt * (1 + 4 * ulp) + 1e-4).to(dtype))
    assert not known.begins(known.embedded)  # nothing is left to be read


def test_the_cache_is_bounded_and_goes_to_no_other_process(decoder: Decoder) -> None:
    sharing = Sharing([[*range(2, 100)]], [80], BeginningCache())
    read(decoder, [decoder.model.embed(sharing.inputs[0])], sharing)
    [entry] = [sharing.cache.entries.get(sharing.key(0))]
    assert entry is not None
    assert sharing.cache.entries.size == entry.nbytes > 0
    assert len(Sent(sharing.cache).receive().entries) == 0
    sharing.cache.entries.limit = entry.nbytes - 1
    read(decoder, [decoder.model.embed(sharing.inputs[0]) + 1], sharing)
    assert len(sharing.cache.entries) == 0
