"""The trie's benchmark in the small: its names are what they are said to be, and its checks find what is wrong."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.made_names import VOCABULARY, MadeNames, make_names, write_entities
from benchmarks.trie import LIMITS, check_prefixes, of_list, prefix_names
from benchmarks.trie_steps import arrays, build, dicts, mapped, open_kb, save
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.trie import NameTrie
from spacy_gemel.kb.trie_builder import build_trie

N = 3000


@pytest.fixture(scope="module")
def names() -> MadeNames:
    return make_names(N)


@pytest.fixture(scope="module")
def trie(names: MadeNames) -> NameTrie:
    return NameTrie(build_trie(names.tokens, np.diff(names.starts), np.arange(N), names.counts, VOCABULARY))


def test_made_names(names: MadeNames, trie: NameTrie) -> None:
    lists = [tuple(name) for name in names.lists(0, N)]
    assert len(names) == len(lists) == N
    assert [list(name) for name in lists[70:90]] == names.lists(70, 90)
    assert 4.5 < np.mean([len(name) for name in lists]) < 5
    assert all(0 <= token < VOCABULARY for name in lists for token in name)
    distinct = set(lists)
    prefixes = {name[:place] for name in distinct for place in range(1, len(name))}
    assert prefix_names(trie.arrays) == len(distinct & prefixes) > 0.09 * N
    assert Counter(name[0] for name in lists).most_common(1)[0][1] > 0.04 * N
    assert make_names(N).tokens.tolist() == names.tokens.tolist()
    assert names.first(100).lists(0, 100) == names.lists(0, 100)


def test_sorted_list_says_what_follows() -> None:
    ordered = sorted([b"\0\1", b"\0\1\0\2", b"\0\1\0\2", b"\0\1\1\0\0\1", b"\3\0"])
    assert of_list(ordered, b"") == ([1, 768], 0)
    assert of_list(ordered, b"\0\1") == ([2, 256], 1)
    assert of_list(ordered, b"\0\1\0\2") == ([], 2)
    assert of_list(ordered, b"\0\2") == ([], 0)


def test_prefixes_of_another_trie_are_wrong(names: MadeNames, trie: NameTrie) -> None:
    assert check_prefixes(names, trie, 500)["prefixes_wrong"] == 0
    other = make_names(N, seed=1)
    assert check_prefixes(other, trie, 500)["prefixes_wrong"] > 200


def test_steps(names: MadeNames, tmp_path: Path) -> None:
    write_entities(names, tmp_path / "entities.jsonl")
    built = build(str(tmp_path / "entities.jsonl"), str(tmp_path / "kb"))
    assert built["names"] == N
    assert 0 < built["build_seconds"] <= built["build_kb_seconds"] + 0.05
    kb = KnowledgeBase.open(tmp_path / "kb")
    assert kb.meta.skipped == {}
    assert check_prefixes(names, kb.trie, 200)["prefixes_wrong"] == 0
    assert set(open_kb(str(tmp_path / "kb"))) == {"milliseconds", "mb", "mb_after_50_lookups"}
    save(names, tmp_path / "names")
    assert dicts(str(tmp_path / "names"))["seconds"] > 0
    assert arrays(str(tmp_path / "names"))["seconds"] > 0
    assert mapped(str(tmp_path / "names"))["mb"] >= 0
    assert LIMITS["bytes"] == (0, 250e6)
