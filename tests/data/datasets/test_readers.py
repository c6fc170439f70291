"""Each known data set in small, good rows and bad ones, through `convert`."""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin
from typer.testing import CliRunner

from spacy_gemel.__main__ import app
from spacy_gemel.data.datasets.convert_report import ConvertReport
from spacy_gemel.data.datasets.converters import CONVERTERS, convert, report_path

URL = "https://upload.wikimedia.org/wikipedia/commons/0/06/Ada_%28Lovelace%29.svg"
WIKI = "https://en.wikipedia.org/wiki/"


def write(path: Path, content: Any, *, lines: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(row) for row in content) if lines else json.dumps(content, indent=1)
    path.write_text(text, encoding="utf-8")
    return path


def run(dataset: str, source: Path, **options: Path) -> tuple[ConvertReport, list[Doc], dict[str, Any]]:
    out = source.parent / "out" / "x.spacy"
    report = convert(dataset, source, out, progress=False, **options)
    docs = list(DocBin().from_disk(out).get_docs(spacy.blank("en").vocab))
    return report, docs, json.loads(report_path(out).read_text(encoding="utf-8"))


def ents(doc: Doc) -> list[tuple[str, str, str]]:
    return [(ent.text, ent.label_, ent.kb_id_) for ent in doc.ents]


def pictures(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"picture")
    return folder


# WikiDiverse as released


def test_wikidiverse_by_sentence(tmp_path: Path) -> None:
    digest = hashlib.md5(b"Ada_%28Lovelace%29.svg").hexdigest()
    images = pictures(tmp_path / "img", f"{digest}.png")
    rows = [
        [
            "Ada and Ada in London.",
            URL,
            "technology",
            [
                ["Ada", "Person", 8, 11, "nil"],
                ["Ada", "Person", 0, 3, f"n{WIKI}Ada_Lovelace#Life"],
                ["London", "Location", 99, 105, f"]{WIKI}London"],
                ["Paris", "Location", 0, 5, f"{WIKI}Paris"],
                ["too", "short"],
                [3, "Person", 0, 3, ""],
            ],
        ],
        ["No image", None, "none", []],
        ["a sentence", URL],
        {"sentence": "an object"},
        ["", URL, "none", []],
    ]
    source = write(tmp_path / "train.json", rows)
    report, (doc, bare), written = run("wikidiverse", source, images=images)
    assert ents(doc) == [("Ada", "Person", "Ada Lovelace"), ("Ada", "Person", "NIL"), ("London", "Location", "London")]
    assert doc.user_data == {"image": f"../img/{digest}.png", "image_url": URL}
    assert bare.user_data == {} and not bare.ents
    assert written["rows"] == {
        "read": 5,
        "kept": 2,
        "dropped": {"neither of the two known forms": 1, "not a list": 1, "the sentence is empty": 1},
    }
    assert written["mentions"]["dropped"] == {
        "not [mention, type, start, end, entity]": 1,
        "not found: none of its words is in the text": 1,
        "the mention is not a string": 1,
    }
    # London's offsets are wrong, so its text was asked
    assert written["alignment"]["by_given_offsets"] == 2
    assert written["alignment"]["verbatim"] == 1
    assert written["alignment"]["not_found"] == {"none of its words is in the text": 1}
    assert written["images"] == {"named": 1, "missing": 0}
    # the line of the row, as an editor counts it
    line = source.read_text().splitlines().index('  "a sentence",')
    assert any(f"{source}:{line}, item 3: row left out" in problem for problem in written["problems"])
    assert report.mentions_nil == 1


def test_wikidiverse_by_mention_is_joined_by_sentence_and_image(tmp_path: Path) -> None:
    def row(text: str, url: str, surface: str, gold: str | None, start: int) -> list[Any]:
        end = start + len(surface)
        return [text, url, surface, "Person", ["left"], ["right"], gold, [f"{WIKI}X"] * 10, "topic", start, end]

    rows = [
        row("Ada and Ada", URL, "Ada", f"{WIKI}Ada_Lovelace", 8),
        row("Another", URL, "Another", None, 0),
        row("Ada and Ada", URL, "Ada", f"{WIKI}Ada%2C_Oklahoma", 0),
        row("Ada and Ada", URL + ".jpg", "Ada", "", 0),
    ]
    _, docs, written = run("wikidiverse", write(tmp_path / "train.json", rows))
    assert [(doc.text, [e[2] for e in ents(doc)]) for doc in docs] == [
        ("Ada and Ada", ["Ada, Oklahoma", "Ada Lovelace"]),
        ("Another", ["NIL"]),
        ("Ada and Ada", ["NIL"]),
    ]
    assert written["rows"] == {"read": 4, "kept": 4, "dropped": {}}
    assert written["docs"]["written"] == 3


