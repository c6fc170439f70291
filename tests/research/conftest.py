"""A small place for experiments: data, a knowledge base's meta.json, a config, and commands that only pretend."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pytest
import spacy
import srsly
from PIL import Image
from spacy.tokens import DocBin, Span

from research import runner
from research.commands import CommandFailed
from research.grid.grid import Grid, read_grid
from spacy_gemel.evaluation.results import MentionResult, mentions_path, write_evaluation, write_mentions
from spacy_gemel.utils.files import sha256_of, write_json

ROOT = Path(__file__).parents[2]
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


def grid_of(folder: Path, tables: Any, **settings: Any) -> Grid:
    """A grid file with these tables, read."""
    content = {
        "dataset": "small world",
        "config": "mini.cfg",
        "train": "../train.spacy",
        "dev": "../dev.spacy",
        "test": "../test.spacy",
        "kb": "../kb",
        "tail_share": 0.2,
        "tables": tables,
        **settings,
    }
    path = folder / "configs" / "grid.yml"
    path.write_text(srsly.yaml_dumps(content))
    return read_grid(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with data, a config and models that are only names."""
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs" / "mini.cfg", tmp_path / "configs")
    for number, split in enumerate(("train", "dev", "test")):
        write_corpus(tmp_path / f"{split}.spacy", number)
    for name in ("kb/meta.json", "assets/mini/language_model/config.json", "assets/mini/sentence_encoder/config.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class FakeCommands:
    """In place of the runner's commands.

    correct: trial's id -> how many of N mentions it gets right, 30 by default. broken: words; a command with one of
    them fails. killed: ids of trials at which the process is killed, or "loading". not_learning: ids of trainings whose
    first checkpoint is the best. evaluations: of a training. counted: whether the golds are common or tail. calls: a
    few words for each command. options: the words of the baselines' commands.
    """

    def __init__(self) -> None:
        self.killed: set[str] = set()
        self.not_learning: set[str] = set()
        self.evaluations = 3
        self.counted = True
        self.options: list[list[str]] = []
        self.calls: list[str] = []
        self.correct: dict[str, int] = {}
        self.broken: dict[str, type[BaseException]] = {}

    def __call__(self, root: Path, *arguments: str, log: IO[str] | None = None, keep_open: Sequence[int] = ()) -> None:
        assert log is not None and keep_open and arguments[0] == "-m"
        module, *words = arguments[1:]
        for word, error in self.broken.items():
            if word in " ".join(arguments):
                log.write("│ because it is broken │\n╰──╯\n")
                log.flush()
                raise CommandFailed(arguments, 1, Path(log.name)) if error is CommandFailed else error
        does = {"spacy": self._train, "research.worker": self._measure}
        try:
            does.get(module, self._other)(root, words)
        except ProcessLookupError:
            raise CommandFailed(arguments, -9, Path(log.name)) from None

    def _train(self, root: Path, words: list[str]) -> None:
        output = root / words[words.index("--output") + 1]
        id_ = output.name.removesuffix(".partial")
        self.calls.append(f"train {id_}")
        for name in ("model-best", "model-last"):
            (output / name).mkdir()
        losses = [1.284, 1324.05, 729.27][: self.evaluations]
        rows = [
            f"{index:>3}  {640 * index:>6}  {loss:>13.2f}  {50:>11.2f}    0.50" for index, loss in enumerate(losses)
        ]
        (output / "training.log").write_text("\n".join([CONSOLE, *rows, "✔ Saved pipeline to output directory"]))
        best = losses[0 if id_ in self.not_learning else -1]
        write_json(
            output / "model-best" / "meta.json", {"performance": {"nel_micro_f": 0.5, "gemel_linker_loss": best}}
        )

    def _other(self, root: Path, words: list[str]) -> None:
        if words[0] == "build-kb":
            self.calls.append(f"build-kb {words[words.index('--tokenizer') + 1]}")
            (root / words[2]).mkdir()
            return
        kind = words[words.index("--baseline") + 1] if words[0] == "evaluate" else "entity_linker"
        self.calls.append(f"baseline {kind}")
        self.options.append(words)
        write_evaluation(metrics(), self.results(f"baseline-{kind}"), root / words[words.index("--output") + 1])

    def _measure(self, root: Path, words: list[str]) -> None:
        path = root / words[0]
        job = json.loads(path.read_text())
        assert (root / job["pipeline"]).is_dir()
        errors = {}
        if "loading" in self.killed:
            raise ProcessLookupError
        for row in job["trials"]:
            id_, output = row["trial"]["id"], root / row["output"]
            self.calls.append(f"measure {id_}")
            write_json(path.with_name("at.json"), {"output": row["output"]})
            if id_ in self.killed:
                raise ProcessLookupError
            if f"!{id_}" in self.broken:
                errors[row["output"]] = "it would not"
                continue
            write_mentions(self.results(id_), mentions_path(output))
            record = {"n": N, "sha256": sha256_of(mentions_path(output))}
            content = {"key": row["key"], **metrics(), "trial": {**row["trial"], "seconds": 2.0}, "mentions": record}
            write_json(output, content)
        write_json(path.with_name("errors.json"), errors)
        if errors:
            raise CommandFailed(words, 1, None)

    def results(self, id_: str) -> list[MentionResult]:
        correct = self.correct.get(id_, 30)
        return [
            MentionResult(
                str(n), 0, 7, "Mercury", "A", "A" if n < correct else "B", None,
                seen=n % 2 == 0, tail=n % 4 == 0 if self.counted else None, image=n % 5 > 0, in_kb=True,
            )
            for n in range(N)
        ]  # fmt: skip


def metrics() -> dict[str, Any]:
    """Of METRICS.json what the experiments read."""
    return {
        "settings": {},
        "accuracy": 0.75,
        "mentions_per_second": 20.0,
        "prompts": {"mean": 200.0, "longest": 300},
        "tail": {"threshold": 7, "share_held": 0.19, "entities": 5, "counted": 9},
    }


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> FakeCommands:
    fake = FakeCommands()
    monkeypatch.setattr(runner, "run_command", fake)
    return fake
