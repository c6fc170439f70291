"""A pipeline as a wheel, and spacy-gemel itself as sdist and wheel, installed where nothing else of ours is."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution, distributions
from pathlib import Path
from typing import Any

import pytest
import spacy
from PIL import Image
from spacy.cli.package import generate_readme
from spacy.language import Language
from spacy.schemas import ModelMetaSchema, validate
from spacy.tokens import DocBin
from typer.testing import CliRunner

from spacy_gemel.__main__ import app
from spacy_gemel.cli.model_card import METRICS_KEYS, machine_paths, make_meta, missing_models
from spacy_gemel.evaluation.results import read_metrics, write_evaluation
from spacy_gemel.evaluation.runner import EvaluateOptions, evaluate
from spacy_gemel.linking.decision import Decision
from spacy_gemel.linking.settings import config_names
from tests.mini_pipeline import examples, make_doc, make_kb, make_pipeline, picture

ROOT = Path(__file__).parent.parent
TEXT = "A photo of Mercury number 3."
LINK = """
import json, sys, spacy
nlp = spacy.load("en_gemel_mini")
doc = nlp.make_doc(sys.argv[1])
doc.ents, doc.user_data["image"] = [doc.char_span(11, 18, label="ENT")], sys.argv[2]
rows = [[c.kb_id, c.score] for c in nlp(doc).ents[0]._.gemel_candidates]
import spacy_gemel
print(json.dumps([spacy_gemel.__file__, nlp.meta, rows]))
"""


def part(n: int, accuracy: float | None) -> dict[str, Any]:
    between = {"low": None, "high": None} if accuracy is None else {"low": accuracy - 0.125, "high": accuracy + 0.125}
    return {"n": n, "accuracy": accuracy, **between}


def metrics(**settings: Any) -> dict[str, Any]:
    settings = {
        "use_image": True,
        "constrained": True,
        "n_demonstrations": 3,
        "data": "/home/me/test.spacy",
        **settings,
    }
    parts = {"common": part(30, 0.75), "tail": part(10, 0.5), "seen": part(40, 0.625), "unseen": part(0, None)}
    images = {"with_image": part(40, 0.625), "without_image": part(0, None)}
    return {"settings": settings, **part(40, 0.625), **parts, **images}


@pytest.fixture(scope="module")
def project(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, knowledge base and a bundled pipeline, all named relative to it."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(models, folder / "models")
    (folder / "training").mkdir()
    make_kb(folder, folder / "models")
    here = Path.cwd()
    os.chdir(folder)
    try:
        nlp = make_pipeline(Path("models"), Path("kb"), bundle_models=True)
        optimizer = nlp.create_optimizer()
        for _ in range(5):
            nlp.update(examples(nlp), sgd=optimizer, losses={})
        nlp.meta["performance"] = {"nel_micro_f": 0.5, "gemel_linker_loss": 212.0}
        nlp.to_disk("training/model-best")
    finally:
        os.chdir(here)
    (folder / "metrics").mkdir()
    (folder / "metrics" / "full.json").write_text(json.dumps(metrics()))
    return folder


@pytest.fixture(scope="module")
def nlp(project: Path) -> Language:
    return spacy.load(project / "training" / "model-best")


def test_the_readme_says_what_it_was_made_from_and_how_good_it_is(nlp: Language) -> None:
    info = {"name": "tiny", "version": "1.2.3", "license": "MIT"}
    meta = make_meta(nlp, info, metrics(), sources=("Three colours <https://example.org/c>", "Grey"))
    assert not validate(ModelMetaSchema, meta)
    assert meta["name"] == "tiny"
    assert meta["sources"][:2] == [{"name": "Three colours", "url": "https://example.org/c"}, {"name": "Grey"}]
    readme = generate_readme(meta)
    for said in (
        "16 entities",  # the knowledge base
        "18 mentions of 3 entities",  # the training examples
        "[Three colours](https://example.org/c)",
        "Language model: models/language_model (LlamaForCausalLM), sha256 ",
        "| Vision encoder | models/vision_encoder | sha256 ",
        "`TEST_ACCURACY` | 62.50",
        "`NEL_MICRO_F` | 50.00",
        "| tail | 10 | 50.0 | 37.5 to 62.5 |",
        "on test.spacy",
        'spacy.load("en_tiny")',
        "`MIT`",
    ):
        assert said in readme, said
    assert "unseen |" not in readme  # nothing was measured there
    assert "LOSS" not in readme  # it would stand there times 100, among the percentages
    assert "/home/me" not in json.dumps(meta)


def test_the_use_that_the_readme_shows_runs(nlp: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = make_meta(nlp, {})
    [code] = re.findall(r"```python\n(.*?)```", meta["notes"], re.DOTALL)
    Image.fromarray(picture("Mercury")).save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(spacy, "load", lambda name: nlp)
    names: dict[str, Any] = {}
    exec(code, names)
    assert [ent.text for ent in names["doc"].ents] == ["Mercury"]
    assert names["doc"].ents[0].kb_id_


def test_what_was_said_before_stays_and_what_is_said_now_counts(nlp: Language) -> None:
    meta = make_meta(nlp, {"author": "A", "description": "Links."})
    assert (meta["author"], meta["description"], meta["name"]) == ("A", "Links.", nlp.meta["name"])
    assert "test_accuracy" not in meta["performance"]
    assert meta["performance"]["nel_micro_f"] == 0.5


@pytest.mark.parametrize(
    "ablation",
    [
        {"use_image": False},
        {"constrained": False},
        {"n_demonstrations": 0},
        {"threshold": 0.5},
        {"prior_weight": 0.25},
        {"context": "sentence"},
        {"max_name_tokens": 4},
        {"beam_size": 1},
        {"labels_discard": ["DATE"]},
        {"prefix_length": 9},
        {"retriever": "spacy_gemel.BM25Retriever.v1"},
    ],
)
def test_scores_of_an_ablation_are_refused(nlp: Language, ablation: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"measured with {next(iter(ablation))} = "):
        make_meta(nlp, {}, metrics(**ablation))


def test_scores_of_another_threshold_are_refused(nlp: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = nlp.get_pipe("gemel_linker")
    monkeypatch.setattr(pipe, "_settings", pipe.settings)  # put back after the test
    pipe.configure(threshold=0.25)
    with pytest.raises(ValueError, match=r"measured with threshold = null, the pipeline has 0\.25"):
        make_meta(nlp, {}, metrics(threshold=None))
    make_meta(nlp, {}, metrics(threshold=0.25))


def test_scores_of_another_decision_are_refused(nlp: Language, tmp_path: Path) -> None:
    pipe: Any = nlp.get_pipe("gemel_linker")
    DocBin(docs=[eg.reference for eg in examples(nlp)[:2]], store_user_data=True).to_disk(tmp_path / "dev.spacy")

    def measured(decision: Decision | None) -> dict[str, Any]:
        pipe.use_decision(decision)
        return evaluate(nlp, tmp_path / "dev.spacy", EvaluateOptions(progress=False))[0]

    try:
        plain, decided, other = (measured(each) for each in (None, Decision({"score": 2.0}), Decision({"score": 1.0})))
        assert "test_accuracy" in make_meta(nlp, {}, other)["performance"]
        for wrong in (plain, decided):
            with pytest.raises(ValueError, match=r"measured with decision = .*, the pipeline has "):
                make_meta(nlp, {}, wrong)
    finally:
        pipe.use_decision(None)
    assert "test_accuracy" in make_meta(nlp, {}, plain)["performance"]


def test_what_changes_no_answer_may_be_another(nlp: Language) -> None:
    for message in ({"batch_tokens": 1}, {"window": 3}, {"n_training_demonstrations": 1}, {"language_model": "/moved"}):
        make_meta(nlp, {}, metrics(**message))


@pytest.mark.parametrize("key", ["baseline", "peer"])  # the second one of earlier versions
def test_scores_of_a_baseline_are_refused(nlp: Language, key: str) -> None:
    with pytest.raises(ValueError, match="those of a baseline, alias"):
        make_meta(nlp, {}, metrics(**{key: "alias"}, use_image=True))


def test_what_evaluate_writes_of_a_pipeline_is_taken(
    nlp: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all of its settings, and with those that a run was given for its time."""
    pipe: Any = nlp.get_pipe("gemel_linker")
    monkeypatch.setattr(pipe, "_settings", pipe.settings)  # put back after the test
    pipe.configure(labels_discard=("DATE",))
    pipe.configure(threshold=0.1)
    DocBin(docs=[eg.reference for eg in examples(nlp)[:2]], store_user_data=True).to_disk(tmp_path / "dev.spacy")
    for options in (EvaluateOptions(progress=False), EvaluateOptions(progress=False, n_demonstrations=1)):
        written, results = evaluate(nlp, tmp_path / "dev.spacy", options)
        write_evaluation(written, results, tmp_path / f"{options.n_demonstrations}.json")
    measured = read_metrics(tmp_path / "None.json", METRICS_KEYS)
    assert {*config_names()} <= set(measured["settings"])
    assert "test_accuracy" in make_meta(nlp, {}, measured)["performance"]
    with pytest.raises(ValueError, match="measured with n_demonstrations = 1, the pipeline has 3"):
        make_meta(nlp, {}, read_metrics(tmp_path / "1.json", METRICS_KEYS))
    pipe.configure(prior_weight=0.2)
    with pytest.raises(ValueError, match=r"measured with prior_weight = 0\.0, the pipeline has 0\.2"):
        make_meta(nlp, {}, measured)


