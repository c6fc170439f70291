"""Rows of JSON files with their lines; a damaged row is named, and takes none of those behind it."""

import json
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spacy_gemel.data.datasets import json_window
from spacy_gemel.data.datasets.json_rows import Row, RowShape, objects_with, read_json_rows
from spacy_gemel.data.records import Problem

SHAPE = objects_with("s")
LISTS = RowShape(r"\[\s*\"", lambda value: isinstance(value, list) and [type(item) for item in value[:2]] == [str, int])


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def row(number: int) -> str:
    return json.dumps({"s": f"text {{ {number}", "m": ["a", "b"]})


def numbers(rows: list[Row | Problem]) -> list[int | str]:
    """The numbers of the rows that were read, and of the others where they stand and what is wrong."""
    return [int(row.value["s"].split()[-1]) if isinstance(row, Row) else f"{row.what} {row.where}" for row in rows]


def test_array_and_object_with_lines(tmp_path: Path) -> None:
    array = write(tmp_path / "a.json", '\ufeff[\n{"a": 1},\n\n"two", 3\n]\n')
    assert list(read_json_rows(array, SHAPE)) == [
        Row(f"{array}:2, item 1", {"a": 1}),
        Row(f"{array}:4, item 2", "two"),
        Row(f"{array}:4, item 3", 3),
    ]
    table = write(tmp_path / "o.json", '{"x": [1],\n "x": 2}')
    # a key that stands twice is two rows: none is lost
    assert list(read_json_rows(table, SHAPE)) == [
        Row(f"{table}:1, item 1", [1], "x"),
        Row(f"{table}:2, item 2", 2, "x"),
    ]
    assert list(read_json_rows(write(tmp_path / "e.json", " [ ] "), SHAPE)) == []
    assert list(read_json_rows(write(tmp_path / "f.json", "{}"), SHAPE)) == []


@pytest.mark.parametrize("content", ["", '"text"', "1", "<html>", '[{"s": "x"}]'.encode("utf-16")])
def test_a_file_of_another_kind_is_one_error(tmp_path: Path, content: str | bytes) -> None:
    path = write(tmp_path / "x.json", content)
    with pytest.raises(ValueError, match="neither a JSON array nor a JSON object") as raised:
        list(read_json_rows(path, SHAPE))
    assert str(path) in str(raised.value)


