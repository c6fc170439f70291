"""The report of many mentions in Chromium: its size, how long it takes to open, and to filter.

python -m benchmarks.report [--mentions 5000]

Made-up mentions, each with a picture, five candidates and eight demonstrations, whose 2,000 pictures are shown too.
Needs Chromium and playwright (extra `[dev]`). `open_seconds` is from the start of the navigation to the first cards on
the screen, `filter_seconds` from a change of a filter or of the search to the first cards drawn anew.
Only a run with the default number writes to benchmarks/results.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from benchmarks.timing import spread
from research.commands import report
from research.machine import describe_machine
from research.mini_world import ROOT
from spacy_gemel.evaluation.metrics import summarise
from spacy_gemel.evaluation.report import write_report
from spacy_gemel.evaluation.results import MentionResult, TailSplit, write_evaluation
from spacy_gemel.utils.files import write_json

MENTIONS, DEMONSTRATIONS, OPENED = 5000, 2000, 5
LARGEST_MB, LONGEST_SECONDS = 30.0, 1.0
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
WORDS = ["the", "reporter", "showed", "a", "picture", "of", "some", "old", "friends", "near", "market", "in", "winter"]

# From an action to the frame after the next, by when the browser has drawn it.
MEASURE = """async (action) => {
  const start = performance.now();
  const form = document.getElementById("filters");
  const [name, value] = action;
  form.elements[name].value = value;
  form.elements[name].dispatchEvent(new Event("input", { bubbles: true }));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return (performance.now() - start) / 1000;
}"""
ACTIONS = [
    ("query", "a"), ("query", "name 49"), ("query", ""), ("verdict", "wrong"), ("verdict", ""), ("entity", "unseen"),
    ("image", "changed"), ("entity", ""), ("image", ""),
]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default number keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.split("\n")[0])
    parser.add_argument("--mentions", type=int, default=MENTIONS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report("making the mentions and their pictures")
        metrics, train = make_metrics(folder, options.mentions)
        start = time.perf_counter()
        page = write_report(metrics, folder / "report", train)
        result: dict[str, Any] = {
            "command": "python -m benchmarks.report",
            "mentions": options.mentions,
            "write_seconds": round(time.perf_counter() - start, 1),
            "mb": round(page.stat().st_size / 1e6, 1),
            **measure(page),
        }
    result["holds"] = {
        "mb": result["mb"] < LARGEST_MB,
        "open_seconds": result["open_seconds"]["most"] < LONGEST_SECONDS,
        "filter_seconds": result["filter_seconds"]["most"] < LONGEST_SECONDS,
        "nothing_else": not result["events"],
    }
    result["machine"] = describe_machine()
    if options.mentions == MENTIONS:
        write_json(ROOT / "benchmarks" / "results" / "report.json", result)
    print(json.dumps(result))


def make_metrics(folder: Path, n: int) -> tuple[list[Path], Path]:
    """METRICS.json of the full setting and of that without the image, and the docs of the demonstrations."""
    rng = np.random.default_rng(0)
    vocab, docs, rows = Vocab(), DocBin(store_user_data=True), []
    for number in range(DEMONSTRATIONS):
        doc = Doc(vocab, words=[f"Name{number}", *rng.choice(WORDS, 12).tolist()])
        doc.ents = [Span(doc, 0, 1, label="ENT", kb_id=f"Q{number}")]
        doc.user_data["image"] = write_picture(folder / f"train-{number}.jpg", rng)
        docs.add(doc)
        rows.append({"text": doc.text, "mention": f"Name{number}", "name": f"Name {number}", "kb_id": f"Q{number}"})
    docs.to_disk(folder / "train.spacy")
    full, blind = [], []
    for number in range(n):
        ids = rng.integers(0, 100_000, 5).tolist()
        shares = np.sort(rng.dirichlet(np.ones(5)))[::-1].tolist()
        candidates = [
            {"kb_id": f"Q{each}", "name": f"Name {each} (of some kind)", "score": -1.0, "probability": share}
            for each, share in zip(ids, shares, strict=True)
        ]
        text = " ".join([f"Name{number}", *rng.choice(WORDS, 15).tolist()])
        gold, other = (f"Q{ids[int(rng.random() < share)]}" for share in (0.1, 0.5))
        result = MentionResult(
            doc=str(number), start=0, end=len(f"Name{number}"), mention=f"Name{number}", gold=gold,
            predicted=f"Q{ids[0]}", probability=shares[0], seen=bool(rng.random() < 0.7), tail=bool(rng.random() < 0.2),
            image=True, in_kb=True, count=int(rng.integers(0, 3000)), candidates=candidates,
            demonstrations=[rows[each] for each in rng.integers(0, DEMONSTRATIONS, 8).tolist()], text=text,
            image_path=write_picture(folder / f"{number}.jpg", rng),
        )  # fmt: skip
        full.append(result)
        blind.append(MentionResult(**{name: getattr(result, name) for name in result.__slots__} | {"predicted": other}))
    tail, paths = TailSplit(share=0.2, share_held=0.2, threshold=9, entities=1000), []
    for name, results in (("full", full), ("no-image", blind)):
        settings = {"use_image": name == "full", "n_demonstrations": 8}
        paths.append(folder / f"{name}.json")
        write_evaluation(summarise(results, tail, settings=settings, seconds=1.0, linked=n), results, paths[-1])
    return paths, folder / "train.spacy"


def write_picture(path: Path, rng: np.random.Generator) -> str:
    """A picture with coarse shapes and the grain of a photograph; returns its path."""
    coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).resize(
        (480, 360), Image.Resampling.BICUBIC
    )
    grain = rng.normal(0, 10, (360, 480, 1))
    Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(path, quality=85)
    return str(path)


def measure(path: Path) -> dict[str, Any]:
    """Open the page several times and filter; `events` are requests beside the page's, errors and messages."""
    events: list[str] = []
    opened, filtered = [], []
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for _ in range(OPENED):
            page = chromium.new_context().new_page()
            page.on("request", lambda request: events.append(request.url))
            page.on("console", lambda message: events.append(message.text))
            page.on("pageerror", lambda error: events.append(str(error)))
            opened.append(open_page(page, path))
            filtered += [float(page.evaluate(MEASURE, list(action))) for action in ACTIONS]
            page.context.close()
        chromium.close()
    events = [event for event in events if event != path.as_uri() and not event.startswith("data:")]
    return {"open_seconds": spread(opened, 3), "filter_seconds": spread(filtered, 3), "events": events}


def open_page(page: Page, path: Path) -> float:
    """The seconds until the first cards are on the screen."""
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector("article")
    frame = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
    return float(page.evaluate(frame)) / 1000


if __name__ == "__main__":
    main()
