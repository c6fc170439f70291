"""`fit-decision` as a user calls it, on a small trained pipeline, and the pipeline that it leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from thinc.api import Config, fix_random_seed

from spacy_gemel.data.reader import read_docs
from spacy_gemel.linking.decision import Decision
from spacy_gemel.pipeline.gemel_linker import FEATURES
from spacy_gemel.pipeline.loaded_pipeline import save_changed
from spacy_gemel.utils.files import files_in
from tests.commands import call, failed_last
from tests.mini_pipeline import LINKER, linker, make_doc, make_kb, make_pipeline, picture
from tests.tiny import NAMES

N, NIL = 20, 8


@pytest.fixture(scope="module")
def trained(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline whose language model knows nothing; not changed by the tests."""
    folder = tmp_path_factory.mktemp("trained")
    fix_random_seed(0)
    make_pipeline(models, make_kb(folder, models), beam_size=2, n_candidates=2).to_disk(folder / "pipeline")
    return folder / "pipeline"


def docs_of(nlp: Language) -> list[Doc]:
    """Names of the knowledge base by id and by URL, what nobody has heard of, and golds that cannot be used."""
    docs = []
    for index in range(N):
        name = NAMES[4 + index % 7]
        kb_id = name.replace(" ", "_")
        gold = kb_id if index % 2 else f"https://en.wikipedia.org/wiki/{kb_id}"
        docs.append(make_doc(nlp, f"Here is {name}, number {index}.", name, gold, picture(name, index)))
    docs += [make_doc(nlp, f"Nobody knows thing {index}.", "thing", "NIL", picture("", index)) for index in range(NIL)]
    docs.append(make_doc(nlp, "Here is Java.", "Java", "Q_not_in_the_kb"))
    docs.append(make_doc(nlp, "Here is Java again.", "Java"))
    for index, doc in enumerate(docs):
        doc.user_data["id"] = f"d{index // 2}"  # two docs of one id are one in the folds
    return docs


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dev") / "dev.spacy"
    DocBin(docs=docs_of(spacy.blank("en")), store_user_data=True).to_disk(path)
    return path


