"""The page: what stands on it, that nothing gets out of its quotes, and that it needs nothing beside it."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from spacy_gemel.evaluation.examples import choose_examples
from spacy_gemel.evaluation.metrics import summarise
from spacy_gemel.evaluation.report import (
    Run,
    accuracy_by_count,
    difference,
    make_cards,
    points,
    read_runs,
    reliability_figures,
    write_report,
)
from spacy_gemel.evaluation.results import MentionResult, TailSplit, write_evaluation

EVIL = '<!-- <script>alert("x")</script> & <img src=x onerror=alert(1)>'
TAIL = TailSplit(share=0.2, threshold=8, share_held=0.1, entities=2)


def mention(number: int, *, right: bool, image: str | None = "images/red.jpg") -> MentionResult:
    gold = f"gold {number}"
    predicted = gold if right else "other"
    return MentionResult(
        doc=f"d{number}",
        start=0,
        end=4,
        mention="Java",
        gold=gold,
        predicted=predicted,
        probability=0.75,
        seen=number % 2 == 0,
        tail=number % 5 == 0,
        count=number,
        image=image is not None,
        in_kb=True,
        candidates=[
            {"kb_id": predicted, "name": predicted, "score": -0.5, "probability": 0.75},
            {"kb_id": "Q1", "name": EVIL, "score": -1.0, "probability": 0.25},
        ],
        demonstrations=[{"text": EVIL, "mention": "<i>", "name": "</details>", "kb_id": "x"}],
        text=f"Java {EVIL}",
        image_path=image,
    )


def run(folder: Path, name: str, results: list[MentionResult], **settings: object) -> Path:
    known = {"use_image": True, "constrained": True, "n_demonstrations": 8, "language_model": EVIL}
    known["retriever"] = "spacy_gemel.BM25Retriever.v1"
    metrics = summarise(results, TAIL, settings={**known, **settings}, seconds=2.0, linked=len(results))
    write_evaluation(metrics, results, folder / f"{name}.json")
    return folder / f"{name}.json"


@pytest.fixture
def metrics(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "metrics"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (900, 600), "red").save(folder / "images" / "red.jpg")
    full = [mention(n, right=n % 4 != 0) for n in range(100)]
    fewer = [mention(n, right=n % 2 != 0) for n in range(100)]
    return [
        run(folder, "my own", full[:50]),
        run(folder, "no-image", fewer, use_image=False, n_demonstrations=0, constrained=False),
        run(folder, "full", full),
    ]


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(metrics: list[Path]) -> tuple[Page, str]:
    html = write_report(metrics, metrics[0].parent.parent / "report").read_text(encoding="utf-8")
    return Page(html), html


def test_the_table(metrics: list[Path]) -> None:
    html = page_of(metrics)[1]
    body = re.search(r"<tbody>(.*)</tbody>", html, re.DOTALL)
    assert body is not None
    rows = [" ".join(" ".join(Page(row).text).split()) for row in body[1].split("</tr>")[:-1]]
    assert rows[0].startswith("Full image, 8 demonstrations by BM25, trie 75.0")
    assert rows[0].endswith("86.3 / 82.6")
    assert rows[1].startswith("Without the image text only, no demonstrations, free search 50.0")
    assert "−25.0 −34.0 to −17.0" in rows[1]
    assert rows[1].endswith("79.5 / 74.2")
    # other mentions than full's: no difference can be had, and the paper has no such row
    assert rows[2].startswith("my own ") and rows[2].endswith("–")
    assert "is not a measurement of this project" in " ".join(html.split())


def cards_of(html: str) -> dict[str, Any]:
    """What the page's script reads."""
    scripts = re.findall(r'<script type="application/json" id="(\w+)">(.*?)</script>', html, re.DOTALL)
    return {name: json.loads(text) for name, text in scripts}


def test_text_is_inert_and_nothing_is_fetched(metrics: list[Path]) -> None:
    page, html = page_of(metrics)
    assert [tag for tag, _ in page.tags].count("script") == html.count("</script>") == html.count("<script") == 3
    assert "<!--" not in html
    assert EVIL in "".join(page.text)  # the language model, which stands in the page itself
    assert cards_of(html)["data"]["mentions"][0]["text"] == ["", "Java", f" {EVIL}"]
    for tag, attributes in page.tags:
        assert not {"href", "src", "onerror", "onload"} & set(attributes), tag
    assert "default-src 'none'; img-src data:" in html
    assert "innerHTML" not in html  # the script makes text nodes


