"""MIMIC's and MELBench's forms."""

from pathlib import Path

from tests.data.datasets.conversion import URL, ents, pictures, run, write


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
        "tolerant": {"function words": 1},
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


def test_a_mention_inside_another_word_is_counted_and_listed(tmp_path: Path) -> None:
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
    (mention,) = written["found_inside_a_longer_word"]
    assert mention.endswith("item 4: An [Iceland]ic poet")
    assert "1 x found only inside a longer word" in report.summary()