@pytest.mark.parametrize(
    ("last", "there", "named"),
    [
        ("a.JPG", "{md5}.JPG", "{md5}.JPG"),
        ("a.JPG", "{md5}.jpg", "{md5}.jpg"),
        ("a.SVG", "{md5}.png", "{md5}.png"),
        ("a.gif", "{md5}a.gif", "{md5}a.gif"),
        ("a.gif", "other.gif", "{md5}.gif"),
        ("noextension", "{md5}", "{md5}"),
    ],
)
def test_wikidiverse_image_names(tmp_path: Path, last: str, there: str, named: str) -> None:
    digest = hashlib.md5(last.encode()).hexdigest()
    images = pictures(tmp_path / "img", there.format(md5=digest))
    source = write(tmp_path / "x.json", [["Ada", f"https://host/{last}", "t", []]])
    _, (doc,), written = run("wikidiverse", source, images=images)
    assert doc.user_data["image"] == f"../img/{named.format(md5=digest)}"
    assert written["images"]["missing"] == (there == "other.gif")


# MIMIC and KGMEL


def test_mimic(tmp_path: Path) -> None:
    images = pictures(tmp_path / "img", "mention_0.jpg")
    rows = [
        {"id": 0, "sentence": "Ada in London", "imgPath": "mention_0.svg", "mention": ["London", "Ada"],
         "entity": ["London", "Ada"], "answer": ["Q84", "nil"], "img-url": URL},
        {"id": 1, "sentence": "Ada", "imgPath": "", "mentions": "Ada", "entities": "Ada", "answer": "Q7259"},
        {"id": 2, "sentence": "Ada", "imgPath": "mention_2.jpg", "mention": ["Ada"], "answer": ["Q1", "Q2"]},
        {"id": 3, "sentence": "Ada", "mention": ["Ada", 5], "answer": ["", "Q1"]},
        {"id": 4, "sentence": "Ada", "answer": []},
        {"id": 5, "mention": [], "answer": []},
        ["Ada"],
        {"id": 6, "sentence": "Ada", "mention": []},
    ]  # fmt: skip
    _, docs, written = run("mimic", write(tmp_path / "val.json", rows), images=images)
    assert [ents(doc) for doc in docs] == [
        [("Ada", "ENTITY", "NIL"), ("London", "ENTITY", "Q84")],
        [("Ada", "ENTITY", "Q7259")],
        [("Ada", "ENTITY", "NIL")],
    ]
    assert docs[0].user_data == {"id": "0", "image": "../img/mention_0.jpg", "image_url": URL}
    assert docs[1].user_data == {"id": "1"}
    assert written["rows"] == {
        "read": 8,
        "kept": 3,
        "dropped": {
            "mentions and answers differ in number": 1,
            "no answer": 1,
            "no mentions": 1,
            "no sentence": 1,
            "not an object": 1,
        },
    }


# MELBench


