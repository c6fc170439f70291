"""The trie against a plain set of token tuples."""

import tempfile
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.kb.check import check_trie
from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.trie import ROOT, NameTrie, TrieArrays
from spacy_gemel.kb.trie_builder import build_trie
from tests.tries import trie_from_names

Name = tuple[int, ...]
END = -1

# few tokens: many shared prefixes, prefix names and duplicates; up to 12 tokens: several sort keys
VOCABULARIES = {5: st.integers(0, 4), 65535: st.integers(65530, 65534), 70000: st.integers(69997, 69999)}


@st.composite
def name_lists(draw: st.DrawFn) -> tuple[list[Name], list[int], int]:
    vocab_size = draw(st.sampled_from(sorted(VOCABULARIES)))
    names = draw(
        st.lists(st.lists(VOCABULARIES[vocab_size], min_size=1, max_size=12).map(tuple), min_size=1, max_size=60)
    )
    counts = draw(st.lists(st.integers(0, 3), min_size=len(names), max_size=len(names)))
    return names, counts, vocab_size


def plain(names: list[Name]) -> dict[Name, set[int]]:
    """What may follow each prefix of a name, END where one ends."""
    following = defaultdict(set)
    for name in names:
        for index in range(len(name)):
            following[name[:index]].add(name[index])
        following[name].add(END)
    return following


def tokens_of(trie: NameTrie, node: int) -> list[int]:
    tokens, _, valid = (array[0] for array in trie.children_of(np.array([node])))
    assert valid.all()
    return [END if token == trie.end else int(token) for token in tokens]


@settings(max_examples=75)
@given(name_lists())
def test_same_as_a_plain_set_of_names(case: tuple[list[Name], list[int], int]) -> None:
    names, counts, vocab_size = case
    trie = trie_from_names(names, vocab_size, counts=counts)
    following = plain(names)
    assert trie.arrays.count_names() == len(set(names))
    assert trie.n_edges == len(following) + len(set(names))
    assert trie.max_depth == max(map(len, names)) + 1
    for prefix, allowed in following.items():
        node = trie.walk(prefix)
        assert node is not None
        # siblings by token, END last
        assert tokens_of(trie, node) == sorted(allowed - {END}) + [END] * (END in allowed)
        deepest = max(len(name) for name in set(names) if name[: len(prefix)] == prefix)
        assert trie.height[node] == deepest + 1 - len(prefix)
        assert not trie.is_end(node)
        end = trie.end_edge(node)
        assert (end is not None) == (END in allowed)
        rows = [row for row, name in enumerate(names) if name == prefix]
        rows.sort(key=lambda row: (-counts[row], row))
        assert trie.rows_of(prefix).tolist() == rows
        assert trie.rows_at(node).tolist() == []
        if end is not None:
            assert trie.is_end(end)
            assert trie.height[end] == 0
            assert trie.rows_at(end).tolist() == rows
            assert tokens_of(trie, end) == []
    assert check_trie(trie.arrays, np.array(counts), vocab_size) == []


@settings(max_examples=80)
@given(name_lists(), st.lists(st.lists(st.integers(-1, 70001), max_size=4), max_size=10))
def test_what_is_no_prefix_is_not_found(case: tuple[list[Name], list[int], int], strangers: list[list[int]]) -> None:
    names, _, vocab_size = case
    trie = trie_from_names(names, vocab_size)
    following = plain(names)
    for stranger in [*strangers, *[[*name, token] for name in names for token in (0, vocab_size - 1)]]:
        assert (trie.walk(stranger) is None) == (tuple(stranger) not in following)
        assert len(trie.rows_of(stranger)) == names.count(tuple(stranger))
    assert trie.walk([trie.end]) is None  # the marker is no token