@pytest.mark.parametrize("content", ["", "[]", '{"accuracy": 1}', '"n"'])
def test_what_is_no_metrics_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(ValueError, match=r"m\.json: not a file that evaluate writes"):
        read_metrics(tmp_path / "m.json", METRICS_KEYS)


def test_describe_writes_the_meta_that_spacy_package_takes(project: Path, tmp_path: Path) -> None:
    pipeline, out = project / "training" / "model-best", tmp_path / "new" / "meta.json"
    arguments = [
        "describe",
        str(pipeline),
        str(out),
        "--metrics",
        str(project / "metrics" / "full.json"),
        "--name",
        "tiny",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "warning" not in done.output
    assert json.loads(out.read_text())["performance"]["test_accuracy_tail"] == 0.5
    for wrong, says in (
        ([str(tmp_path / "gone"), str(out)], "no such folder"),
        ([str(tmp_path), str(out)], "no spaCy pipeline"),
        ([str(pipeline), str(out), "--metrics", str(tmp_path / "gone.json")], "gone.json"),
    ):
        done = CliRunner().invoke(app, ["describe", *wrong])
        assert done.exit_code == 1
        assert says in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_pipeline_that_cannot_travel_is_told(project: Path, models: Path, tmp_path: Path) -> None:
    """Models named by absolute folders, and not bundled: the package would neither work nor keep quiet."""
    nlp = make_pipeline(models, project / "kb")
    nlp.to_disk(tmp_path / "pipeline")
    assert missing_models(nlp) == [
        str(models / part) for part in ("language_model", "vision_encoder", "sentence_encoder")
    ]
    indices = machine_paths(tmp_path / "pipeline")
    assert any(index.startswith("config.cfg: components.gemel_linker.language_model.name = ") for index in indices)
    assert any(index.startswith("gemel_linker/cfg: found.language_model.folder = ") for index in indices)
    done = CliRunner().invoke(app, ["describe", str(tmp_path / "pipeline"), str(tmp_path / "meta.json")])
    assert done.exit_code == 0
    assert done.stderr.count("bundle_models = true") == 3
    assert done.stderr.count("a path of this machine") == len(indices)


def test_a_bundled_pipeline_names_no_folder_of_its_machine(project: Path) -> None:
    assert machine_paths(project / "training" / "model-best") == []


# Installed


def build_sdist(target: Path) -> Path:
    """Build spacy-gemel's sdist from a copy of the sources: what was built in the clone itself might get in."""
    source = target / "source"
    source.mkdir()
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, source)
    for name in ("spacy_gemel", "configs", "docs", "tests", "scripts", "benchmarks"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(target)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    [sdist] = target.glob("*.tar.gz")
    return sdist


def pip(*arguments: object) -> None:
    offline = {**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(command, env=offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def new_environment(folder: Path, *wheels: Path) -> Path:
    """A virtual environment with these wheels; all else it takes from this one. Its python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    # a line of a .pth file is no site folder of its own: an editable spacy-gemel there stays unseen
    (own / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    for wheel in wheels:
        pip("install", "--no-deps", "--target", own, wheel)
    return python


@pytest.mark.slow
def test_sdist_and_wheel_of_the_package(tmp_path: Path) -> None:
    sdist = build_sdist(tmp_path)
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "setup.py", "pyproject.toml", "configs/mini.cfg"} <= names
    assert not [name for name in names if name.startswith(("tests", "assets", "scripts", "benchmarks"))]
    assert sdist.stat().st_size < 1e6
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, sdist)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    own = {path for path in (ROOT / "spacy_gemel").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(ROOT).as_posix() for path in own} <= held
    assert {name.split("/")[0].partition("-")[0] for name in held} == {"spacy_gemel"}
    assert any(name.endswith("LICENSE") for name in held)


@pytest.mark.slow
def test_a_packaged_pipeline_links_where_nothing_else_is(
    project: Path, nlp: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With neither the network nor the folders that it was made in, and spacy-gemel from its wheel."""
    if not any(found.name in ("build", "wheel") for found in distributions()):
        pytest.skip("spacy package needs build")
    pip("wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, build_sdist(tmp_path))
    [own_wheel] = tmp_path.glob("*.whl")
    image = tmp_path / "picture.png"
    Image.fromarray(picture("Mercury", 9)).save(image)
    expected = nlp(make_doc(nlp, TEXT, "Mercury", image=str(image))).ents[0]._.gemel_candidates

    shutil.copytree(project, tmp_path / "building")
    monkeypatch.chdir(tmp_path / "building")
    shutil.copy(ROOT / "project.yml", ".")
    # no index: what `build` would have in an environment of its own, it then takes from here
    offline = {**os.environ, "PIP_NO_INDEX": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "spacy", "project", "run", "package"]
    packaged = subprocess.run(command, env=offline, capture_output=True, text=True)
    assert packaged.returncode == 0, packaged.stdout + packaged.stderr
    [wheel] = Path("packages").glob("*/dist/*.whl")
    wheel = wheel.rename(tmp_path / wheel.name)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree("building")
    moved = project.rename(project.with_name("gone"))
    try:
        with zipfile.ZipFile(wheel) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        for folder in (tmp_path, project, ROOT, Path.home(), Path(sys.prefix)):
            assert not [
                name for name, data in contents.items() if len(str(folder)) > 1 and str(folder).encode() in data
            ]
        [needs] = [data.decode() for name, data in contents.items() if name.endswith(".dist-info/METADATA")]
        own = distribution("spacy-gemel").version
        assert re.search(rf"^Requires-Dist: spacy-gemel<[\d.]+,>={re.escape(own)}$", needs, re.MULTILINE), needs
        assert re.search(r"^Requires-Dist: spacy<[\d.]+,>=3\.", needs, re.MULTILINE), needs
        assert "TEST_ACCURACY" in needs  # the README
        assert "16 entities" in needs
        assert "The mini world, drawn and written by" in needs

        python = new_environment(tmp_path / "venv", own_wheel, wheel)
        bare = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        bare |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "no-hub"), "HOME": str(tmp_path)}
        (tmp_path / "elsewhere").mkdir()
        done = subprocess.run(
            [python, "-c", LINK, TEXT, image], env=bare, cwd=tmp_path / "elsewhere", capture_output=True, text=True
        )
    finally:
        moved.rename(project)
    assert done.returncode == 0, done.stderr
    where, meta, rows = json.loads(done.stdout.splitlines()[-1])
    assert Path(where).is_relative_to(tmp_path / "venv")
    assert meta["performance"]["test_accuracy"] == 0.625
    assert meta["license"] == "MIT"
    assert [row[0] for row in rows] == [candidate.kb_id for candidate in expected]
    assert [row[1] for row in rows] == pytest.approx([candidate.score for candidate in expected], abs=1e-4)