def test_wikimel(tmp_path: Path) -> None:
    images = pictures(tmp_path / "img", "17.jpg", "18.png")
    rows = {
        "17": {"id": "17", "sentence": "Louis of Nassau with Ada", "mentions": ["Ada", "Louis Nassau"],
               "entities": [], "answer": ["Q7259", "Q2"]},
        "18": {"sentence": "Otto and Lena Quist", "mentions": ["Quist", "Lena Quist", "Lena Quist"],
               "answer": ["Q21", "Q22", "Q22"]},
        "19": {"id": "19", "sentence": "Ada", "mentions": ["Ada", "Ada"], "answer": ["Q1", ""]},
        "20": "no object",
    }  # fmt: skip
    _, docs, written = run("wikimel", write(tmp_path / "wikimel.json", rows), images=images)
    assert [ents(doc) for doc in docs] == [
        [("Louis of Nassau", "ENTITY", "Q2"), ("Ada", "ENTITY", "Q7259")],
        [("Lena Quist", "ENTITY", "Q22")],
        # entities of one doc cannot overlap: the same text again, with the mention that is left
        [("Quist", "ENTITY", "Q21")],
        [("Ada", "ENTITY", "Q1")],
    ]
    assert [doc.user_data["image"] for doc in docs] == ["../img/17.jpg", *["../img/18.png"] * 2, "../img/19.jpg"]
    assert written["rows"]["read"] == 4 and written["rows"]["kept"] == 3
    assert written["docs"] == {"written": 4, "for_overlapping_mentions": 1}
    assert written["alignment"] == {
        "by_given_offsets": 0,
        "verbatim": 4,
        "part_of_a_longer_word": 0,
        "tolerant": {"small words": 1},
        "not_found": {"listed more often than it occurs": 1},
        "same_mention_listed_again": 1,
    }
    assert written["mentions"]["read"] == 7


def test_richpediamel(tmp_path: Path) -> None:
    rows = {
        "Q42": {"id": "Q42", "sentence": "Adams wrote.", "mentions": "Adams", "entities": "x", "answer": "Q42"},
        "Q43": {"id": "Q43", "sentence": "Adams wrote.", "mentions": "Adams", "entities": "x", "answer": None},
    }
    _, docs, written = run("richpediamel", write(tmp_path / "r.json", rows))
    assert [ents(doc) for doc in docs] == [[("Adams", "ENTITY", "Q42")], [("Adams", "ENTITY", "")]]
    assert written["mentions"]["unannotated"] == 1


def test_two_mentions_in_one_token_are_both_kept(tmp_path: Path) -> None:
    rows = {"1": {"sentence": "from Riga/Tallinn on", "mentions": ["Riga", "Tallinn"], "answer": ["Q1", "Q2"]}}
    _, (doc,), written = run("wikimel", write(tmp_path / "x.json", rows))
    assert doc.text == "from Riga/Tallinn on"
    assert ents(doc) == [("Riga", "ENTITY", "Q1"), ("Tallinn", "ENTITY", "Q2")]
    assert written["mentions"]["kept"] == 2


# GEMEL


class FakeH5(dict[str, Any]):
    """What h5py gives, as far as it is used: a mapping from names to things that give an array for [()]."""

    def __enter__(self) -> "FakeH5":
        return self

    def __exit__(self, *_: object) -> None:
        pass


GEMEL = [
    {"text": "Ada in London", "mention": "London", "golden": "London", "target": "London", "img_url": "a/b.jpg"},
    {"text": "Ada in London", "mention": "Ada", "golden": "NIL", "target": "Ada", "img_url": "a/b.jpg"},
    {"text": "Ada in London", "mention": "Ada", "target": "Ada Lovelace", "img_name": "7.jpg"},
    {"text": "Ada", "mention": "Ada", "golden": f"{WIKI}Ada_Lovelace", "img_name": "gone.jpg"},
    {"text": "Ada", "mention": "Ada"},
    {"text": "Ada", "golden": "Ada"},
    {"text": 1, "mention": "Ada", "golden": "Ada"},
    [],
]


def check_gemel(tmp_path: Path, features: Path) -> None:
    _, docs, written = run("gemel", write(tmp_path / "train.json", GEMEL, lines=True), features=features)
    assert [ents(doc) for doc in docs] == [
        [("Ada", "ENTITY", "NIL"), ("London", "ENTITY", "London")],
        [("Ada", "ENTITY", "Ada Lovelace")],
        [("Ada", "ENTITY", "Ada Lovelace")],
    ]
    vectors = [doc.user_data.get("image_features") for doc in docs]
    assert vectors[0].dtype == vectors[1].dtype == np.float32
    assert vectors[0].tolist() == [1.0, 2.0] and vectors[1].tolist() == [3.0, 4.0]
    assert vectors[2] is None
    assert docs[0].user_data["image_url"] == "a/b.jpg"
    assert written["features"] == {"found": 2, "missing": {"no features of this image": 1}}
    assert written["rows"]["read"] == 8
    assert written["rows"]["dropped"] == {"no entity": 1, "no mention": 1, "no text": 1, "not an object": 1}
    assert f"{tmp_path / 'train.json'}:5: row left out: no entity" in "\n".join(written["problems"])