@settings(max_examples=80)
@given(name_lists(), st.data())
def test_children_of_are_the_edges_padded(case: tuple[list[Name], list[int], int], data: st.DataObject) -> None:
    names, _, vocab_size = case
    trie = trie_from_names(names, vocab_size)
    nodes = data.draw(st.lists(st.integers(0, trie.n_edges - 1), max_size=8))
    tokens, edges, valid = trie.children_of(np.array(nodes, dtype=np.int64))
    assert tokens.shape == edges.shape == valid.shape
    assert (tokens.dtype, edges.dtype, valid.dtype) == (np.int64, np.int64, np.bool_)
    children = [range(trie.offsets[node], trie.offsets[node + 1]) for node in nodes]
    assert tokens.shape == (len(nodes), max(map(len, children), default=0))
    for index, one_edges in enumerate(children):
        assert valid[index].tolist() == [True] * len(one_edges) + [False] * (tokens.shape[1] - len(one_edges))
        assert tokens[index, valid[index]].tolist() == trie.tokens[one_edges].tolist()
        assert edges[index, valid[index]].tolist() == list(one_edges)
        assert not tokens[index, ~valid[index]].any()
        assert not edges[index, ~valid[index]].any()
        count = int(valid[index].sum())
        assert trie.children(nodes[index], count) == [*zip(tokens[index, :count], edges[index, :count], strict=True)]
        assert trie.children(nodes[index], count - 1) is None


@settings(max_examples=30)
@given(name_lists())
def test_saved_and_mapped_again(case: tuple[list[Name], list[int], int]) -> None:
    names, counts, vocab_size = case
    trie = trie_from_names(names, vocab_size, counts=counts)
    with tempfile.TemporaryDirectory() as folder:
        trie.arrays.save(Path(folder))
        mapped = NameTrie.open(folder)
        for name in TrieArrays.__slots__:
            array = getattr(mapped, name)
            assert np.array_equal(array, getattr(trie, name))
            assert not array.flags.writeable
            assert not array.flags.owndata
        assert all(mapped.rows_of(name).tolist() == trie.rows_of(name).tolist() for name in names)


@settings(max_examples=30)
@given(name_lists(), st.randoms())
def test_order_of_the_names_does_not_matter(case: tuple[list[Name], list[int], int], random: object) -> None:
    names, counts, vocab_size = case
    order = list(range(len(names)))
    random.shuffle(order)  # type: ignore[attr-defined]
    one = trie_from_names(names, vocab_size, counts=counts)
    other = trie_from_names([names[i] for i in order], vocab_size, rows=order, counts=[counts[i] for i in order])
    for name in TrieArrays.__slots__:
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_ten_thousand_names() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 8, 10_000)
    flat = (random.random(lengths.sum()) ** 2 * 300).astype(np.int64)
    names = [tuple(part.tolist()) for part in np.split(flat, np.cumsum(lengths)[:-1])]
    trie = NameTrie(build_trie(flat, lengths, np.arange(10_000), np.zeros(10_000, np.int64), 300))
    assert trie.arrays.count_names() == len(set(names))
    following = plain(names)
    assert trie.n_edges == len(following) + len(set(names))
    rows_of = defaultdict(list)
    for row, name in enumerate(names):
        rows_of[name].append(row)
    assert max(map(len, rows_of.values())) > 50
    assert len(trie.leaf_starts) > 100
    for name, rows in rows_of.items():
        assert trie.rows_of(name).tolist() == rows
    ordered = sorted(names)
    for prefix in random.choice(np.array([name[:-1] for name in names], dtype=object), 500):
        start = bisect_left(ordered, prefix)
        stop = bisect_left(ordered, (*prefix, 300))
        following_tokens = {name[len(prefix)] for name in ordered[start:stop] if len(name) > len(prefix)}
        assert set(tokens_of(trie, trie.walk(prefix) or 0)) - {END} == following_tokens