def test_all_mentions_with_their_picture_once(metrics: list[Path]) -> None:
    cards = cards_of(page_of(metrics)[1])
    mentions, [uri] = cards["data"]["mentions"], cards["pictures"]
    assert len(mentions) == 100
    assert {m["picture"] for m in mentions} == {0}
    picture = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,"))))
    assert picture.size == (360, 240)
    assert [m["right"] for m in mentions[:5]] == [False, True, True, True, False]
    assert mentions[1]["candidates"][1] == [EVIL, "Q1", 0.25, None, None]
    assert cards["data"]["demonstrations"] == [[EVIL, "<i>", "</details>", None]]  # of all prompts, once


def test_many_pictures_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides = []
    monkeypatch.setattr("spacy_gemel.evaluation.report.data_uri", lambda source, side: sides.append(side))
    for n in (100, 5000, 100_000):
        run = Run("full", tmp_path / "full.json", {}, [mention(i, right=True, image=f"{i}.jpg") for i in range(n)])
        make_cards(run, None, {})
        assert len(sides) == n
        assert set(sides) == {{100: 360, 5000: 103, 100_000: 80}[n]}
        sides.clear()


def test_what_the_image_changed(metrics: list[Path]) -> None:
    """Told by the same mentions without the image, or by an explanation; other mentions tell nothing."""
    mentions = cards_of(page_of(metrics)[1])["data"]["mentions"]
    assert [m["blind"] for m in mentions[:4]] == ["other", "gold 1", "other", "gold 3"]
    alone = cards_of(page_of([metrics[2]])[1])["data"]["mentions"]
    assert not any("blind" in m for m in alone)


def test_golds_that_are_not_scored(tmp_path: Path) -> None:
    known = mention(1, right=True, image=None)
    cases = {
        True: replace(known, gold="NIL", predicted="NIL", in_kb=False),
        False: replace(known, gold="NIL", in_kb=False),
    }
    unscored = [replace(known, gold=""), replace(known, in_kb=False), replace(known, predicted=None)]
    cards = make_cards(Run("full", tmp_path / "full.json", {}, [*cases.values(), *unscored]), None, {})["mentions"]
    assert [card.get("right") for card in cards] == [True, False, None, None, None]


def test_the_pictures_of_demonstrations(tmp_path: Path) -> None:
    """Of training docs with the same text, mention and id, unless these have several pictures."""
    for name in ("a", "b"):
        Image.new("RGB", (9, 9), "red").save(tmp_path / f"{name}.png")
    vocab, docs = Vocab(), DocBin(store_user_data=True)
    for text, image in (("one Java", "a"), ("two Java", "a"), ("two Java", "b"), ("three Java", None)):
        doc = Doc(vocab, words=text.split(), spaces=[True, False])
        doc.ents = [Span(doc, 1, 2, label="ENT", kb_id="x")]
        doc.user_data |= {"image": str(tmp_path / f"{image}.png")} if image else {}
        docs.add(doc)
    docs.to_disk(tmp_path / "train.spacy")
    rows = [{"text": f"{n} Java", "mention": "Java", "name": "X", "kb_id": "x"} for n in ("one", "two", "three")]
    result = replace(mention(1, right=True, image=None), demonstrations=rows)
    page = write_report([run(tmp_path, "full", [result])], tmp_path / "report", tmp_path / "train.spacy")
    cards = cards_of(page.read_text(encoding="utf-8"))
    assert [row[3] for row in cards["data"]["demonstrations"]] == [0, None, None]
    assert len(cards["pictures"]) == 1


def test_the_plots(metrics: list[Path]) -> None:
    page, _ = page_of(metrics)
    labels = [attributes["aria-label"] or "" for tag, attributes in page.tags if tag == "svg"]
    assert labels[0] == "Accuracy by setting, in percent: Full 75.0, Without the image 50.0, my own 74.0"
    assert labels[1].startswith("Common against tail, in percent: Full 75.0 and 75.0, ")
    assert labels[2].startswith("Accuracy by the count of the gold entity, in percent: 0 ")
    assert labels[3].startswith("Reliability")


def test_accuracy_by_count() -> None:
    results = [replace(mention(n, right=n < 3), count=count) for n, count in enumerate((0, 3, 4, 4, 20_000, None))]
    assert [(title, part["n"], part["accuracy"]) for title, part in accuracy_by_count(results)] == [
        ("0", 1, 1.0),
        ("2 to 4", 3, pytest.approx(2 / 3)),
        ("10000 or more", 1, 0.0),
    ]
    assert accuracy_by_count([replace(mention(1, right=True), count=None)]) == []