@pytest.fixture(scope="module")
def fitted(trained: Path, dev: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The pipeline with the fitted decision, the report, and what was printed."""
    folder = tmp_path_factory.mktemp("fitted")
    pipeline, report = folder / "made" / "pipeline", folder / "figures" / "d.json"
    done = call("fit-decision", trained, dev, pipeline, "--report", report, "-q", "--batch-size", 3)
    assert done.exit_code == 0, done.output
    return pipeline, json.loads(report.read_text()), done.stdout


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_in(folder)}


def answers(pipeline: Path, data: Path) -> list[tuple[str, str]]:
    """Gold and answer of each mention, from docs with the mentions alone."""
    nlp = spacy.load(pipeline)
    golds = list(read_docs(data, nlp.vocab))
    docs = []
    for gold in golds:
        doc = make_doc(nlp, gold.text, gold.ents[0].text, image=gold.user_data.get("image"))
        docs.append(doc)
    linked = nlp.pipe(docs)
    return [(gold.ents[0].kb_id_, doc.ents[0].kb_id_) for gold, doc in zip(golds, linked, strict=True)]


def is_right(gold: str, answer: str) -> bool:
    return gold.removeprefix("https://en.wikipedia.org/wiki/") == answer


def test_the_report(fitted: tuple[Path, dict[str, Any], str], trained: Path, dev: Path) -> None:
    pipeline, found, said = fitted
    assert found["settings"] == {
        "pipeline": str(trained),
        "data": dev.as_posix(),
        "limit": 0,
        "missing_as_nil": False,
    }
    assert found["mentions"] == {"n": N + NIL, "nil": NIL, "docs": (N + NIL) // 2, "folds": 5}
    assert found["candidate_recall"] == 1.0  # what bears the mention's name is always a candidate
    columns = [column for feature in linker(spacy.load(pipeline)).features for column in feature.columns]
    assert [*found["decision"]["weights"]] == [*found["decision"]["scales"]] == columns
    assert set(found["worth"]) <= set(FEATURES.values())
    assert found["before"]["nil"]["f"] == 0.0
    assert found["after"]["accuracy"] > found["before"]["accuracy"]
    assert found["after"]["nil"]["f"] > 0.8
    assert found["after"]["ece"] < found["before"]["ece"]
    assert "Only 28 mentions" in said and "cross-fitted" in said
    for name in columns:
        assert f"\n{name} " in said
    page = pipeline.parents[1] / "figures" / "d.html"
    assert page.read_text(encoding="utf-8").count("<svg") == 2
    assert f"wrote {page.with_suffix('.json')} and {page}" in said
    assert f"wrote {pipeline}, which decides with these weights" in said


def test_the_saved_pipeline_decides_as_reported(
    fitted: tuple[Path, dict[str, Any], str], trained: Path, dev: Path, tmp_path: Path
) -> None:
    pipeline, found, _ = fitted
    nlp = spacy.load(pipeline)
    decision = linker(nlp).decision
    assert decision is not None
    assert (decision.weights, decision.nil) == (found["decision"]["weights"], found["decision"]["nil"])
    assert decision.nil is not None
    # fitted anew it says of what it has how it decides now
    done = call("fit-decision", pipeline, dev, "-r", tmp_path / "again.json", "-q")
    assert done.exit_code == 0, done.output
    again = json.loads((tmp_path / "again.json").read_text())
    linked = [pair for pair in answers(pipeline, dev) if pair[0] not in ("", "Q_not_in_the_kb")]
    right = sum(is_right(*pair) for pair in linked)
    assert right / len(linked) == again["before"]["accuracy_with_nil"] > 0.9
    assert again["decision"]["weights"] == pytest.approx(found["decision"]["weights"], abs=1e-3)
    nil = [answer for gold, answer in linked if gold == "NIL"]
    assert nil.count("NIL") / NIL == again["before"]["nil"]["r"]
    # and so do the scores
    assert call("evaluate", pipeline, dev, "-o", tmp_path / "m.json", "-q").exit_code == 0
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["accuracy"] == again["before"]["accuracy"]
    assert {key: metrics["nil"][key] for key in "prf"} == {key: again["before"]["nil"][key] for key in "prf"}


def test_the_rest_of_the_pipeline_is_as_it_was(fitted: tuple[Path, dict[str, Any], str], trained: Path) -> None:
    pipeline, _, _ = fitted
    before, after = bytes_of(trained), bytes_of(pipeline)
    assert set(after) == set(before)
    changed = {name for name in before if before[name] != after[name]}
    assert (
        f"{LINKER}/decision" in changed <= {"config.cfg", *(f"{LINKER}/{name}" for name in ("cfg", "decision", "sums"))}
    )
    assert [path.name for path in pipeline.parent.iterdir()] == ["pipeline"]


def test_without_a_folder_nothing_changes(trained: Path, dev: Path) -> None:
    before = bytes_of(trained)
    done = call("fit-decision", trained, dev, "-q", "--limit", 12)
    assert done.exit_code == 0, done.output
    assert "12 mentions in 6 docs" in done.stdout
    assert "the pipeline is unchanged: name a folder" in done.stdout
    assert bytes_of(trained) == before


def test_a_decision_takes_the_place_of_prior_weight_and_threshold(
    trained: Path, dev: Path, models: Path, tmp_path: Path
) -> None:
    config = {"beam_size": 2, "n_candidates": 2, "prior_weight": 0.5, "threshold": 0.3}
    make_pipeline(models, make_kb(tmp_path, models), **config).to_disk(tmp_path / "older")
    assert call("fit-decision", tmp_path / "older", dev, tmp_path / "fitted", "-q").exit_code == 0
    nlp = spacy.load(tmp_path / "fitted")
    assert (linker(nlp).settings.prior_weight, linker(nlp).settings.threshold) == (0.0, None)
    block = Config().from_disk(tmp_path / "fitted" / "config.cfg", interpolate=False)["components"][LINKER]
    assert (block["prior_weight"], block["threshold"]) == (0.0, None)
    with pytest.raises(ValueError, match=r"prior_weight = 0\.5 has no place beside a fitted decision"):
        spacy.load(tmp_path / "fitted", config={f"components.{LINKER}.prior_weight": 0.5})


def test_a_feature_that_is_left_out_of_the_config(trained: Path, dev: Path, models: Path, tmp_path: Path) -> None:
    nlp = make_pipeline(models, make_kb(tmp_path, models), features={"name_share": None, "picture": None})
    nlp.to_disk(tmp_path / "pipeline")
    done = call("fit-decision", tmp_path / "pipeline", dev, tmp_path / "out", "-r", tmp_path / "d.json", "-q")
    assert done.exit_code == 0, done.output
    weights = json.loads((tmp_path / "d.json").read_text())["decision"]["weights"]
    assert not {"name_share", "pictured", "picture"} & set(weights)
    assert {"score", "tokens", "is_name"} <= set(weights)
    with pytest.raises(
        ValueError, match=r"the decision weighs hair, which no feature of \[components\.gemel_linker\.f"
    ):
        save_changed(spacy.load(tmp_path / "pipeline"), {}, tmp_path / "no", Decision({"hair": 1.0}))
    assert not (tmp_path / "no").exists()
    with pytest.raises(
        ValueError, match=r"the decision weighs .*is_name.*: name them there as when it was fitted, or run"
    ):
        spacy.load(tmp_path / "out", config={f"components.{LINKER}.features.surface": None})


def test_training_data_are_noticed(trained: Path, tmp_path: Path) -> None:
    """The docs that a pipe shows as demonstrations, whatever the file is called; a few shared with dev are usual."""
    nlp = spacy.load(trained)
    shown = [make_doc(nlp, one.text, one.mention, one.kb_id) for one in linker(nlp).store]
    other = [
        make_doc(nlp, f"{doc.text} Again, {n}.", doc.ents[0].text, doc.ents[0].kb_id_)
        for n in range(9)
        for doc in shown[:5]
    ]
    for name, docs in (("train", shown), ("dev", [*other, shown[0]])):
        DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / f"{name}.spacy")
        done = call("fit-decision", trained, tmp_path / f"{name}.spacy", "-q", "-r", tmp_path / f"{name}.json")
        assert done.exit_code == 0, done.output
        said = f"{len(shown)} of the {len(docs)} mentions are, in the same text, among the pipe's demonstrations"
        notes = json.loads((tmp_path / f"{name}.json").read_text())["notes"]
        assert [note.startswith(said) for note in notes if "demonstrations" in note] == [True] * (name == "train")
        assert (said in done.stdout) == (name == "train")


def test_golds_outside_the_knowledge_base(trained: Path, dev: Path, tmp_path: Path) -> None:
    for options, number in (((), N + NIL), (("--missing-as-nil",), N + NIL + 1)):
        assert call("fit-decision", trained, dev, "-r", tmp_path / "d.json", "-q", *options).exit_code == 0
        found = json.loads((tmp_path / "d.json").read_text())
        assert (found["mentions"]["n"], found["mentions"]["nil"]) == (number, number - N)
        assert found["settings"]["missing_as_nil"] == bool(options)


def test_no_nil_one_doc_and_no_mention(trained: Path, dev: Path, tmp_path: Path) -> None:
    docs = docs_of(spacy.blank("en"))
    DocBin(docs=docs[:1], store_user_data=True).to_disk(tmp_path / "one.spacy")
    done = call("fit-decision", trained, tmp_path / "one.spacy", tmp_path / "out", "-q", "-r", tmp_path / "d.json")
    assert done.exit_code == 0, done.output
    assert "There is only one doc" in done.stdout and "No gold is NIL, so NIL is no alternative" in done.stdout
    assert json.loads((tmp_path / "d.json").read_text())["after"] is None
    decision = linker(spacy.load(tmp_path / "out")).decision
    assert decision is not None and decision.nil is None
    DocBin(docs=docs[N + NIL :], store_user_data=True).to_disk(tmp_path / "none.spacy")
    done = call("fit-decision", trained, tmp_path / "none.spacy", tmp_path / "s", "-q")
    failed_last(done, "not one mention with a gold entity of the knowledge base in 2 docs")
    DocBin(docs=docs[N : N + NIL], store_user_data=True).to_disk(tmp_path / "nil.spacy")
    done = call("fit-decision", trained, tmp_path / "nil.spacy", tmp_path / "s", "-q")
    failed_last(done, "no mention has its gold entity among its candidates, so there is nothing to fit on")
    assert not (tmp_path / "s").exists()


def test_docs_without_mentions_in_a_batch_of_their_own(trained: Path, dev: Path, tmp_path: Path) -> None:
    docs = [doc for doc in docs_of(spacy.blank("en"))[:8] for doc in (doc, Doc(doc.vocab, ["Nothing"]))]
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "dev.spacy")
    done = call("fit-decision", trained, tmp_path / "dev.spacy", "-q", "--batch-size", 1)
    assert done.exit_code == 0, done.output
    assert "8 mentions in 4 docs" in done.stdout


def test_behind_a_ner(trained: Path, dev: Path, tmp_path: Path) -> None:
    """The gold mentions count, not those of a NER."""
    nlp = spacy.load(trained)
    ruler: Any = nlp.add_pipe("entity_ruler", before=LINKER)
    ruler.add_patterns([{"label": "ENT", "pattern": "number"}])
    nlp.to_disk(tmp_path / "ruled")
    done = call("fit-decision", tmp_path / "ruled", dev, tmp_path / "out", "-q")
    assert done.exit_code == 0, done.output
    assert f"{N + NIL} mentions in" in done.stdout
    assert spacy.load(tmp_path / "out").pipe_names == ["entity_ruler", LINKER]


def test_what_is_wrong_is_said_before_the_work(
    trained: Path, dev: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded a pipeline")

    monkeypatch.setattr("spacy_gemel.pipeline.loaded_pipeline.load_pipeline", never)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    failed_last(call("fit-decision", trained, dev, tmp_path / "full"), "there is something already; name a new folder")
    failed_last(call("fit-decision", trained, dev, trained / "inside"), "lies in the pipeline's own folder")
    failed_last(call("fit-decision", trained, dev, tmp_path / "x", "-r", "r.txt"), "must end in .json")
    failed_last(call("fit-decision", trained, tmp_path / "gone.spacy"), "no such file or folder")


def test_a_copy_that_fails_leaves_nothing(
    trained: Path, dev: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spacy_gemel.utils.files.link_file", full)
    failed_last(call("fit-decision", trained, dev, tmp_path / "saved", "-q", "--limit", 8), "No space left")
    assert list(tmp_path.iterdir()) == []
