"""URLs out of the files that people hold."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_gemel.data.fetch.urls import problem_of, read_urls

A, B, C = "https://a.org/1.jpg", "http://b.org/2.png", "https://c.org/ü.jpg"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf8")
    return path


def test_text(tmp_path: Path) -> None:
    source = write(tmp_path / "u.txt", f"\ufeff{A}\n\n# no\n {B} \n{A}\nfile:///etc/passwd\nnonsense\n")
    urls, failures = read_urls(source)
    assert urls == [A, B]
    assert [(item.where, item.reason) for item in failures] == [
        (f"{source}:6", "not an http or https URL"),
        (f"{source}:7", "not an http or https URL"),
    ]


ROWS = [{"image": A}, {"image": None}, {"image": [B, C]}, {"text": "x"}, {"image": 7}, "row"]


@pytest.mark.parametrize("form", ["jsonl", "json", "json of lines", "object"])
def test_json_forms(form: str, tmp_path: Path) -> None:
    if form == "jsonl":
        source = write(tmp_path / "u.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n{broken\n")
    elif form == "json of lines":
        source = write(tmp_path / "u.json", "\n".join(map(json.dumps, ROWS)))
    else:
        rows = ROWS if form == "json" else {str(index): row for index, row in enumerate(ROWS)}
        source = write(tmp_path / "u.json", json.dumps(rows, indent=1))
    urls, failures = read_urls(source)
    assert urls == [A, B, C]
    assert [item.reason for item in failures] == ["no URL in the row"] * (5 if form == "jsonl" else 4)
    assert all(str(source) in item.where for item in failures)


def test_another_field_and_rows_that_are_lists(tmp_path: Path) -> None:
    named = write(tmp_path / "a.json", json.dumps([{"img-url": A}, {"img-url": ""}]))
    assert read_urls(named, "img-url")[0] == [A]
    lists = write(tmp_path / "b.json", json.dumps([["text", A, "topic", []], ["text"], ["text", B]]))
    urls, failures = read_urls(lists, "1")
    assert (urls, len(failures)) == ([A, B], 1)


def test_no_url_at_all_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no URL to fetch; the first problem: .*'image' is missing.*--field"):
        read_urls(write(tmp_path / "a.jsonl", json.dumps({"img-url": A})))
    for content in ("null", "7", '"text"'):
        with pytest.raises(ValueError, match=r"no URL to fetch; the first problem: .*row 0: no URL in the row"):
            read_urls(write(tmp_path / "a.json", content))
    with pytest.raises(ValueError, match="no such file"):
        read_urls(tmp_path / "none.txt")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/x",
        "file:///x",
        "//a/x",
        "http:///x",
        "http://a:b/x",
        "http://me:pw@a/x",
        "http://[::1/x",
        "http://a/\x00x",
        "http://a/\nx",
        "http://a/\udc80",
    ],
)
def test_urls_that_are_not_asked_for(url: str) -> None:
    assert problem_of(url)


@given(st.text())
def test_any_string_is_judged_without_an_error(text: str) -> None:
    for url in (text, "http://" + text):
        problem = problem_of(url)
        assert problem is None or problem