def test_the_reliability_is_of_the_best_candidate() -> None:
    results = [mention(n, right=n % 2 == 0) for n in range(4)]
    figures = reliability_figures([*results, replace(results[0], gold=""), replace(results[0], candidates=[])])
    assert figures is not None
    assert [row["n"] for row in figures["reliability"]] == [0, 0, 0, 0, 0, 0, 0, 4, 0, 0]
    assert figures["ece"] == pytest.approx(0.25)
    assert reliability_figures([]) is None


def test_examples_are_chosen_by_rule() -> None:
    chosen = choose_examples([mention(n, right=n % 4 != 0) for n in range(100)])
    assert [m.doc for m in chosen if not m.correct] == ["d0", "d24", "d48", "d72"]
    assert len({m.gold for m in chosen}) == 12
    assert sum(m.correct for m in choose_examples([mention(n, right=n != 5) for n in range(40)])) == 11
    assert len(choose_examples([mention(n, right=False) for n in range(40)])) == 12
    assert len(choose_examples([mention(n, right=True, image=None) for n in range(3)])) == 3
    same = [replace(mention(1, right=True), doc=str(n)) for n in range(9)]
    assert len(choose_examples(same)) == 9
    assert choose_examples([]) == []


def test_why_a_mention_is_linked_so(tmp_path: Path) -> None:
    """The explanation takes the place of the plain candidates and demonstrations."""
    known = {"features": {"score": -0.51239, "prior": 2.0}, "parts": {"prior": 1.25}}
    candidate = {"kb_id": "gold 1", "name": "Java", "score": -1.2, "probability": 0.6, **known}
    demonstration = {"text": "On Java.", "mention": "Java", "name": "Java (island)", "kb_id": "x", "similarity": 0.8764}
    explanation = {"candidates": [candidate], "demonstrations": [demonstration], "nil": 0.25}
    explained = replace(mention(1, right=True, image=None), explanation={**explanation, "answer_without_image": "Q9"})
    path = run(tmp_path, "full", [explained, mention(2, right=True, image=None)])
    first, second = cards_of(page_of([path])[1])["data"]["mentions"]
    assert first["candidates"] == [["Java", "gold 1", 0.6, {"score": -0.512, "prior": 2.0}, {"prior": 1.25}]]
    assert (first["nil"], first["blind"]) == (0.25, "Q9")
    assert first["demonstrations"] == [[0, 0.876]]
    assert "blind" not in second  # nothing is known of it


def test_a_long_text_is_cut_around_the_mention(tmp_path: Path) -> None:
    long = replace(mention(1, right=True, image=None), text="a" * 1000 + "Java" + "b" * 1000, start=1000, end=1004)
    [card] = make_cards(Run("full", tmp_path / "full.json", {}, [long]), None, {})["mentions"]
    before, words, after = card["text"]
    assert before.startswith("… a") and after.endswith("b …") and words == "Java"
    assert max(len(before), len(after)) < 300


def test_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no picture")
    whole = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:2000])
    results = [mention(n, right=True, image=name) for n, name in enumerate(("bad.jpg", "cut.jpg", "gone.jpg"))]
    cards = cards_of(page_of([run(tmp_path, "full", results)])[1])
    assert cards["pictures"] == [None] * 3
    assert [m["picture"] for m in cards["data"]["mentions"]] == [0, 1, 2]


def test_without_mentions_beside_it_there_is_still_a_table(metrics: list[Path]) -> None:
    for path in metrics:
        path.with_suffix(".mentions.jsonl").unlink()
    page, html = page_of(metrics)
    assert "75.0" in html
    assert not {"script", "form"} & {tag for tag, _ in page.tags}


def test_differences_are_only_had_on_the_same_mentions(metrics: list[Path]) -> None:
    full, no_image, own = read_runs(metrics)
    gap = difference(no_image, full)
    assert gap is not None and gap[0] == pytest.approx(-0.25)
    assert difference(own, full) is None
    assert difference(full, full) is None


@pytest.mark.parametrize("content", ["not JSON", "[1]", "3", json.dumps({"accuracy": 1})])
def test_a_file_that_evaluate_did_not_write(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match="not a file that evaluate writes"):
        write_report([tmp_path / "x.json"], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_nothing_given() -> None:
    with pytest.raises(ValueError, match=r"no METRICS\.json given"):
        read_runs([])


@pytest.mark.parametrize(("value", "shown"), [(-0.068, "−6.8"), (0.1, "+10.0"), (0.0, "0.0"), (-0.0001, "0.0")])
def test_points(value: float, shown: str) -> None:
    assert points(value) == shown
