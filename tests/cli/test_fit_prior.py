"""`fit-prior` as a user calls it, on a small trained pipeline, and the pipeline that it leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from thinc.api import fix_random_seed

from spacy_gemel.evaluation import prior_weight
from spacy_gemel.evaluation.prior_weight import GRID, WAYS
from spacy_gemel.pipeline.loaded_pipeline import save_changed
from spacy_gemel.utils.files import files_in
from tests.commands import call, failed_last
from tests.mini_pipeline import make_doc, make_kb, make_pipeline, picture
from tests.tiny import NAMES

N = 20


@pytest.fixture(scope="module")
def trained(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline whose language model knows nothing; not changed by the tests."""
    folder = tmp_path_factory.mktemp("trained")
    fix_random_seed(0)
    make_pipeline(models, make_kb(folder, models), beam_size=2, n_candidates=2).to_disk(folder / "pipeline")
    return folder / "pipeline"


def docs_of(nlp: Language, count: int = N) -> list[Doc]:
    """Mentions that are names of the knowledge base, two more without a usable gold, and one nobody has heard of."""
    docs = []
    for index in range(count):
        name = NAMES[4 + index % 7]
        kb_id = name.replace(" ", "_")
        gold = kb_id if index % 2 else f"https://en.wikipedia.org/wiki/{kb_id}"
        docs.append(make_doc(nlp, f"Here is {name}, number {index}.", name, gold, picture(name, index)))
    docs.append(make_doc(nlp, "Nobody has heard of this.", "Nobody", "NIL"))
    docs.append(make_doc(nlp, "Here is Java.", "Java", "Q_not_in_the_kb"))
    docs.append(make_doc(nlp, "A photo of something.", "something", "Jaguar"))
    for index, doc in enumerate(docs):
        doc.user_data["id"] = f"d{index // 2}"  # two docs of one id are one in the folds
    return docs


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dev") / "dev.spacy"
    DocBin(docs=docs_of(spacy.blank("en")), store_user_data=True).to_disk(path)
    return path


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_in(folder)}


def test_a_saved_pipeline_links_with_the_fitted_weight(trained: Path, dev: Path, tmp_path: Path) -> None:
    before = bytes_of(trained)
    output = tmp_path / "made" / "with-prior"
    done = call("fit-prior", trained, dev, output, "-q", "--batch-size", 3)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "made" / "with-prior.json").read_text())
    weight = found["prior_weight"]
    assert weight in GRID
    assert weight > 0 == found["before"]
    assert (found["mentions"], found["with_evidence"], found["docs"]) == (N + 1, N, 12 - 1)
    crossed = found["cross_validated"]
    assert [crossed[way]["n"] for way in WAYS] == [N + 1] * len(WAYS)
    assert crossed["prior"]["accuracy"] == N / (N + 1)  # all but the mention it does not know
    assert crossed["model"]["accuracy"] < crossed["both"]["accuracy"]
    assert crossed["both_minus_model"]["low"] > 0
    assert len(crossed["weights"]) == 5
    assert "both - model alone" in done.stdout
    assert f"prior_weight 0 -> {weight:g}" in done.stdout
    # the rest is as it was
    after = bytes_of(output)
    assert bytes_of(trained) == before
    assert set(after) == set(before)
    assert {name for name in before if before[name] != after[name]} <= {"config.cfg", "gemel_linker/cfg"}
    nlp = spacy.load(output)
    assert nlp.config["components"]["gemel_linker"]["prior_weight"] == weight
    # and what it answers is what was measured
    right = 0
    for gold in docs_of(nlp)[:N]:
        doc = gold.copy()
        doc.set_ents([Span(doc, ent.start, ent.end, label="ENT") for ent in gold.ents])
        right += nlp(doc).ents[0].kb_id_ == gold.ents[0].text.replace(" ", "_")
    on_all = {point["weight"]: point["accuracy"] for point in found["on_all"]}
    assert right / (N + 1) == pytest.approx(on_all[weight])


def test_the_weight_that_a_pipe_has_does_not_matter(trained: Path, dev: Path, tmp_path: Path) -> None:
    assert call("fit-prior", trained, dev, tmp_path / "once", "-q").exit_code == 0
    done = call("fit-prior", tmp_path / "once", dev, tmp_path / "twice", "-q", "--report", tmp_path / "r.json")
    assert done.exit_code == 0, done.output
    first, second = json.loads((tmp_path / "once.json").read_text()), json.loads((tmp_path / "r.json").read_text())
    assert second["before"] == first["prior_weight"] == second["prior_weight"]
    assert second["cross_validated"] == first["cross_validated"]
    assert not (tmp_path / "twice.json").exists()


