"""Rows of JSON arrays and objects, and one clear error for a file that is damaged."""

from pathlib import Path

import pytest

from spacy_gemel.data.jsonl import JsonRow, read_json_rows


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def test_array_and_object(tmp_path: Path) -> None:
    array = write(tmp_path / "a.json", '\ufeff[\n{"a": 1},\n\n"two", 3\n]\n')
    assert list(read_json_rows(array)) == [
        JsonRow(f"{array}, item 1", {"a": 1}),
        JsonRow(f"{array}, item 2", "two"),
        JsonRow(f"{array}, item 3", 3),
    ]
    table = write(tmp_path / "o.json", '{"x": [1],\n "y": 2}')
    assert list(read_json_rows(table)) == [
        JsonRow(f"{table}, item 1", [1], "x"),
        JsonRow(f"{table}, item 2", 2, "y"),
    ]
    assert list(read_json_rows(write(tmp_path / "e.json", " [ ] "))) == []
    assert list(read_json_rows(write(tmp_path / "f.json", "{}"))) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ":1:1: not JSON: Expecting value"),
        ("<html>", ":1:1: not JSON: Expecting value"),
        ('"text"', ": neither a JSON array nor a JSON object, but str"),
        ("1", ": neither a JSON array nor a JSON object, but int"),
        ('[{"s": "x"}]'.encode("utf-16"), ":1:1: not UTF-8: invalid start byte"),
        (b'[{"s": "x"},\n {"s": "\xe4x"}]', ":2:9: not UTF-8: invalid continuation byte"),
        ('[{"s": 1},\n {"s" 2}]', ":2:7: not JSON: Expecting ':' delimiter"),
        ('[{"s": 1},\n {"s": 2}', ":2:10: not JSON: Expecting ',' delimiter"),
        ("[1]\n[2]", ":2:1: not JSON: Extra data"),
        ("[" * 100_000, ": not JSON that Python can read: maximum recursion depth"),
        (f"[{'1' * 5000}]", ": not JSON that Python can read: Exceeds the limit"),
    ],
)
def test_a_damaged_file_is_one_error_with_line_and_column(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = write(tmp_path / "x.json", content)
    with pytest.raises(ValueError) as raised:
        list(read_json_rows(path))
    assert str(raised.value).startswith(f"{path}{message}")