def test_gemel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = FakeH5({"a/b.jpg": {(): np.array([1, 2], dtype=np.float16)}, "7.jpg": {(): np.array([[3.0, 4.0]])}})
    monkeypatch.setitem(sys.modules, "h5py", SimpleNamespace(File=lambda path, mode: file))
    (tmp_path / "f.h5").touch()
    check_gemel(tmp_path, tmp_path / "f.h5")


def test_gemel_with_a_real_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a/b.jpg"] = np.array([1, 2], dtype=np.float16)
        file["7.jpg"] = np.array([[3.0, 4.0]])
    check_gemel(tmp_path, tmp_path / "f.h5")
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match=r"bad\.h5: no HDF5 file"):
        convert("gemel", tmp_path / "train.json", tmp_path / "o.spacy", features=tmp_path / "bad.h5", progress=False)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array(["x"], dtype=object), "the features are no numbers"),
        (np.array([1.0, np.nan]), "the features are not finite"),
        (np.ones((2, 3)), "the features are no vector"),
        (np.ones(0), "the features are no vector"),
    ],
)
def test_gemel_bad_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: np.ndarray, reason: str) -> None:
    monkeypatch.setitem(sys.modules, "h5py", SimpleNamespace(File=lambda *_: FakeH5({"7.jpg": {(): array}})))
    (tmp_path / "f.h5").touch()
    _, (doc,), written = run("gemel", write(tmp_path / "x.json", GEMEL[2:3], lines=True), features=tmp_path / "f.h5")
    assert "image_features" not in doc.user_data
    assert written["features"]["missing"] == {reason: 1}


def test_gemel_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"needs h5py: pip install spacy-gemel\[hdf5\]"):
        run("gemel", write(tmp_path / "x.json", GEMEL[:1], lines=True), features=tmp_path / "f.h5")
    # without features no such package is needed
    assert len(run("gemel", tmp_path / "x.json")[1]) == 1


def test_gemel_image_files(tmp_path: Path) -> None:
    images = pictures(tmp_path / "img", "7.jpg", hashlib.md5(b"b.jpg").hexdigest() + ".jpg")
    _, docs, written = run("gemel", write(tmp_path / "x.json", GEMEL[:3], lines=True), images=images)
    assert written["images"] == {"named": 2, "missing": 0}
    assert docs[1].user_data["image"] == "../img/7.jpg"


# What they share


