"""Images that cannot be read: their docs are linked from the text, and no score takes them for docs with an image."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from typer.testing import CliRunner, Result

from research.statistics import outcomes
from spacy_gemel.__main__ import app
from spacy_gemel.data.reader import multimodal_corpus
from spacy_gemel.evaluation.decision_cases import collect_cases
from spacy_gemel.evaluation.results import read_mentions
from spacy_gemel.pipeline.loaded_pipeline import overridden
from spacy_gemel.utils.messages import UnreadableImageWarning
from tests.mini_pipeline import linker, make_doc, picture

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


def fit_decision(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["fit-decision", *map(str, arguments), "--quiet"])


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
def test_scores_do_not_count_images_that_nobody_looked_at(
    trained: Language, own_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One doc whose mentions are of a discarded label cannot make up for all the others."""
    data = data_of(trained, own_corpus, 4)
    for example in data:
        example.predicted.user_data["image"] = "gone.png"
    [ent] = data[0].predicted.ents
    data[0].predicted.set_ents([Span(data[0].predicted, ent.start, ent.end, label="DATE")])
    monkeypatch.setattr(linker(trained), "labels_discard", ("DATE",))
    with pytest.raises(ValueError, match="not scored: of 3 docs with an image not one image could be read"):
        trained.evaluate(data)


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


@pytest.mark.filterwarnings("ignore:gemel_linker. no image")
def test_fit_decision_refuses_where_not_one_is_there(saved: Path, own_corpus: Path, tmp_path: Path) -> None:
    lose(own_corpus, 18)  # those of the first 18 docs
    done = fit_decision(saved, own_corpus, tmp_path / "fitted", "--limit", 18, "-r", tmp_path / "fitted.json")
    assert done.exit_code == 1
    assert "of 18 docs with an image not one image could be read" in done.stderr
    assert not (tmp_path / "fitted").exists()
    assert not (tmp_path / "fitted.json").exists()


@pytest.mark.filterwarnings("ignore:gemel_linker. no image")
def test_fit_decision_says_of_how_many_it_is_not_there(saved: Path, own_corpus: Path, tmp_path: Path) -> None:
    def fit(name: str) -> Result:
        return fit_decision(saved, own_corpus, tmp_path / name, "--limit", 18, "-r", tmp_path / f"{name}.json")

    assert fit("all").exit_code == 0
    lose(own_corpus, 5)
    with pytest.warns(UserWarning, match="of 18 docs with an image 5 have one that could not be read"):
        done = fit("fitted")
    assert done.exit_code == 0, done.output
    said = "The image of 5 of the 18 mentions could not be read."
    for name, number in (("all", 0), ("fitted", 5)):
        notes = json.loads((tmp_path / f"{name}.json").read_text())["notes"]
        assert [note.startswith(said) for note in notes].count(True) == bool(number)
    assert said in done.stdout