DAMAGES = {
    "comma": lambda text: text.replace(", ", " ", 1),
    "colon": lambda text: text.replace(":", "", 1),
    "quote of the first field": lambda text: text.replace('"', "", 1),
    "quote of the text": lambda text: text.replace('", "m"', ', "m"'),
    "closing bracket": lambda text: text[:-1],
    "both closing brackets": lambda text: text[:-2],
    "inner bracket": lambda text: text.replace("]", ""),
    "opening bracket": lambda text: text.replace("[", ""),
    "another bracket": lambda text: text.replace("]", "}"),
    "a word": lambda text: text.replace('"a"', "NONE"),
    "an escape": lambda text: text.replace("text", "te\\xt"),
    "a line end in a string": lambda text: text.replace("text", "te\nxt"),
    "no row at all": lambda text: "what is this",
    "cut": lambda text: text[: len(text) // 2],
    "digits": lambda text: text.replace('"a"', "1" * 5000),
    "depth": lambda text: text.replace('"a"', "[" * 100_000),
}


@pytest.mark.parametrize("keyed", [False, True], ids=["array", "object"])
@pytest.mark.parametrize("separator", [",\n", ", "], ids=["lines", "one line"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_is_named_and_the_next_is_read(tmp_path: Path, damage: str, separator: str, keyed: bool) -> None:
    rows = [row(number) for number in range(1, 6)]
    rows[2] = DAMAGES[damage](rows[2])
    if keyed:
        rows = [f'"k{number}": {text}' for number, text in enumerate(rows, start=1)]
    path = write(tmp_path / "x.json", ("{%s}" if keyed else "[%s]") % separator.join(rows))
    read = list(read_json_rows(path, SHAPE))
    line = 3 if "\n" in separator else 1
    assert numbers(read) == [1, 2, f"row {path}:{line}, item 3", 4, 5]
    assert [found.key for found in read if isinstance(found, Row)] == (
        ["k1", "k2", "k4", "k5"] if keyed else [None] * 4
    )


@pytest.mark.parametrize("separator", [",\n", ", "], ids=["lines", "one line"])
def test_a_bracket_too_many_takes_no_row(tmp_path: Path, separator: str) -> None:
    rows = [row(1), "[" + row(2), row(3), row(4)]
    read = list(read_json_rows(write(tmp_path / "x.json", f"[{separator.join(rows)}]"), SHAPE))
    assert [found for found in numbers(read) if isinstance(found, int)] == [1, 2, 3, 4]
    assert len(read) == 5  # and is told of


@pytest.mark.parametrize("blanks", ["", " " * 100])
def test_rows_within_a_list_are_one_thing_that_is_no_row(tmp_path: Path, blanks: str) -> None:
    text = f"[{row(1)}, [{row(2)}, {row(3)}]{blanks}, null, {row(4)}]"
    read = list(read_json_rows(write(tmp_path / "x.json", text), SHAPE))
    assert [type(found.value) for found in read if isinstance(found, Row)] == [dict, list, type(None), dict]
    assert len(read) == 4


def test_bad_bytes_take_their_row_alone(tmp_path: Path) -> None:
    rows = [
        row(1).encode(),
        row(2).encode().replace(b"text", b"t\xe4xt"),
        row(3).encode(),
        row(4).encode().replace(b":", b"\xff"),
    ]
    path = write(tmp_path / "x.json", b"[" + b",\n".join([*rows, row(5).encode()]) + b"]")
    read = list(read_json_rows(path, SHAPE))
    assert numbers(read) == [1, f"row {path}:2, item 2", 3, f"row {path}:4, item 4", 5]
    bad = [problem for problem in read if isinstance(problem, Problem)]
    assert [problem.reason for problem in bad] == ["not UTF-8"] * 2
    assert bad[0].detail == "the byte 0xe4, line 2; the next row is read from line 3"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("[{1},\n{2}", [1, 2, "file 2"]),
        ("[{1},\n{2},", [1, 2, "file 2"]),
        ("[{1},\n{2},]", [1, 2, "file 2"]),
        ("[{1}\n{2}]", [1, "file 1", 2]),
        ("[{1}]\n, {2}]", [1, "file 1", 2]),
        ("[{1}]\n[{2}]", [1, "file 1", 2]),
        ("[{1}},\n{2}]", [1, "file 1", 2]),
        ("[{1}, , {2}]", [1, "row 2", 2]),
        ("[] {1}]", ["file ", 1]),
        ("[{1}, \ufffd{2}]", [1, "row 2", 2]),
        ("[", ["row 1"]),
        ("[{1}, 5 {2}]", [1, "row 2", 2]),
    ],
)
def test_what_is_wrong_between_rows_takes_none(tmp_path: Path, content: str, found: list[int | str]) -> None:
    content = content.replace("{1}", row(1)).replace("{2}", row(2))
    path = write(tmp_path / "x.json", content)
    read = [re.sub(r" .*?(\d*)$", r" \1", str(item)) for item in numbers(list(read_json_rows(path, SHAPE)))]
    assert read == [str(item) for item in found]


def test_a_row_that_swallows_the_others_is_none(tmp_path: Path) -> None:
    """Without a bracket, lists in a list and objects in an object are one value up to the end of the file."""
    path = write(tmp_path / "x.json", '[["a", 1], ["b", 2, ["c", 3], ["d", 4]]')
    rows = list(read_json_rows(path, LISTS))
    assert [item.value[0] if isinstance(item, Row) else item.what for item in rows] == ["a", "row", "c", "d"]


def test_a_row_that_swallows_some_is_none_where_the_brackets_match_again(tmp_path: Path) -> None:
    """One bracket too few and, rows behind it, one too many: valid JSON, in which the rows between would be lost."""
    path = write(tmp_path / "x.json", '[["a", 1, [[2, [3], ["b", 2], ["c", 3], ["d", 4]]]], ["e", 5]]')
    values = [item.value[0] if isinstance(item, Row) else item.what for item in read_json_rows(path, LISTS)]
    assert values == ["row", "b", "c", "d", "file", "e"]
    path = write(tmp_path / "y.json", '{"1": {"s": "a 1", "2": {"s": "b 2"}, "3": {"s": "c 3"}}, "4": {"s": "d 4"}}')
    assert numbers(list(read_json_rows(path, SHAPE))) == [
        f"row {path}:1, item 1", 2, 3, f"file {path}:1, item 3", 4,
    ]  # fmt: skip
    # but a field of a row may be anything
    path = write(tmp_path / "z.json", '[{"s": "a 1", "from": {"s": "b 2"}}, {"s": "c 3"}]')
    assert numbers(list(read_json_rows(path, SHAPE))) == [1, 3]


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_window_may_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_window, "_CHUNK", chunk)
    rows = [row(number).replace("text", "tëxt \\u00e9 12345") for number in range(1, 9)]
    rows[3], rows[5] = rows[3][:-1], rows[5].replace('"m"', "m")
    path = write(tmp_path / "x.json", "[\n" + ",\n".join(rows) + "\n]\n")
    assert numbers(list(read_json_rows(path, SHAPE))) == [
        1, 2, 3, f"row {path}:5, item 4", 5, f"row {path}:7, item 6", 7, 8,
    ]  # fmt: skip
    path = write(tmp_path / "n.json", "[12345678901234567890, 1.5e300, true, null, -Infinity]")
    values = [item.value for item in read_json_rows(path, SHAPE) if isinstance(item, Row)]
    assert values == [12345678901234567890, 1.5e300, True, None, float("-inf")]


