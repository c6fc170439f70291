"""The page: what stands on it, that nothing gets out of its quotes, and that it needs nothing beside it."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from spacy_gemel.evaluation.examples import choose_examples
from spacy_gemel.evaluation.metrics import summarise
from spacy_gemel.evaluation.report import (
    difference,
    make_example,
    points,
    read_runs,
    write_report,
)
from spacy_gemel.evaluation.results import MentionResult, TailSplit, write_evaluation
from spacy_gemel.images.image import data_uri

EVIL = '<script>alert("x")</script> & <img src=x>'
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


def test_text_is_escaped_and_nothing_is_fetched(metrics: list[Path]) -> None:
    page, _ = page_of(metrics)
    assert "script" not in {tag for tag, _ in page.tags}
    assert EVIL in "".join(page.text)
    for tag, attributes in page.tags:
        assert not {"href", "onerror", "onload"} & set(attributes), tag
        assert (attributes.get("src") or "data:").startswith("data:image/webp;base64,") or "src" not in attributes


def test_a_dozen_examples_with_their_pictures(metrics: list[Path]) -> None:
    page, _ = page_of(metrics)
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 12
    assert pictures[0] is not None
    picture = Image.open(io.BytesIO(base64.b64decode(pictures[0].split(",")[1])))
    assert max(picture.size) <= 400
    assert sum("✓ right" in text for text in page.text) == 8
    assert sum("✗ wrong" in text for text in page.text) == 4


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


def test_why_an_example_is_linked_so(tmp_path: Path) -> None:
    """Each candidate's parts, the largest first, the demonstrations' similarity, NIL and the answer without image."""
    parts = {"score": -0.5, "prior": 1.25, "chain": 0.004, "<b>": -2.0}
    candidate = {"kb_id": "gold 1", "name": "Java", "score": -1.2, "probability": 0.6, "parts": parts}
    shown = {"text": "On Java.", "mention": "Java", "name": "Java (island)", "kb_id": "x", "similarity": 0.876}
    explanation = {"candidates": [candidate], "demonstrations": [shown], "nil": 0.25, "answer_without_image": "Q9"}
    explained = replace(mention(1, right=True, image=None), explanation=explanation)
    page, _ = page_of([run(tmp_path, "full", [explained, mention(2, right=True, image=None)])])
    text = " ".join(" ".join(page.text).split())
    assert "Java gold 1 0.60 NIL 0.25" in text
    assert "the largest part first Java <b> −2.00 prior +1.25 score −0.50" in text
    assert "without the image Q9" in text
    assert "Java → Java (island), similarity 0.88" in text
    assert text.count("without the image") == 1  # nothing is known of the other one


def test_a_long_text_is_cut_around_the_mention() -> None:
    long = replace(mention(1, right=True), text="a" * 1000 + "Java" + "b" * 1000, start=1000, end=1004)
    example = make_example(long, Path())
    assert example["before"].startswith("… a") and len(example["before"]) < 300
    assert example["after"].endswith("b …") and len(example["after"]) < 300


def test_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 no picture")
    whole = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:2000])
    assert [data_uri(tmp_path / name, 360) for name in ("bad.jpg", "cut.jpg", "gone.jpg")] == [None] * 3
    path = run(tmp_path, "full", [mention(1, right=True, image="bad.jpg")])
    assert "the picture cannot be read" in page_of([path])[1]


def test_without_mentions_beside_it_there_is_still_a_table(metrics: list[Path]) -> None:
    for path in metrics:
        path.with_suffix(".mentions.jsonl").unlink()
    page, html = page_of(metrics)
    assert "75.0" in html
    assert "article" not in {tag for tag, _ in page.tags}


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