@pytest.mark.filterwarnings("ignore:gemel_linker. no image")
def test_fit_decision_does_not_count_images_that_nobody_looked_at(
    trained: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mentions of a discarded label are answered unseen: their images cannot make up for the others."""
    docs = [make_doc(trained, f"A photo of Mercury, {n}.", "Mercury", "Mercury", "gone.png") for n in range(3)]
    docs[2].set_ents([Span(docs[2], ent.start, ent.end, label="DATE", kb_id="Mercury") for ent in docs[2].ents])
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "dev.spacy")
    pipe = linker(trained)
    monkeypatch.setattr(pipe, "labels_discard", ("DATE",))
    with pytest.raises(ValueError, match="of 2 docs with an image not one"):
        collect_cases(trained, tmp_path / "dev.spacy", progress=False)
    with overridden(pipe, use_image=False):  # on purpose
        cases, _ = collect_cases(trained, tmp_path / "dev.spacy", progress=False)
    assert [case.unreadable_image for case in cases] == [False] * 3
    assert [len(case.ids) > 0 for case in cases] == [True, True, False]


@pytest.mark.filterwarnings("ignore:gemel_linker. no image")
def test_link_says_which_answers_are_of_the_text_alone(saved: Path, tmp_path: Path) -> None:
    Image.fromarray(picture("Mercury")).save(tmp_path / "there.png")
    whole, parts = [{"start": 11, "end": 18}], [{"start": 2, "end": 18}, {"start": 11, "end": 18}]
    rows = [
        {"text": "A photo of Mercury.", "image": "gone.png", "mentions": parts},  # overlapping ones are two docs
        {"text": "A photo of Mercury.", "image": "there.png", "mentions": whole},
        {"text": "A photo of Mercury.", "image": "gone.png", "mentions": whole},
        {"text": "A photo of Mercury.", "mentions": whole},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(app, ["link", str(saved), str(tmp_path / "in.jsonl"), str(tmp_path / "o.jsonl"), "-q"])
    assert done.exit_code == 0, done.output
    linked = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [row.get("unreadable_image") for row in linked] == [True, None, True, None]
    assert [len(row["mentions"]) for row in linked] == [2, 1, 1, 1]
    assert "4 docs, 5 mentions linked" in done.stdout
    assert done.stdout.endswith("; the image of 2 docs could not be read: linked from the text alone\n")
    (tmp_path / "in.jsonl").write_text(json.dumps(rows[1]))
    done = CliRunner().invoke(app, ["link", str(saved), str(tmp_path / "in.jsonl"), str(tmp_path / "o.jsonl"), "-q"])
    assert "could not be read" not in done.stdout


def marked(nlp: Language, text: str = "A photo of Mercury.") -> Doc:
    """A doc that was linked from its text alone; its image can be read from now on."""
    doc = nlp(make_doc(nlp, text, "Mercury", image="gone.png"))
    assert doc.user_data[MARK] is True
    doc.user_data["image"] = picture("Mercury")
    return doc


@pytest.mark.filterwarnings("ignore:gemel_linker. no image")
@pytest.mark.parametrize("beside", [0, 2])
def test_the_mark_goes_with_the_answers_that_it_is_of(trained: Language, beside: int) -> None:
    """Whoever shares the batch; and what was then linked from the text on purpose is scored."""
    pipe: Any = linker(trained)

    def again(doc: Doc) -> bool:
        others = [make_doc(trained, "A photo of Mercury.", "Mercury") for _ in range(beside)]
        list(trained.pipe([doc, *others]))
        return MARK in doc.user_data

    assert not again(marked(trained))
    no_entities = marked(trained)
    no_entities.set_ents([])
    assert not again(no_entities)
    text_alone = marked(trained)
    text_alone.user_data["image"] = "gone.png"
    with overridden(pipe, use_image=False):
        assert not again(text_alone)
    gold = make_doc(trained, text_alone.text, "Mercury", "Mercury", image="gone.png")
    assert pipe.score([Example(text_alone, gold)])["nel_accuracy"] is not None


@pytest.mark.filterwarnings("ignore:gemel_linker. no image")
def test_the_mark_stays_with_the_answers_that_are_kept(trained: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = linker(trained)
    monkeypatch.setattr(pipe, "overwrite", False)
    doc = marked(trained, "A photo of Mercury and Java.")
    before = doc.ents[0]._.gemel_candidates
    assert trained(doc).user_data[MARK] is True
    with overridden(pipe, use_image=False):  # as a second linker may have it
        assert trained(doc).user_data[MARK] is True
    doc.set_ents([*doc.ents, Span(doc, 5, 6, label="ENT")])
    assert trained(doc).user_data[MARK] is True  # one of its two answers
    assert doc.ents[0]._.gemel_candidates == before
    assert doc.ents[1].kb_id_
    doc.set_ents([Span(doc, 3, 4, label="ENT")])
    assert MARK not in trained(doc).user_data
    assert doc.ents[0]._.gemel_candidates != before


@pytest.mark.filterwarnings("ignore:gemel_linker. the image of")
def test_whatever_a_doc_holds_as_its_image_the_others_are_linked(trained: Language, tmp_path: Path) -> None:
    class Raising(os.PathLike[str]):
        def __fspath__(self) -> str:
            raise LookupError("not today")

    Image.new("L", (1, 5000)).save(tmp_path / "thin.png")
    bad = {
        "image": [Raising(), "/dev/zero", str(tmp_path / "thin.png"), Image.new("RGB", (0, 0)), object()],
        "image_features": [np.full(24, 1e300), ["a"], torch.zeros(3, requires_grad=True), object()],
    }
    sources = [{key: value} for key, values in bad.items() for value in values]
    good = {"image": picture("Mercury")}
    docs = [make_doc(trained, "A photo of Mercury.", "Mercury") for _ in range(2 * len(sources))]
    for number, doc in enumerate(docs):
        doc.user_data |= good if number % 2 else sources[number // 2]
    linked = list(trained.pipe(docs, batch_size=7))
    assert [doc.user_data.get(MARK, False) for doc in linked] == [True, False] * len(sources)
    expected = trained(make_doc(trained, "A photo of Mercury.", "Mercury", **good))
    for doc in linked[1::2]:
        assert doc.ents[0].kb_id_ == expected.ents[0].kb_id_
        scores = [candidate.score for candidate in doc.ents[0]._.gemel_candidates]
        np.testing.assert_allclose(scores, [c.score for c in expected.ents[0]._.gemel_candidates], atol=1e-4)


def test_image_root(trained: Language, corpus: Path, tmp_path: Path) -> None:
    path = next((corpus.parent / "images").iterdir())
    with overridden(linker(trained), image_root=str(corpus.parent)):
        inside = trained(make_doc(trained, "A photo of Mercury.", "Mercury", image=str(path)))
    with (
        overridden(linker(trained), image_root=str(tmp_path)),
        pytest.warns(UnreadableImageWarning, match="lies outside image_root"),
    ):
        outside = trained(make_doc(trained, "A photo of Mercury.", "Mercury", image=str(path)))
    assert MARK not in inside.user_data and outside.user_data[MARK]
