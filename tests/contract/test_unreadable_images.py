"""Images that cannot be read: their docs are linked from the text, and no score takes them for docs with an image."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spacy.language import Language
from spacy.training import Example
from typer.testing import CliRunner, Result

from spacy_gemel.cli import app
from spacy_gemel.corpus.reader import multimodal_corpus
from spacy_gemel.evaluation.mentions import read_mentions
from spacy_gemel.evaluation.outcomes import outcomes
from spacy_gemel.pipelines import overridden
from tests.contract.world import linker
from tests.pipeline import make_doc, picture

MARK = "gemel_unreadable_image"


@pytest.fixture
def own_corpus(corpus: Path, tmp_path: Path) -> Path:
    """A corpus whose pictures a test may take away: 108 docs, one mention each."""
    shutil.copytree(corpus.parent, tmp_path / "corpus")
    return tmp_path / "corpus" / corpus.name


def lose(corpus: Path, number: int) -> None:
    for path in sorted((corpus.parent / "images").iterdir())[:number]:
        path.unlink()


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--quiet", "--n-demonstrations", "1"])


def data_of(nlp: Language, corpus: Path, limit: int) -> list[Example]:
    return list(multimodal_corpus(corpus, gold_ents=True, limit=limit)(nlp))


@pytest.mark.filterwarnings("ignore:gemel_linker. no image")
def test_evaluate_refuses_where_not_one_is_there(saved: Path, own_corpus: Path, tmp_path: Path) -> None:
    lose(own_corpus, 108)
    done = evaluate(saved, own_corpus, "-o", tmp_path / "m.json")
    assert done.exit_code == 1
    assert "of 108 docs with an image not one image could be read" in done.stderr
    assert str(own_corpus.parent / "images") in done.stderr
    assert "--no-image" in done.stderr
    assert not (tmp_path / "m.json").exists()
    done = evaluate(saved, own_corpus, "-o", tmp_path / "m.json", "--no-image")
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["settings"]["use_image"] is False
    assert metrics["unreadable_image"] == {"n": 0, "accuracy": None, "low": None, "high": None, "mentions": 0}


@pytest.mark.filterwarnings("ignore:gemel_linker. no image")
def test_evaluate_counts_apart_what_is_not_there(saved: Path, own_corpus: Path, tmp_path: Path) -> None:
    lose(own_corpus, 10)
    with pytest.warns(UserWarning, match="of 108 docs with an image 10 have one that could not be read"):
        done = evaluate(saved, own_corpus, "-o", tmp_path / "m.json")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("WARNING: the image of 10 mentions could not be read.")
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert [metrics[part]["n"] for part in ("with_image", "without_image", "unreadable_image")] == [98, 0, 10]
    rows = read_mentions(tmp_path / "m.mentions.jsonl")
    unreadable = [row for row in rows if row.unreadable_image]
    assert len(unreadable) == 10
    assert not any(row.image or Path(tmp_path, row.image_path or "").exists() for row in unreadable)
    assert all(row.image for row in rows if not row.unreadable_image)
    found = outcomes(rows)
    assert [int(found.part(part).sum()) for part in ("with_image", "without_image")] == [98, 0]


@pytest.mark.filterwarnings("ignore:gemel_linker. no image")
def test_scores_in_training_are_refused_for_all_and_said_for_some(trained: Language, own_corpus: Path) -> None:
    data = data_of(trained, own_corpus, 6)
    for example in data[:2]:
        example.predicted.user_data["image"] = "gone.png"
    with pytest.warns(UserWarning, match="of 6 docs with an image 2 .*'0-0'.*gone.png.* from their text alone"):
        assert trained.evaluate(data)["nel_accuracy"] is not None
    for example in data[2:]:
        example.predicted.user_data["image"] = b"no image"
    with pytest.raises(ValueError, match="not scored: of 6 docs with an image not one image could be read"):
        trained.evaluate(data)
    for example in data[:5]:
        del example.reference.user_data["image"], example.predicted.user_data["image"]
    with pytest.raises(ValueError, match="of 1 docs with an image not one"):
        trained.evaluate(data)
    with overridden(linker(trained), use_image=False):
        assert trained.evaluate(data)["nel_accuracy"] is not None


@pytest.mark.filterwarnings("ignore:gemel_linker. no image")
def test_the_doc_says_whether_its_image_was_read(trained: Language) -> None:
    def doc(**user_data: Any) -> Any:
        made = make_doc(trained, "A photo of Mercury.", "Mercury")
        made.user_data.update(user_data)
        return made

    bad = [{"image": "gone.png"}, {"image": picture("Mercury")[..., :2]}, {"image_features": np.ones(3, dtype="f")}]
    good = [{"image": picture("Mercury")}, {}, {"image": None}]
    docs = [doc(**user_data) for user_data in [*bad, *good]]
    for linked in (list(trained.pipe(docs)), list(trained.pipe(docs, n_process=2, batch_size=4))):
        assert [one.user_data.get(MARK) for one in linked] == [True, True, True, None, None, None]
    [one, *_] = docs
    one.user_data["image"] = picture("Mercury")
    assert MARK not in trained(one).user_data
