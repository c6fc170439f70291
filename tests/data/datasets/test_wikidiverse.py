"""WikiDiverse in both of its forms."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.data.datasets.conversion import URL, WIKI, ents, pictures, run, write


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
    assert any(f"{source}, item 3: row left out" in problem for problem in written["problems"])
    assert report.mentions["nil"] == 1


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


def test_a_mention_listed_twice_at_one_place_does_not_go_elsewhere(tmp_path: Path) -> None:
    given = [["Ada", "Person", 0, 3, gold] for gold in (f"{WIKI}A", f"{WIKI}A", f"{WIKI}B")]
    _, (doc,), written = run("wikidiverse", write(tmp_path / "x.json", [["Ada and Ada", None, "t", given]]))
    assert [(ent.start_char, ent.kb_id_) for ent in doc.ents] == [(0, "A")]
    assert written["mentions"]["read"] == 3
    assert written["alignment"]["same_mention_listed_again"] == 1
    assert written["mentions"]["dropped"] == {"another mention has its place": 1}