@pytest.mark.parametrize(
    ("dataset", "options", "says"),
    [
        ("jsonl", {"features": "f.h5"}, "jsonl has no use for --features: it is for gemel"),
        ("jsonl", {"images": "nowhere"}, "no such folder of images"),
        ("mimic", {"features": "f.h5"}, "mimic has no use for --features: it is for gemel"),
        ("mimic", {"images": "nowhere"}, "no such folder of images"),
        ("gemel", {"images": "nowhere"}, "no such folder of images"),
        ("wikidiverse", {"images": "nowhere"}, "no such folder of images"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, dataset: str, options: dict[str, str], says: str) -> None:
    source = write(tmp_path / "x.json", [])
    paths = {name: tmp_path / value for name, value in options.items()}
    with pytest.raises(ValueError, match=says):
        convert(dataset, source, tmp_path / "o.spacy", progress=False, **paths)


def test_a_folder_says_which_files_to_give(tmp_path: Path) -> None:
    for name in ("train.json", "val.json", "notes.txt"):
        write(tmp_path / "set" / name, [])
    with pytest.raises(ValueError, match=r"a folder; give one of its files.*: there are train\.json, val\.json$"):
        convert("mimic", tmp_path / "set", tmp_path / "o.spacy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no \.json or \.jsonl file in it"):
        convert("mimic", tmp_path / "empty", tmp_path / "o.spacy")


@pytest.mark.parametrize("dataset", ["mimic", "wikimel", "richpediamel"])
@pytest.mark.parametrize("keyed", [False, True], ids=["array", "object"])
def test_a_damaged_row_is_named_and_those_behind_it_are_read(tmp_path: Path, dataset: str, keyed: bool) -> None:
    rows = [
        json.dumps({"id": number, "sentence": f"Ada {number}", "mentions": ["Ada"], "answer": ["Q1"]}).encode()
        for number in range(7)
    ]
    rows[1] = rows[1].replace(b", ", b" ", 1)
    rows[2] = rows[2].replace(b"Ada", b"\xc4da", 1)
    rows[4] = rows[4][:-1]
    if keyed:
        rows = [b'"%d": ' % number + row for number, row in enumerate(rows)]
    source = tmp_path / "x.json"
    source.write_bytes(b"{" * keyed + b"[" * (not keyed) + b",\n".join(rows))  # and the last bracket is missing
    _, docs, written = run(dataset, source)
    assert [doc.user_data["id"] for doc in docs] == ["0", "3", "5", "6"]
    assert written["rows"] == {"read": 7, "kept": 4, "dropped": {"not JSON": 2, "not UTF-8": 1}}
    assert written["file_damage"] == {"not JSON": 1}
    assert written["stopped"] is None
    for number, problem in zip((2, 3, 5, 7), written["problems"], strict=True):
        assert problem.startswith(f"{source}:{number}, item {number}: ")


@pytest.mark.parametrize(
    "row",
    [
        '["Ada 1", "http://x/1.jpg", "t", [["Ada", "Person", 0, 3, "nil"], ["1", "Number", 4, 5, "nil"]]]',
        '["Ada 1", null, "Ada", "Person", ["a"], ["b", "c"], "nil", ["u", "v"], "t", 0, 3]',
    ],
    ids=["by sentence", "by mention"],
)
def test_a_damaged_row_of_wikidiverse(tmp_path: Path, row: str) -> None:
    no_head = row.replace("null", "nul").replace("http", 'ht"tp')
    rows = [row, row[:-1], row[:-2], row, no_head, row, row.replace("]", ""), no_head, row, row[1:], row]
    source = tmp_path / "x.json"
    source.write_text("[" + ",\n".join(rows) + "]")
    _, docs, written = run("wikidiverse", source)
    assert written["rows"]["kept"] == 5
    assert [doc.text for doc in docs] == ["Ada 1"] * (5 if "http" in row else 1)
    named = " ".join(written["problems"])
    assert all(f"x.json:{line}, item" in named for line in (2, 3, 5, 7, 10))
    # what is damaged at its beginning, behind a row without an end, may go with that one
    assert "line 8; the next row is read from line 9" in named


def test_a_place_inside_another_word_is_counted_apart_and_listed(tmp_path: Path) -> None:
    rows = {
        "1": {"sentence": "Ann met Anna", "mentions": ["Ann", "Ann"], "answer": ["Q1", "Q2"]},
        "2": {"sentence": "Ann met Anna", "mentions": ["Ann", "Ann"], "answer": ["Q1", "Q1"]},
        "3": {"sentence": "Canada met ADA", "mentions": ["Ada"], "answer": ["Q3"]},
        "4": {"sentence": "An Icelandic poet", "mentions": ["Iceland"], "answer": ["Q4"]},
    }
    report, docs, written = run("wikimel", write(tmp_path / "x.json", rows))
    assert [ents(doc) for doc in docs] == [
        [("Ann", "ENTITY", "Q1")],
        [("Ann", "ENTITY", "Q1")],
        [("ADA", "ENTITY", "Q3")],
        [("Icelandic", "ENTITY", "Q4")],
    ]
    assert written["alignment"] == {
        "by_given_offsets": 0,
        "verbatim": 2,
        "part_of_a_longer_word": 1,
        "tolerant": {"case, marks or punctuation": 1},
        "not_found": {"listed more often than it occurs": 1},
        "same_mention_listed_again": 1,
    }
    (doubtful,) = written["found_inside_a_longer_word"]
    assert doubtful.endswith("item 4: An [Iceland]ic poet")
    assert "1 x found only inside a longer word" in report.summary()


def test_a_mention_listed_twice_at_one_place_does_not_go_elsewhere(tmp_path: Path) -> None:
    given = [["Ada", "Person", 0, 3, gold] for gold in (f"{WIKI}A", f"{WIKI}A", f"{WIKI}B")]
    _, (doc,), written = run("wikidiverse", write(tmp_path / "x.json", [["Ada and Ada", None, "t", given]]))
    assert [(ent.start_char, ent.kb_id_) for ent in doc.ents] == [(0, "A")]
    assert written["mentions"]["read"] == 3
    assert written["alignment"]["same_mention_listed_again"] == 1
    assert written["mentions"]["dropped"] == {"another mention has its place": 1}


def test_the_command(tmp_path: Path) -> None:
    images = pictures(tmp_path / "img", "1.jpg")
    source = write(
        tmp_path / "x.json", {"1": {"sentence": "Tom de Vaart", "mentions": ["Tom Vaart"], "answer": ["Q1"]}}
    )
    out = tmp_path / "o.spacy"
    result = CliRunner().invoke(app, ["convert", "wikimel", str(source), str(out), "--images", str(images), "-q"])
    assert result.exit_code == 0, result.output
    assert "places: 0 mentions verbatim, 1 tolerantly, 0 not found" in result.stdout
    assert "1 x found by: small words" in result.stdout
    result = CliRunner().invoke(app, ["convert", "wikimel", str(tmp_path), str(out)])
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and "a folder" in result.stderr


ATOMS = (
    st.none() | st.booleans() | st.integers(-2, 9) | st.text(max_size=6) | st.sampled_from(["Ada", "nil", WIKI + "A"])
)
FIELDS = [
    "id",
    "sentence",
    "mention",
    "mentions",
    "answer",
    "imgPath",
    "img-url",
    "text",
    "golden",
    "target",
    "img_url",
]
ROWS = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=11) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=8),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(ROWS, max_size=4), st.sampled_from(sorted(set(CONVERTERS) - {"jsonl"})))
def test_no_row_raises_and_none_disappears(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], dataset: str
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    source = write(folder / "x.json", rows, lines=dataset == "gemel")
    good = {"text": "Ada", "sentence": "Ada", "mention": "Ada", "golden": "Q1", "answer": "Q1"}
    usable = ["Ada", None, "t", []] if dataset == "wikidiverse" else good
    write(source, [*rows, usable], lines=dataset == "gemel")
    report, docs, written = run(dataset, source)
    assert written["rows"]["read"] == len(rows) + 1
    assert written["rows"]["kept"] + sum(written["rows"]["dropped"].values()) == len(rows) + 1
    assert sum(len(doc.ents) for doc in docs) == written["mentions"]["kept"] == report.mentions_kept


