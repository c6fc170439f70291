"""Rows of JSON files with their lines; a file that is broken as a whole is one error."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.corpus.json_rows import Row, read_json_rows


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def test_array_and_object_with_lines(tmp_path: Path) -> None:
    array = write(tmp_path / "a.json", '\ufeff[\n{"a": 1},\n\n"two", 3\n]\n')
    assert list(read_json_rows(array)) == [
        Row(f"{array}:2, item 1", {"a": 1}),
        Row(f"{array}:4, item 2", "two"),
        Row(f"{array}:4, item 3", 3),
    ]
    table = write(tmp_path / "o.json", '{"x": [1],\n "x": 2}')
    # a key that stands twice is two rows: none is lost
    assert list(read_json_rows(table)) == [Row(f"{table}:1, item 1", [1], "x"), Row(f"{table}:2, item 2", 2, "x")]
    assert list(read_json_rows(write(tmp_path / "e.json", " [ ] "))) == []
    assert list(read_json_rows(write(tmp_path / "f.json", "{}"))) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "neither a JSON array nor a JSON object"),
        ('"text"', "neither a JSON array nor a JSON object"),
        ("[1,\n2", ":2: not JSON"),
        ("[1,\n2,]", ":2: not JSON"),
        ("[1] [2]", ":1: not JSON: Extra data"),
        ('{"a" 1}', ":1: not JSON"),
        ("{1: 2}", ":1: not JSON"),
        ('{"a": 1', ":1: not JSON"),
        ("[1 2]", ":1: not JSON"),
        (b'["\xff"]', "not UTF-8"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_one_clear_error(tmp_path: Path, content: str | bytes, says: str) -> None:
    path = write(tmp_path / "x.json", content)
    with pytest.raises(ValueError, match=says) as raised:
        list(read_json_rows(path))
    assert str(path) in str(raised.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.lists(VALUES, max_size=5) | st.dictionaries(st.text(max_size=3), VALUES, max_size=5), st.sampled_from([None, 1])
)
def test_reads_what_json_reads(tmp_path_factory: pytest.TempPathFactory, content: object, indent: int | None) -> None:
    path = write(tmp_path_factory.mktemp("j") / "x.json", json.dumps(content, indent=indent))
    rows = list(read_json_rows(path))
    if isinstance(content, dict):
        assert {row.key: row.value for row in rows} == content
    else:
        assert [row.value for row in rows] == content