def test_training_data_are_noticed(trained: Path, dev: Path, tmp_path: Path) -> None:
    """The docs that a pipe shows as demonstrations, whatever the file is called; a few shared with dev are usual."""
    nlp = spacy.load(trained)
    pipe: Any = nlp.get_pipe("gemel_linker")
    shown = [make_doc(nlp, one.text, one.mention, one.kb_id) for one in pipe.store]
    other = [
        make_doc(nlp, f"{doc.text} Again, {n}.", doc.ents[0].text, doc.ents[0].kb_id_)
        for n in range(9)
        for doc in shown
    ]
    for name, docs, found in (("train", shown, len(shown)), ("dev", [*other, shown[0]], 1)):
        DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / f"{name}.spacy")
        done = call("fit-prior", trained, tmp_path / f"{name}.spacy", tmp_path / name, "-q")
        assert done.exit_code == 0, done.output
        report = json.loads((tmp_path / f"{name}.json").read_text())
        assert (report["mentions"], report["demonstrations"]) == (len(docs), found)
        said = f"{found} of the {len(docs)} mentions are, in the same text, among the pipe's demonstrations"
        assert [note.startswith(said) for note in report["notes"] if "demonstrations" in note] == [True] * (
            name == "train"
        )
        assert (said in done.stdout) == (name == "train")


def test_behind_a_ner_and_with_labels_that_are_discarded(trained: Path, dev: Path, tmp_path: Path) -> None:
    """The gold mentions count; those that the pipe does not look at are answered by nobody."""
    nlp = spacy.load(trained)
    nlp.add_pipe("entity_ruler", before="gemel_linker").add_patterns(  # type: ignore[attr-defined]
        [{"label": "ENT", "pattern": "number"}]
    )
    cases = prior_weight.collect_cases(nlp, dev, progress=False)
    assert len(cases) == N + 1
    assert all(case.candidates for case in cases)
    assert cases[-1].by_prior == "NIL" != cases[-1].by_model()
    pipe: Any = nlp.get_pipe("gemel_linker")
    pipe.configure(labels_discard=("ENT",))
    cases = prior_weight.collect_cases(nlp, dev, progress=False)
    assert {case.by_both(1.0) for case in cases} == {case.by_prior for case in cases} == {"NIL"}


def test_one_doc_and_a_calibrated_pipe_are_said(trained: Path, dev: Path, tmp_path: Path) -> None:
    nlp = spacy.load(trained)
    save_changed(nlp, {"temperature": 0.5, "threshold": 0.25}, tmp_path / "calibrated")
    DocBin(docs=docs_of(nlp)[:1], store_user_data=True).to_disk(tmp_path / "one.spacy")
    done = call("fit-prior", tmp_path / "calibrated", tmp_path / "one.spacy", tmp_path / "out", "-q")
    assert done.exit_code == 0, done.output
    assert "There is only one doc" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["cross_validated"] is None
    assert call("fit-prior", tmp_path / "calibrated", dev, tmp_path / "o", "-q").stdout.count("run calibrate") == 1
    pipe: Any = spacy.load(tmp_path / "o").get_pipe("gemel_linker")
    assert (pipe.settings.temperature, pipe.settings.threshold) == (0.5, 0.25)


def test_what_is_wrong_is_said(trained: Path, dev: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = spacy.blank("en")
    DocBin(docs=docs_of(nlp)[N : N + 2]).to_disk(tmp_path / "none.spacy")
    failed_last(
        call("fit-prior", trained, tmp_path / "none.spacy", tmp_path / "x", "-q"), "not one mention with a gold"
    )
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.json").exists()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded a pipeline")

    monkeypatch.setattr("spacy_gemel.pipeline.loaded_pipeline.load_pipeline", never)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    failed_last(call("fit-prior", trained, dev, tmp_path / "full"), "there is something already")
    failed_last(call("fit-prior", trained, dev, trained / "inside"), "lies in the pipeline's own folder")
    failed_last(call("fit-prior", trained, dev, tmp_path / "x", "-r", "r.txt"), "must end in .json")
    failed_last(call("fit-prior", trained, tmp_path / "gone.spacy", tmp_path / "x"), "no such file or folder")
