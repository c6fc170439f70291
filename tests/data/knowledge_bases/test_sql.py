"""The streaming reader of MySQL dumps, against a writer of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.data.knowledge_bases import sql
from spacy_gemel.data.knowledge_bases.sql import SqlDump, integer, optional_integer, text
from spacy_gemel.data.knowledge_bases.work import Archive, CutOffError, ImportReport
from tests.data.knowledge_bases.dumps import literal

WANTED = {"a": integer, "t": text, "u": text, "w?": text}


class Cut(Archive):
    """An archive whose chunks have the sizes that a test gives."""

    def __init__(self, path: Path, content: bytes, sizes: list[int]) -> None:
        super().__init__(path)
        self.content, self.sizes = content, sizes

    def cut_off(self, problem: str) -> CutOffError:
        return CutOffError(f"{self.path}: {problem}")

    def chunks(self) -> Any:
        at, number = 0, 0
        while at < len(self.content):
            size = self.sizes[number % len(self.sizes)]
            yield self.content[at : at + size]
            at, number = at + size, number + 1


def read(content: bytes, sizes: list[int], wanted: Any = WANTED) -> tuple[list[list[Any]], ImportReport]:
    report = ImportReport("test", [])
    dump = SqlDump(Cut(Path("x.sql"), content, sizes), "x", wanted, report)
    rows = []
    for block in dump.row_blocks():
        rows += [row for _, row in block.rows(report)]
    return rows, report


texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.text("'\\\"(),;\n\r\t\0\x1a %_b0nrtZ-/*`", max_size=12),
    st.sampled_from(
        ["),(1,'a','b',NULL),(", "');\nINSERT INTO `x` VALUES (", "\\", "''", "_binary 'x'", "0x41", "NULL"]
    ),
)
numbers = st.integers(min_value=-(10**17), max_value=10**17)
literals = st.one_of(st.none(), texts, numbers, st.floats(allow_nan=False, allow_infinity=False))


@st.composite
def spelled(draw: st.DrawFn, value: str) -> bytes:
    """Some way to write a text."""
    content = value.encode("utf-8")
    way = draw(st.sampled_from(["escaped", "doubled", "binary", "hexadecimal"]))
    if way == "hexadecimal" and content:
        return b"0x" + content.hex().encode()
    if way == "doubled" and b"\\" not in content:
        return b"'" + content.replace(b"'", b"''") + b"'"
    return (b"_binary " if way == "binary" else b"") + literal(content)


@st.composite
def dumps(draw: st.DrawFn) -> tuple[bytes, list[list[Any]]]:
    rows = draw(st.lists(st.tuples(numbers, texts, texts, literals), max_size=12))
    written, expected = [], []
    space = draw(st.sampled_from(["", " ", "\n", "\r\n  "])).encode()
    for a, t, u, other in rows:
        number = str(a).encode()
        values = [
            draw(st.sampled_from([number, b"'" + number + b"'"])),
            literal(other),
            draw(spelled(t)),
            draw(spelled(u)),
        ]
        written.append(b"(" + (b"," + space).join(values) + b")")
        expected.append([a, t, u, None])
    statements = []
    while written:
        size = draw(st.integers(1, len(written)))
        head = draw(
            st.sampled_from([b"INSERT INTO `x` VALUES ", b"insert into x values\n", b"REPLACE INTO `db`.`x` VALUES"])
        )
        statements.append(head + (space + b"," + space).join(written[:size]) + space + b";\n")
        written = written[size:]
    create = (
        b"CREATE TABLE `x` (\n `a` int,\n `o` blob COMMENT 'a, b) c',\n `t` text,\n `u` text,\n KEY `t` (`t`,`u`)\n);\n"
    )
    noise = b"-- x;\nINSERT INTO `y` VALUES (1,'a'),(2,'b');\n"
    return create + noise.join([b"", *statements, b""]), expected


@settings(max_examples=100)
@given(dumps(), st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_rows_are_what_was_written(dump: tuple[bytes, list[list[Any]]], sizes: list[int]) -> None:
    content, expected = dump
    rows, report = read(content, sizes)
    assert rows == expected
    assert not report.dropped


@settings(max_examples=100)
@given(
    st.lists(st.tuples(*[st.integers(0, 10**18 - 1)] * 3), min_size=1, max_size=30),
    st.sampled_from([b",", b",\n", b", ", b" ,"]),
    st.lists(st.integers(1, 80), min_size=1, max_size=4),
)
def test_integers_are_what_was_written(rows: list[tuple[int, ...]], between: bytes, sizes: list[int]) -> None:
    create = b"CREATE TABLE x (`a` int, `b` int, `c` int);\n"
    content = create + b"INSERT INTO x VALUES " + between.join(b"(%d,%d,%d)" % row for row in rows) + b";\n"
    wanted = dict.fromkeys("cab", integer)
    result: list[list[int]] = []
    report = ImportReport("test", [])
    for block in SqlDump(Cut(Path("x"), content, sizes), "x", wanted, report).row_blocks():
        if block.integers is None:
            result += [row for _, row in block.rows(report)]
        else:
            assert block.integers.dtype == np.int64
            result += block.integers[:, block.table.indices].tolist()
    assert result == [[c, a, b] for a, b, c in rows]
    assert not report.dropped


def three_integers(row: str) -> tuple[list[list[Any]], ImportReport]:
    content = f"CREATE TABLE x (`a` int,\n`b` int,\n`c` int);\nINSERT INTO x VALUES (7,8,9),{row},(4,5,6);\n".encode()
    return read(content, [10_000], dict.fromkeys("abc", integer))


@pytest.mark.parametrize("row", ["(1,,3)", "(1,2)", "(1,2,3,4)", "(1,2,x)", "(1 1,2,3)", "(1,2,9999999999999999999)"])
def test_a_damaged_row_is_left_out_and_reported_with_its_line(row: str) -> None:
    rows, report = three_integers(row)
    assert rows == [[7, 8, 9], [4, 5, 6]]
    assert report.dropped == {"malformed x rows": 1}
    [example] = report.dropped.examples["malformed x rows"]
    assert example.startswith(f"x.sql:4: {row}")


@settings(max_examples=100)
@given(st.binary(max_size=200), st.lists(st.integers(1, 60), min_size=1, max_size=3))
def test_any_bytes_between_rows_harm_neither_the_first_nor_the_reader(garbage: bytes, sizes: list[int]) -> None:
    create = b"CREATE TABLE x (`a` int, `t` text, `u` text);\n"
    content = create + b"INSERT INTO x VALUES (1,'first','a')," + garbage + b",(2,'last','b');\n"
    try:
        rows, _ = read(content, sizes)
    except ValueError as error:  # what looks like the end of the statement, or a string that never ends
        assert "x.sql" in str(error) or "no column" in str(error)
        return
    assert rows[0] == [1, "first", "a", None]


def test_what_never_becomes_a_row_is_dropped_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_LONGEST_ROW", 10_000)
    monkeypatch.setattr(sql, "_LONGEST_HEADER", 1000)
    create = b"CREATE TABLE x (`a` int, `t` text, `u` text);\n"
    damaged = b"(2,'" + b"x" * 50_000 + b"','y')"
    content = create + b"INSERT INTO x VALUES (1,'a','b')," + damaged + b",(3,'c','d');\n"
    rows, report = read(content, [5000])
    assert rows == [[1, "a", "b", None], [3, "c", "d", None]]
    assert report.dropped["malformed x rows"] > 1


def test_a_statement_of_many_megabytes_is_read_in_pieces() -> None:
    n = 200_000
    row = b"(%d,NULL,'some title that is %d long','x')"
    content = b"CREATE TABLE x (`a` int,\n`o` int,\n`t` text,\n`u` text);\nINSERT INTO x VALUES "
    content += b",".join(row % (number, number) for number in range(n)) + b";"
    report = ImportReport("test", [])
    largest = total = 0
    for block in SqlDump(Cut(Path("x"), content, [2**16]), "x", WANTED, report).row_blocks():
        largest = max(largest, len(block.content))
        for _, values in block.rows(report):
            assert values == [total, f"some title that is {total} long", "x", None]
            total += 1
    assert total == n
    assert largest < 2**17


def test_columns_named_in_the_insert_come_first() -> None:
    content = b"INSERT INTO `x` (`u`, `a`, t) VALUES ('u1', 5, 't1');\n"
    assert read(content, [100])[0] == [[5, "t1", "u1", None]]


def test_nulls_and_values_of_other_types() -> None:
    create = b"CREATE TABLE x (a int,\n`a` int,\n`t` text,\n`u` text);\n"
    content = create + b"INSERT INTO x VALUES (3,0x4AC3A4,NULL),(4,7,-1.5),(NULL,'a','b'),(-4.5,'a','b');"
    rows, report = read(content, [1000])
    assert rows == [[3, "Jä", None, None], [4, "7", "-1.5", None]]
    assert report.dropped == {"malformed x rows": 2}


def test_an_optional_integer_may_be_null() -> None:
    content = b"CREATE TABLE x (`a` int, `b` int DEFAULT NULL);\nINSERT INTO x VALUES (1,NULL),(2,3);\n"
    rows, report = read(content, [1000], {"a": integer, "b?": optional_integer, "c?": optional_integer})
    assert rows == [[1, None, None], [2, 3, None]]
    assert not report.dropped


def test_columns_that_stand_on_one_line() -> None:
    columns = (
        b"`a` enum('x,`n`','(') COMMENT 'a, `b) c', `t` text CHECK (f((`u`), `v`)), `u` text, KEY `k` (`a`(9),`b`)"
    )
    content = b"CREATE TABLE x (" + columns + b");\nINSERT INTO x VALUES (1,'t','u');\n"
    assert read(content, [1000])[0] == [[1, "t", "u", None]]
