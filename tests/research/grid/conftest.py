"""A small place for experiments: data, a knowledge base's meta.json, a config, and commands that only pretend."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
import spacy
import srsly
from PIL import Image
from spacy.tokens import DocBin, Span

from research.grid import trials
from research.grid.grid import Grid, read_grid
from research.grid.keeping import write_json
from research.grid.measured import write_measured
from research.grid.processes import CommandFailed
from spacy_gemel.evaluation.results import MentionResult, write_evaluation

ROOT = Path(__file__).parents[3]
N = 40
CONSOLE = """E    #       LOSS GEMEL...  NEL_MICRO_F  SCORE
---  ------  -------------  -----------  ------"""


def write_corpus(path: Path, colour: int, n: int = 2) -> None:
    """Docs that name a picture."""
    nlp, docs = spacy.blank("en"), DocBin(store_user_data=True)
    picture = path.with_name(f"{path.stem}.png")
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(picture)
    for _ in range(n):
        doc = nlp("Mercury rises")
        doc.set_ents([Span(doc, 0, 1, label="ENT", kb_id="Mercury")])
        doc.user_data["image"] = picture.name
        docs.add(doc)
    docs.to_disk(path)


def grid_of(folder: Path, tables: dict[str, Any], **others: Any) -> Grid:
    """A grid file with these tables, read."""
    message = {
        "dataset": "small world",
        "config": "mini.cfg",
        "train": "../train.spacy",
        "dev": "../dev.spacy",
        "test": "../test.spacy",
        "kb": "../kb",
        "tail_share": 0.2,
        "tables": tables,
        **others,
    }
    path = folder / "configs" / "grid.yml"
    path.write_text(srsly.yaml_dumps(message))
    return read_grid(path)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs" / "mini.cfg", tmp_path / "configs")
    for number, split in enumerate(("train", "dev", "test")):
        write_corpus(tmp_path / f"{split}.spacy", number)
    for name in ("kb/meta.json", "assets/mini/language_model/config.json", "assets/mini/sentence_encoder/config.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Pretender:
    """In place of the commands. right: trial's id -> how many of N mentions it gets right, 30 where it is not there.

    broken: words; a command that has one of them fails. killed: ids of trials at which the process is killed, or
    "loading". learns_nothing: ids of trainings whose first checkpoint is the best. looks: evaluations of a training.
    counted: whether the golds are common or tail. calls: what was asked for, in a few words. told: the words of the
    peers' commands.
    """

    def __init__(self) -> None:
        self.killed: set[str] = set()
        self.learns_nothing: set[str] = set()
        self.looks = 3
        self.counted = True
        self.message: list[list[str]] = []
        self.calls: list[str] = []
        self.right: dict[str, int] = {}
        self.broken: dict[str, type[BaseException]] = {}

    def __call__(self, root: Path, *arguments: str, log: IO[str] | None = None, keep_open: Sequence[int] = ()) -> None:
        assert log is not None and arguments[0] == "-m"
        module, *words = arguments[1:]
        for word, error in self.broken.items():
            if word in " ".join(arguments):
                log.write("│ because it is broken │\n╰──╯\n")
                log.flush()
                raise CommandFailed(arguments, 1, Path(log.name)) if error is CommandFailed else error
        does: dict[str, Callable[[Path, list[str]], None]] = {
            "spacy": self._train,
            "spacy_gemel": self._gemel,
            "research.grid.worker": self._measure,
        }
        assert keep_open
        try:
            does[module](root, words)
        except ProcessLookupError:
            raise CommandFailed(arguments, -9, Path(log.name)) from None

    def _train(self, root: Path, words: list[str]) -> None:
        out = root / words[words.index("--output") + 1]
        self.calls.append(f"train {out.name.removesuffix('.partial')}")
        for name in ("model-best", "model-last"):
            (out / name).mkdir()
        losses = [1.284, 1324.05, 729.27][: self.looks]
        rows = [
            f"{index:>3}  {640 * index:>6}  {loss:>13.2f}  {50:>11.2f}    0.50" for index, loss in enumerate(losses)
        ]
        (out / "training.log").write_text("\n".join([CONSOLE, *rows, "✔ Saved pipeline to output directory"]))
        best = losses[0 if out.name.removesuffix(".partial") in self.learns_nothing else -1]
        write_json(out / "model-best" / "meta.json", {"performance": {"nel_micro_f": 0.5, "gemel_linker_loss": best}})

    def _gemel(self, root: Path, words: list[str]) -> None:
        if words[0] == "build-kb":
            self.calls.append(f"build-kb {words[words.index('--tokenizer') + 1]}")
            (root / words[2]).mkdir()
            return
        assert (words[0], words[4:6]) == ("peer", ["--kb", "kb"])
        self.calls.append(f"peer {words[1]}")
        self.message.append(words)
        output = root / words[words.index("--output") + 1]
        write_evaluation(metrics(), self._results(f"peer-{words[1]}"), output)

    def _measure(self, root: Path, words: list[str]) -> None:
        job = json.loads((root / words[0]).read_text())
        assert (root / job["pipeline"]).is_dir()
        errors = {}
        if "loading" in self.killed:
            raise ProcessLookupError
        for wanted in job["trials"]:
            id = wanted["trial"]["id"]
            self.calls.append(f"measure {id}")
            write_json((root / words[0]).with_name("at.json"), {"output": wanted["output"]})
            if id in self.killed:
                raise ProcessLookupError
            if f"!{id}" in self.broken:
                errors[wanted["output"]] = "it would not"
                continue
            trial = {**wanted["trial"], "seconds": 2.0}
            write_measured(
                {"key": wanted["key"], **metrics(), "trial": trial}, self._results(id), root / wanted["output"]
            )
        write_json((root / words[0]).with_name("errors.json"), errors)
        if errors:
            raise CommandFailed(words, 1, None)

    def _results(self, id: str) -> list[MentionResult]:
        right = self.right.get(id, 30)
        return [
            MentionResult(
                str(n), 0, 7, "Mercury", "A", "A" if n < right else "B", None,
                seen=n % 2 == 0, tail=n % 4 == 0 if self.counted else None, image=n % 5 > 0, in_kb=True,
            )
            for n in range(N)
        ]  # fmt: skip


def metrics() -> dict[str, Any]:
    """Of METRICS.json what the tables read."""
    return {"settings": {}, "tail": {"threshold": 7, "share_held": 0.19, "entities": 5, "counted": 9}}


@pytest.fixture
def pretender(monkeypatch: pytest.MonkeyPatch) -> Pretender:
    found = Pretender()
    monkeypatch.setattr(trials, "run", found)
    return found