@pytest.mark.parametrize(
    "names",
    [[(7,)], [(7, 8, 9)], [(token,) for token in range(1000)], [(7,)] * 1000, [(7,) * n for n in range(1, 255)]],
    ids=["one token", "one name", "one-token names", "one name of all", "each the prefix of the next"],
)
def test_shapes_at_the_edge(names: list[Name]) -> None:
    trie = trie_from_names(names, 1000)
    for name in names:
        assert trie.rows_of(name).tolist() == [row for row, other in enumerate(names) if other == name]
    assert trie.is_end(trie.n_edges - 1)  # the search takes it for a node that nothing leaves
    assert check_trie(trie.arrays, np.zeros(len(names), np.int64), 1000) == []


def test_layout_in_the_small() -> None:
    # "a", "ab", "c" (twice), breadth first: root, a, c, ab, a-END, c-END, ab-END
    trie = trie_from_names([(0,), (0, 1), (2,), (2,)], 3, counts=[0, 0, 1, 4])
    end = trie.end
    assert end == 65535
    assert trie.tokens.tolist()[1:] == [0, 2, 1, end, end, end]
    assert trie.offsets.tolist() == [1, 3, 5, 6, 7, 7, 7, 7]
    assert trie.height.tolist() == [3, 2, 1, 1, 0, 0, 0]
    assert trie.leaf_rows.tolist() == [0, ~3, 2, 1]
    assert trie.leaf_starts.tolist() == [0, 4]
    assert trie.rows_of([2]).tolist() == [3, 2]
    assert ROOT == 0


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65535, np.uint16), (65536, np.uint32), (250000, np.uint32)])
def test_dtype_by_the_vocabulary(vocab_size: int, dtype: type) -> None:
    trie = trie_from_names([(vocab_size - 1,), (0, vocab_size - 1)], vocab_size)
    assert trie.tokens.dtype == dtype
    assert trie.end == np.iinfo(dtype).max > vocab_size - 1
    assert trie.rows_of([0, vocab_size - 1]).tolist() == [1]


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ([], "at least one"),
        ([(1,), ()], "1 to 254"),
        ([(1,) * 255], "1 to 254"),
        ([(5,)], "outside"),
        ([(-1,)], "outside"),
    ],
)
def test_names_that_no_trie_can_hold(names: list[Name], match: str) -> None:
    with pytest.raises(KBError, match=match):
        trie_from_names(names, 5)


def test_longest_name_possible() -> None:
    trie = trie_from_names([(1,) * 254], 5)
    assert trie.max_depth == 255
    assert trie.rows_of((1,) * 254).tolist() == [0]


def test_too_many_edges_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spacy_gemel.kb.trie_builder.MAX_EDGES", 10)
    trie_from_names([(1, 2, 3, 4)], 5)
    with pytest.raises(KBError, match="more than 10 edges"):
        trie_from_names([(1, 2, 3, 4), (2, 2, 3, 4)], 5)


@pytest.mark.parametrize("node", [-1, 7, 10**12])
def test_nodes_that_do_not_exist(node: int) -> None:
    trie = trie_from_names([(0,), (0, 1), (2,)], 3)
    for call in (trie.rows_at, trie.is_end, trie.end_edge, lambda node: trie.children(node, 9)):
        with pytest.raises(IndexError):
            call(node)
    with pytest.raises(IndexError):
        trie.children_of(np.array([0, node]))


@pytest.mark.parametrize("value", [0, -5, 1000, 2**31 - 1])
def test_corrupt_offsets_are_never_followed(value: int) -> None:
    arrays = trie_from_names([(0,), (0, 1), (2,), (2, 2)], 3).arrays
    for index in range(1, len(arrays.offsets) - 1):
        offsets = arrays.offsets.copy()
        offsets[index] = value
        trie = NameTrie(TrieArrays(arrays.tokens, offsets, *[getattr(arrays, n) for n in TrieArrays.__slots__[2:]]))
        calls = (
            trie.end_edge,
            lambda node, trie=trie: trie.children_of(np.array([node])),
            lambda node, trie=trie: trie.children(node, 9),
        )
        for call in calls:
            for node in (index - 1, index):
                with pytest.raises(KBError, match="corrupt"):
                    call(node)
        assert check_trie(trie.arrays, np.zeros(4, np.int64), 3)


