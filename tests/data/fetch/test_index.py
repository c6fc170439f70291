"""The index as others read it."""

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.data.fetch.urls import add_to_index, local_image, read_index

NAME = "0" * 31 + "1.png"


def line(url: object, file: object = NAME, size: object = 3) -> str:
    return json.dumps({"url": url, "file": file, "bytes": size}) + "\n"


def test_only_files_of_the_right_size_count(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"abc")
    outside = tmp_path.parent / "outside.png"
    outside.write_bytes(b"abc")
    (tmp_path / "index.jsonl").write_text(
        line("http://a/1")
        + line("http://a/short", size=4)
        + line("http://a/gone", file="f" * 32 + ".png")
        + line("http://a/outside", file="../outside.png")
        + line(7)
        + line("http://a/odd", file=["x"])
        + "[1, 2]\nnot json\n\xff\n\n"
        + line("http://a/2")
        + '{"url": "http://a/torn", "fi'
    )
    assert read_index(tmp_path) == {"http://a/1": tmp_path / NAME, "http://a/2": tmp_path / NAME}
    assert local_image(" http://a/2 ", tmp_path) == tmp_path / NAME
    assert local_image("http://a/torn", str(tmp_path)) is None


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    assert read_index(tmp_path / "none") == {}
    assert local_image("http://a", tmp_path) is None


def test_a_changed_index_is_read_again(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"abc")
    for n in range(3):
        add_to_index(tmp_path, f"http://a/{n}", NAME, 3)
        assert local_image(f"http://a/{n}", tmp_path) == tmp_path / NAME


@settings(max_examples=30)
@given(st.lists(st.text(), max_size=5), st.binary(max_size=30).filter(lambda tail: b"\n" not in tail))
def test_a_line_that_was_cut_off_harms_no_other(tmp_path_factory: object, urls: list[str], tail: bytes) -> None:
    folder = tmp_path_factory.mktemp("index")  # type: ignore[attr-defined]
    (folder / NAME).write_bytes(b"abc")
    for url in urls:
        add_to_index(folder, url, NAME, 3)
    with (folder / "index.jsonl").open("ab") as file:
        file.write(tail)
    add_to_index(folder, "last", NAME, 3)
    assert set(read_index(folder)) == {*urls, "last"}