def test_images_that_were_fetched_are_found_by_their_url(tmp_path: Path) -> None:
    """By the field of a data set, and where one's own rows have a URL for a path; those that failed are told of."""
    import json

    from spacy.tokens import DocBin

    from spacy_gemel.data.datasets.converters import convert
    from spacy_gemel.data.fetch.index import add_to_index

    name = "0123456789abcdef0123456789abcdef.png"
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / name).write_bytes(b"12345")
    add_to_index(tmp_path / "pictures", "https://example.org/a.png", name, 5)
    rows = [{"text": "Java", "image": f"https://example.org/{letter}.png"} for letter in "ab"]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sentence = {"id": 1, "sentence": "Java", "imgPath": "x.jpg", "mention": ["Java"], "entity": ["Java"]}
    row = {**sentence, "answer": ["Q1"], "img-url": "https://example.org/a.png"}
    (tmp_path / "mimic.json").write_text(json.dumps([row]))
    for dataset, source in (("jsonl", "own.jsonl"), ("mimic", "mimic.json")):
        out = tmp_path / "out" / f"{dataset}.spacy"
        report = convert(dataset, tmp_path / source, out, images=tmp_path / "pictures", progress=False)
        first = next(iter(DocBin().from_disk(out).get_docs(spacy.blank("en").vocab)))
        assert first.user_data["image"] == f"../pictures/{name}"
        assert report.images_missing == 0
        assert report.image_urls_alone == (dataset == "jsonl")