def changed(arrays: TrieArrays, name: str, values: object) -> TrieArrays:
    parts = {other: getattr(arrays, other) for other in TrieArrays.__slots__}
    parts[name] = np.array(values, dtype=parts[name].dtype)
    return TrieArrays(**parts)


@pytest.mark.parametrize("vocab_size", [9, 65535, 70000])
def test_token_of_no_vocabulary_is_never_given_out(vocab_size: int) -> None:
    arrays = trie_from_names([(0,), (0, 8), (2,), (2, 2)], vocab_size).arrays
    refused = 0
    for edge in range(len(arrays.tokens) - 1):
        for bit in range(8 * arrays.tokens.itemsize):
            tokens = arrays.tokens.copy()
            tokens[edge] ^= tokens.dtype.type(1 << bit)
            trie = NameTrie(changed(arrays, "tokens", tokens), vocab_size)
            for node in range(trie.n_edges):
                calls = (
                    lambda trie=trie, node=node: trie.children_of(np.array([node])).tokens,
                    lambda trie=trie, node=node: np.array([token for token, _ in trie.children(node, 9)]),
                )
                for call in calls:
                    try:
                        found = call()
                    except KBError as error:
                        assert "tokens are corrupt (python -m spacy_gemel check-kb KB_DIR)" in str(error)
                        refused += 1
                    else:
                        assert ((found < vocab_size) | (found == trie.end)).all()
    assert refused > 20 or vocab_size == 65535  # all that uint16 can hold but END is in that vocabulary


def test_fanout_of_more_than_the_vocabulary_is_corrupt() -> None:
    """Offsets that stay inside of the trie, but would have a search take hundreds of thousands of edges."""
    random = np.random.default_rng(0)
    flat = random.integers(0, 300, 400_000)
    n = len(flat) // 4
    arrays = build_trie(flat, np.full(n, 4), np.arange(n), np.zeros(n, np.int64), 300)
    nodes = random.integers(1, len(arrays.tokens) - 1, 150)
    refused = {"children_of": 0, "end_edge": 0}
    for node in nodes.tolist():
        for bit in range(31):
            offsets = arrays.offsets.copy()
            offsets[node] ^= 1 << bit
            trie = NameTrie(
                TrieArrays(arrays.tokens, offsets, arrays.height, arrays.leaf_rows, arrays.leaf_starts), 300
            )
            for name in refused:
                for of in (node - 1, node):
                    try:
                        found = getattr(trie, name)(np.array([of]) if name == "children_of" else of)
                    except KBError as error:
                        assert "offsets are corrupt" in str(error) or "tokens are corrupt" in str(error)
                        refused[name] += "offsets" in str(error)
                    else:
                        assert name == "end_edge" or np.asarray(found[0]).shape[-1] <= 301
    assert min(refused.values()) > 500


def test_every_token_and_an_end_may_leave_a_node() -> None:
    trie = trie_from_names([(1,), *[(1, token) for token in range(9)]], 9)
    ((node,),) = trie.children_of(np.array([ROOT])).edges.tolist()
    assert trie.children_of(np.array([node])).valid.sum() == 10


