"""The trie's benchmark in the small: its names are what they are said to be, and its checks find what is wrong."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import trie as command
from benchmarks.made_names import VOCABULARY, MadeNames, make_names, write_entities
from benchmarks.trie import LIMITS, check_prefixes, compare_with_dicts, of_list, prefix_names
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
    prefixes = {name[:index] for name in distinct for index in range(1, len(name))}
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
    kb = KnowledgeBase.open(tmp_path / "kb")
    assert kb.meta.skipped == {}
    assert check_prefixes(names, kb.trie, 200)["prefixes_wrong"] == 0
    assert set(open_kb(str(tmp_path / "kb"))) == {"milliseconds", "mb", "mb_after_50_lookups"}
    save(names, tmp_path / "names")
    nested, flat = dicts(str(tmp_path / "names")), arrays(str(tmp_path / "names"))
    # the dicts hold all names: as many edges as the trie, counted otherwise than by the trie's own builder
    lists = [tuple(name) for name in names.lists(0, N)]
    prefixes = {name[:index] for name in lists for index in range(len(name) + 1)}
    assert nested["edges"] == flat["edges"] == built["edges"] == len(prefixes) + len(set(lists))
    assert nested["seconds"] > 0 and flat["seconds"] > 0
    assert mapped(str(tmp_path / "names"))["mb"] >= 0


def test_dicts_that_lack_names_are_no_comparison(
    names: MadeNames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {"dicts": {"edges": 9, "mb": 1, "seconds": 1}, "arrays": {"edges": 10, "seconds": 1}, "mapped": {"mb": 1}}
    monkeypatch.setattr(command, "step", lambda name, *_: steps[name])
    with pytest.raises(RuntimeError, match="the dicts have 9 edges, the trie 10"):
        compare_with_dicts(names, tmp_path, 1)


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def write(path: Path, content: object) -> None:
        raise AssertionError(f"{path} is for the default size")

    monkeypatch.setattr(command, "write_json", write)
    command.main(["--names", str(N), "--repeats", "1"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["holds"].keys() == LIMITS.keys()
    small = {key for key, holds in result["holds"].items() if not holds}
    assert small <= {"edges", "dict_memory_ratio", "dict_build_ratio"}  # which need more names
    assert "edges" in small
    assert (result["names"], result["dict_names"], result["prefixes_wrong"]) == (N, N, 0)
    assert result["dict_edges"] == result["edges"]
    assert result["bytes"] < result["entity_bytes"] + result["bytes"] < sum(result["bytes_by_file"].values())
    assert min(result["build_seconds"], result["build_kb_seconds"]) >= 0  # rounded: one may be 0 on a fast machine
    assert 0 < result["build_peak_mb"] < 1000
    for figure in ("open_milliseconds", "dict_memory_ratio", "dict_build_ratio"):
        assert result[f"{figure}_spread"] == {
            "median": result[figure], "least": result[figure], "most": result[figure], "repeats": 1
        }  # fmt: skip