def test_a_file_is_not_held_whole(tmp_path: Path) -> None:
    """24 MB of rows, and among them one with a missing bracket, which is no reason to read up to the end."""
    rows = [json.dumps({"s": f"{'x' * 1000} {number}"}) for number in range(24_000)]
    rows[5] = rows[5][:-1] + ', "more": ['
    path = write(tmp_path / "x.json", "[" + ",\n".join(rows) + "]")
    del rows
    tracemalloc.start()
    try:
        found = sum(isinstance(item, Row) for item in read_json_rows(path, SHAPE))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == 23_999
    assert peak < path.stat().st_size * 2


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
    rows = [item for item in read_json_rows(path, objects_with("no such field")) if isinstance(item, Row)]
    if isinstance(content, dict):
        assert {row.key: row.value for row in rows} == content
    else:
        assert [row.value for row in rows] == content


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_any_damage_within_a_row_leaves_the_others(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, keyed: bool, lines: bool
) -> None:
    """Characters of one row are left out, exchanged or put in; all others are read, and nothing else as a row."""
    texts = [row(number) for number in range(1, 6)]
    damaged = texts[2]
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(damaged) - 1))
        behind = index + data.draw(st.integers(0, 5))
        damaged = damaged[:index] + data.draw(st.text('"{}[],:\\ x1\n\udcff', max_size=3)) + damaged[behind:]
        assume(damaged)
    assume('{"' not in damaged[1:])  # which would be another row
    texts[2] = damaged
    if keyed:
        texts = [f'"{number}": {text}' for number, text in enumerate(texts)]
    content = (",\n" if lines else ",").join(texts).encode("utf-8", "surrogateescape")
    path = write(tmp_path_factory.mktemp("j") / "x.json", b"{%b}" % content if keyed else b"[%b]" % content)
    read = [
        item.value["s"] for item in read_json_rows(path, SHAPE) if isinstance(item, Row) and SHAPE.is_row(item.value)
    ]
    expected = [f"text {{ {number}" for number in (1, 2, 4, 5)]
    assert [text for text in read if text in expected] == expected
    assert len(read) <= 5