@pytest.mark.parametrize("name", ["leaf_rows", "leaf_starts", "tokens"])
def test_rows_of_a_corrupt_trie(name: str) -> None:
    """Rows that are none are never given out, and no name gets another's: a block has as many names as END edges."""
    arrays = trie_from_names([(first, second) for first in range(20) for second in range(20)], 32_000).arrays
    sound = NameTrie(arrays, 32_000, 400)
    edges = range(421, sound.n_edges, 41)
    assert all(map(sound.is_end, edges))
    rows_of_edges = np.concatenate([sound.rows_at(edge) for edge in edges]).tolist()
    refused = 0
    values = getattr(arrays, name)
    for index in range(1, len(values) - 1):
        for bit in range(8 * values.itemsize - 1):
            flipped = values.copy()
            flipped[index] ^= flipped.dtype.type(1 << bit)
            trie = NameTrie(changed(arrays, name, flipped), 32_000, 400)
            for edge, row in zip(edges, rows_of_edges, strict=True):
                try:
                    rows = trie.rows_at(edge).tolist()
                except KBError as error:
                    assert "corrupt (python -m spacy_gemel check-kb KB_DIR)" in str(error)
                    refused += 1
                else:
                    # a row in range in place of another is all that only check-kb can see
                    assert rows == [row] or (name == "leaf_rows" and max(rows) < 400) or not trie.is_end(edge)
        leaf = arrays.leaf_rows.copy()
        leaf[index % 400] = ~leaf[index % 400]  # the last row of its name no longer
        with pytest.raises(KBError, match="leaf_rows are corrupt"):
            NameTrie(changed(arrays, "leaf_rows", leaf), 32_000, 400).rows_at(421 + index % 400)
    assert refused > 100


def test_vocabulary_that_is_not_the_tries() -> None:
    arrays = trie_from_names([(0,), (0, 1)], 3).arrays
    with pytest.raises(KBError, match="vocabulary of 70000"):
        NameTrie(arrays, 70000)


def test_arrays_that_do_not_fit_together() -> None:
    arrays = trie_from_names([(0,), (0, 1)], 3).arrays
    for height in (0, 1):
        with pytest.raises(KBError, match="height are corrupt"):
            NameTrie(changed(arrays, "height", [height, *arrays.height[1:]]))
    for name in TrieArrays.__slots__:
        parts = {other: getattr(arrays, other) for other in TrieArrays.__slots__}
        parts[name] = parts[name][:-1]
        with pytest.raises(KBError):
            NameTrie(TrieArrays(**parts))


@settings(max_examples=60)
@given(name_lists(), st.data())
def test_check_finds_any_changed_number(case: tuple[list[Name], list[int], int], data: st.DataObject) -> None:
    names, counts, vocab_size = case
    arrays = trie_from_names(names, vocab_size, counts=counts).arrays
    name = data.draw(st.sampled_from(["offsets", "height", "leaf_starts"]))
    changed = getattr(arrays, name).copy()
    index = data.draw(st.integers(0, len(changed) - 1))
    changed[index] += 1
    parts = {other: getattr(arrays, other) for other in TrieArrays.__slots__}
    parts[name] = changed
    assert check_trie(TrieArrays(**parts), np.array(counts), vocab_size) != []


def test_check_finds_wrong_order_tokens_and_rows() -> None:
    arrays = trie_from_names([(0,), (1,), (1,)], 3, counts=[0, 5, 2]).arrays
    counts = np.array([0, 5, 2])

    def with_changed(name: str, values: list[int]) -> list[str]:
        parts = {other: getattr(arrays, other) for other in TrieArrays.__slots__}
        parts[name] = np.array(values, dtype=parts[name].dtype)
        return check_trie(TrieArrays(**parts), counts, 3)

    assert with_changed("leaf_rows", [0, ~1, 2]) == []
    assert "most frequent entity" in with_changed("leaf_rows", [0, ~2, 1])[0]
    assert "twice" in with_changed("leaf_rows", [0, ~1, 1])[0]
    assert "outside the entities" in with_changed("leaf_rows", [0, ~1, 3])[0]
    assert "does not divide" in with_changed("leaf_rows", [0, 1, 2])[0]
    assert "does not divide" in with_changed("leaf_rows", [0, ~1, ~2])[0]
    assert "out of order" in with_changed("tokens", [0, 1, 0, 65535, 65535])[0]
    assert "outside the vocabulary" in with_changed("tokens", [0, 0, 3, 65535, 65535])[0]
    assert "does not fit" in check_trie(arrays, counts, 70000)[0]
