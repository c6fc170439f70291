"""`calibrate` as a user calls it, on a small trained pipeline, and the pipeline that it leaves."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from thinc.api import fix_random_seed

from spacy_gemel.data.reader import read_docs
from spacy_gemel.utils.files import files_in
from tests.commands import call, failed_last
from tests.mini_pipeline import COLOURS, make_doc, make_kb, make_pipeline, picture

N = 24


@pytest.fixture(scope="module")
def trained(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline; not changed by the tests."""
    folder = tmp_path_factory.mktemp("trained")
    fix_random_seed(0)
    nlp = make_pipeline(models, make_kb(folder, models))
    nlp.to_disk(folder / "pipeline")
    return folder / "pipeline"


def docs_of(nlp: Language) -> list[Doc]:
    return [
        make_doc(nlp, f"A photo of {mention} number {seed}.", mention, image=picture(name, seed))
        for seed, (mention, name) in enumerate([("Mercury", name) for name in COLOURS] * (N // 3))
    ]


@pytest.fixture(scope="module")
def dev(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pipeline is sure of is right, by id or by URL; what it is least sure of is NIL."""
    nlp = spacy.load(trained)
    linked = list(nlp.pipe(docs_of(nlp)))
    sureness = [doc.ents[0]._.gemel_candidates[0].probability for doc in linked]
    least = sorted(range(N), key=lambda index: sureness[index])[: N // 3]
    corpus = DocBin(store_user_data=True)
    for index, (plain, doc) in enumerate(zip(docs_of(nlp), linked, strict=True)):
        answer = doc.ents[0].kb_id_
        gold = "NIL" if index in least else answer if index % 2 else f"https://en.wikipedia.org/wiki/{answer}"
        ent = plain.ents[0]
        plain.set_ents([Span(plain, ent.start, ent.end, label="ENT", kb_id=gold)])
        plain.user_data["id"] = str(index)
        corpus.add(plain)
    path = tmp_path_factory.mktemp("dev") / "dev.spacy"
    corpus.to_disk(path)
    return path


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_in(folder)}


def answers(pipeline: Path, data: Path) -> list[tuple[str, str, float]]:
    """Gold, answer and the best candidate's probability of each mention."""
    nlp = spacy.load(pipeline)
    rows = []
    for gold in read_docs(data, nlp.vocab):
        doc = nlp.make_doc(gold.text)
        doc.set_ents([Span(doc, gold.ents[0].start, gold.ents[0].end, label="ENT")])
        doc.user_data["image"] = gold.user_data["image"]
        ent = nlp(doc).ents[0]
        rows.append((gold.ents[0].kb_id_, ent.kb_id_, ent._.gemel_candidates[0].probability))
    return rows


def test_a_saved_pipeline_decides_as_it_was_calibrated(trained: Path, dev: Path, tmp_path: Path) -> None:
    before = bytes_of(trained)
    output, saved = tmp_path / "figures" / "c.json", tmp_path / "made" / "calibrated"
    done = call("calibrate", trained, dev, "--output", output, "--save", saved, "-q")
    assert done.exit_code == 0, done.output
    found = json.loads(output.read_text())
    threshold, temperature = found["after"]["threshold"], found["after"]["temperature"]
    assert threshold is not None
    assert found["mentions"] == {"entity": 16, "nil": 8, "not_in_kb": 0, "unannotated": 0, "not_found": 0}
    assert found["settings"]["data"] == dev.as_posix()
    # not all of them: who is surer than whom depends on the temperature as well
    assert found["before"]["linking"]["f"] == 0.8 and found["after"]["linking"]["f"] > 0.9
    assert found["after"]["nil"]["f"] > 0.8
    assert found["after"]["log_loss"] < found["before"]["log_loss"]
    assert f"threshold null -> {threshold:g}" in done.stdout and "NIL F1" in done.stdout
    assert (tmp_path / "figures" / "c.html").read_text().count("<svg") == 3
    assert bytes_of(trained) == before
    # the rest is as it was
    after = bytes_of(saved)
    assert {name for name in before if before[name] != after[name]} == {"config.cfg", "gemel_linker/cfg"}
    assert set(after) == set(before)
    assert [path.name for path in saved.parent.iterdir()] == ["calibrated"]
    nlp = spacy.load(saved)
    pipe: Any = nlp.get_pipe("gemel_linker")
    assert (pipe.settings.threshold, pipe.settings.temperature) == (threshold, temperature)
    assert nlp.config["components"]["gemel_linker"]["threshold"] == threshold
    message = answers(saved, dev)
    assert all((answer == "NIL") == (probability < threshold) for _, answer, probability in message)
    found_nil = sum(gold == answer == "NIL" for gold, answer, _ in message)
    assert found_nil / 8 == found["after"]["nil"]["r"]
    assert found_nil / sum(answer == "NIL" for _, answer, _ in message) == found["after"]["nil"]["p"]


def test_what_was_saved_is_seen_in_the_scores(trained: Path, dev: Path, tmp_path: Path) -> None:
    saved = tmp_path / "calibrated"
    assert call("calibrate", trained, dev, "--save", saved, "-o", tmp_path / "c.json", "-q").exit_code == 0
    message = json.loads((tmp_path / "c.json").read_text())["after"]
    nil = []
    for name, pipeline in (("before", trained), ("after", saved)):
        assert call("evaluate", pipeline, dev, "-o", tmp_path / f"{name}.json", "-q").exit_code == 0
        nil.append(json.loads((tmp_path / f"{name}.json").read_text())["nil"])
    assert {key: nil[0][key] for key in message["nil"]} == {"n": 8, "p": None, "r": 0.0, "f": 0.0}
    assert {key: nil[1][key] for key in message["nil"]} == message["nil"]
    assert nil[1]["f"] > 0.8
    # and again: nothing is left to change
    again = tmp_path / "again.json"
    assert call("calibrate", saved, dev, "-o", again, "-q").exit_code == 0
    found = json.loads(again.read_text())
    assert found["before"]["nil"] == found["after"]["nil"] == message["nil"]
    assert found["after"]["temperature"] == pytest.approx(message["temperature"], rel=1e-3)


def test_in_place(trained: Path, dev: Path, tmp_path: Path) -> None:
    pipeline = tmp_path / "pipeline"
    shutil.copytree(trained, pipeline)
    before = bytes_of(pipeline)
    done = call("calibrate", pipeline, dev, "-q")
    assert done.exit_code == 0
    assert "the pipeline is unchanged: give --save DIR or --in-place" in done.stdout
    assert bytes_of(pipeline) == before
    assert call("calibrate", pipeline, dev, "--in-place", "-q").exit_code == 0
    after = bytes_of(pipeline)
    assert {name for name in after if before.get(name) != after[name]} == {"config.cfg", "gemel_linker/cfg"}
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]
    assert spacy.load(pipeline).config["components"]["gemel_linker"]["threshold"] is not None


def test_no_nil_and_no_mention(trained: Path, dev: Path, tmp_path: Path) -> None:
    blank = spacy.blank("en")
    docs = [doc for doc in read_docs(dev, blank.vocab) if doc.ents[0].kb_id_ != "NIL"]
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "entities.spacy")
    done = call("calibrate", trained, tmp_path / "entities.spacy", "--save", tmp_path / "saved", "-q")
    assert done.exit_code == 0
    assert "No gold is NIL, so the threshold is null" in done.stdout
    assert spacy.load(tmp_path / "saved").config["components"]["gemel_linker"]["threshold"] is None
    DocBin(docs=[blank("Nothing here")]).to_disk(tmp_path / "none.spacy")
    failed_last(
        call("calibrate", trained, tmp_path / "none.spacy", "--save", tmp_path / "s", "-q"), "not one mention in 1"
    )
    assert not (tmp_path / "s").exists()


def test_golds_outside_the_knowledge_base(trained: Path, dev: Path, tmp_path: Path) -> None:
    docs = list(read_docs(dev, spacy.blank("en").vocab))
    for doc in docs:
        ent = doc.ents[0]
        if ent.kb_id_ == "NIL":
            doc.set_ents([Span(doc, ent.start, ent.end, label="ENT", kb_id="Q_nobody_knows")])
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "dev.spacy")
    for options, nil, outside in (((), 0, 8), (("--missing-as-nil",), 8, 0)):
        done = call("calibrate", trained, tmp_path / "dev.spacy", "-o", tmp_path / "c.json", "-q", *options)
        assert done.exit_code == 0, done.output
        found = json.loads((tmp_path / "c.json").read_text())
        assert (found["mentions"]["nil"], found["mentions"]["not_in_kb"]) == (nil, outside)
        assert (found["after"]["threshold"] is None) == (nil == 0)


