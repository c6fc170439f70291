"""Names of two tries at once: the search must not be able to tell them from one trie of all."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.decoding.constraints import TrieConstraint
from spacy_gemel.kb.trie import NameTrie
from spacy_gemel.kb.trie_builder import build_trie
from tests.decoding.test_beam_search import (
    END,
    VOCAB,
    Name,
    TableDecoder,
    limits,
    names_lists,
    penalties,
    prompt_of,
    search,
)
from tests.tries import trie_from_names


def added_trie(names: list[Name], first: int) -> NameTrie:
    tokens = np.array([token for name in names for token in name], dtype=np.uint16)
    lengths = np.array([len(name) for name in names], dtype=np.uint8)
    rows = np.arange(first, first + len(names), dtype=np.int32)
    return NameTrie(build_trie(tokens, lengths, rows, np.zeros(len(names), dtype=np.int64), VOCAB), VOCAB)


@given(
    names=names_lists, more=names_lists, seeds=st.lists(st.integers(0, 99), min_size=1, max_size=4),
    beams=st.integers(1, 6), penalty=penalties, limit=limits,
)  # fmt: skip
@settings(max_examples=150)
def test_two_tries_are_searched_as_one(
    names: list[Name], more: list[Name], seeds: list[int], beams: int, penalty: float, limit: int
) -> None:
    joint = TrieConstraint(trie_from_names(names, vocab_size=VOCAB), END, limit, added_trie(more, len(names)))
    whole = TrieConstraint(trie_from_names(names + more, vocab_size=VOCAB), END, limit)
    prompts = [prompt_of(seed) for seed in seeds]

    def found(allowed: TrieConstraint) -> list[list[tuple[Name, float, list[int]]]]:
        results = search(TableDecoder(), prompts, allowed, beam_size=beams, n_names=beams, length_penalty=penalty)
        return [[(h.tokens, h.score, sorted(allowed.rows_at(h.edge))) for h in result] for result in results]

    assert joint.max_tokens == whole.max_tokens
    assert found(joint) == found(whole)