def test_behind_a_ner(trained: Path, dev: Path, tmp_path: Path) -> None:
    nlp = spacy.load(trained)
    ruler = nlp.add_pipe("entity_ruler", before="gemel_linker")
    ruler.add_patterns([{"label": "ENT", "pattern": "Mercury"}])  # type: ignore[attr-defined]
    nlp.to_disk(tmp_path / "ruled")
    done = call("calibrate", tmp_path / "ruled", dev, "--predicted-ents", "--in-place", "-q")
    assert done.exit_code == 0, done.output
    assert "16 mentions with an entity, 8 NIL" in done.stdout
    assert spacy.load(tmp_path / "ruled").pipe_names == ["entity_ruler", "gemel_linker"]


def test_what_is_wrong_is_said_before_the_work(
    trained: Path, dev: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded a pipeline")

    monkeypatch.setattr("spacy_gemel.pipeline.loaded_pipeline.load_pipeline", never)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    failed_last(call("calibrate", trained, dev, "--save", tmp_path / "full"), "there is something already")
    failed_last(call("calibrate", trained, dev, "--save", tmp_path / "x", "--in-place"), "give one of them")
    failed_last(call("calibrate", trained, dev, "--save", trained / "calibrated"), "lies in the pipeline's own folder")
    failed_last(call("calibrate", "a_package", dev, "--in-place"), "an installed package is not changed")
    failed_last(call("calibrate", trained, dev, "-o", "c.txt"), "must end in .json")
    failed_last(call("calibrate", trained, tmp_path / "gone.spacy"), "no such file or folder")


def test_a_copy_that_fails_leaves_nothing(
    trained: Path, dev: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spacy_gemel.utils.files.link_file", full)
    failed_last(call("calibrate", trained, dev, "--save", tmp_path / "saved", "-q"), "No space left")
    assert list(tmp_path.iterdir()) == []


def test_entities_of_one_name_and_one_count_are_told_by_order(models: Path, tmp_path: Path) -> None:
    """The same answer each time, and whatever shares its batch."""
    rows = [{"id": kb_id, "name": "Mercury"} for kb_id in ("first", "second", "third")]
    others = [{"id": name.replace(" ", "_"), "name": name} for name in ("Mercury (planet)", "Mercury (element)")]
    nlp = make_pipeline(models, make_kb(tmp_path, models, [*others, {"id": "Mercury", "name": "Mercury"}, *rows]))
    seen = set()
    for batch_size in (1, 2, 7):
        for doc in nlp.pipe(docs_of(nlp), batch_size=batch_size):
            shared = [c for c in doc.ents[0]._.gemel_candidates if c.name == "Mercury"]
            assert [c.kb_id for c in shared] in ([], ["Mercury", "first", "second", "third"])
            seen.add(len(shared))
            assert len({c.probability for c in shared}) <= 1
            assert doc.ents[0].kb_id_ not in ("first", "second", "third")
    assert 4 in seen
