"""Links in a saved pipe: what they lead to is neither read nor copied, and nothing is written or deleted there."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.language import Language

from spacy_gemel.kb.entity import KBError
from spacy_gemel.models.frozen import link_snapshot
from spacy_gemel.utils.files import files_in, pack_folder
from tests.mini_pipeline import linker, make_kb, make_pipeline

SECRET = "the key is 1234"


@pytest.fixture
def bundled(models: Path, kb: Path, tmp_path: Path) -> Path:
    """A pipeline with bundled models, as a stranger may send it."""
    make_pipeline(models, kb, bundle_models=True).to_disk(tmp_path / "stranger")
    return tmp_path / "stranger" / "gemel_linker"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "secret.txt").write_text(SECRET, encoding="utf8")
    return folder


LINKS: dict[str, Callable[[Path, Path], None]] = {
    "a file": lambda model, secret: (model / "vocab.txt").symlink_to(secret / "secret.txt"),
    "a relative link": lambda model, secret: (model / "x.json").symlink_to("../../../../home/secret.txt"),
    "a folder": lambda model, secret: (model / "more").symlink_to(secret),
    "a link to a link": lambda model, secret: (
        (model / "a.txt").symlink_to(model / "b.txt"),
        (model / "b.txt").symlink_to(secret / "secret.txt"),
    )[0],
}


@pytest.mark.parametrize("kind", LINKS)
def test_what_a_link_leads_to_is_not_saved(kind: str, bundled: Path, secret: Path, tmp_path: Path) -> None:
    LINKS[kind](bundled / "models" / "language_model", secret)
    nlp = spacy.load(bundled.parent)
    assert SECRET.encode() not in nlp.to_bytes()
    nlp.to_disk(tmp_path / "own")
    names = files_in(tmp_path / "own")
    assert "gemel_linker/models/language_model/model.safetensors" in names
    assert not [path for path in (tmp_path / "own").rglob("*") if path.is_symlink()]
    assert SECRET.encode() not in b"".join((tmp_path / "own" / name).read_bytes() for name in names)
    assert os.stat(secret / "secret.txt").st_nlink == 1  # noqa: PTH116
    spacy.load(tmp_path / "own")


@pytest.mark.parametrize("part", ["models/language_model/model.safetensors", "kb/counts.npy"])
def test_what_is_needed_must_lie_there(part: str, bundled: Path, secret: Path, tmp_path: Path) -> None:
    shutil.move(bundled / part, secret / "moved")
    (bundled / part).symlink_to(secret / "moved")
    with pytest.raises((ValueError, KBError), match="leads out of its folder"):
        spacy.load(bundled.parent).to_disk(tmp_path / "own")
    with pytest.raises(FileNotFoundError, match="leads out of its folder"):
        pack_folder((bundled / part).parent, [(bundled / part).name])


def test_a_snapshot_of_the_hub_is_all_links(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--a--b"
    snapshot = repository / "snapshots" / "abc"
    shutil.copytree(models / "language_model", repository / "blobs")
    snapshot.mkdir(parents=True)
    for file in (repository / "blobs").iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    link_snapshot("a/b", tmp_path / "bundle")
    assert files_in(tmp_path / "bundle") == files_in(models / "language_model") == files_in(snapshot)


# What is in the way of a save


def notes(folder: Path) -> list[Path]:
    paths = [folder / "kb" / "notes.txt", folder / "models" / "language_model" / "notes.md", folder / "models" / "mine"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine", encoding="utf8")
    return paths


def test_a_save_deletes_only_what_an_earlier_one_wrote(models: Path, kb: Path, bundled: Path, tmp_path: Path) -> None:
    mine = notes(bundled)
    shutil.copytree(models, tmp_path / "models")
    (tmp_path / "models" / "language_model" / "extra.json").write_text("{}", encoding="utf8")
    make_pipeline(tmp_path / "models", kb, bundle_models=True).to_disk(bundled.parent)
    assert (bundled / "models" / "language_model" / "extra.json").exists()
    make_pipeline(models, kb, bundle_models=True).to_disk(bundled.parent)
    assert not (bundled / "models" / "language_model" / "extra.json").exists()  # an earlier save wrote it
    assert all(path.read_text(encoding="utf8") == "mine" for path in mine)
    spacy.load(bundled.parent)


def test_a_list_cannot_name_what_lies_elsewhere(models: Path, kb: Path, bundled: Path, tmp_path: Path) -> None:
    marker = bundled / "models" / "language_model" / "bundle.json"
    (tmp_path / "mine").write_text("mine", encoding="utf8")
    listed = f'"files": {{"../../../../mine": {{}}, "{tmp_path / "mine"}": {{}}, "3": 4}}'
    marker.write_text(f"{marker.read_text(encoding='utf8').rstrip()[:-1]}, {listed}}}", encoding="utf8")
    make_pipeline(models, kb, bundle_models=True).to_disk(bundled.parent)
    assert (tmp_path / "mine").exists()
    for listed in ("7", '{"bytes": 7}', '{"sha256": 7}'):
        content = json.loads(marker.read_text(encoding="utf8")) | {"files": {"config.json": json.loads(listed)}}
        marker.write_text(json.dumps(content), encoding="utf8")
        with pytest.raises(ValueError, match="'models' of the saved pipe is not what was saved with its other parts"):
            spacy.load(bundled.parent)
    for damaged in ("[3", "7", '{"files": [3]}'):
        marker.write_text(damaged, encoding="utf8")
        with pytest.raises(ValueError, match=r"bundle\.json is damaged"):
            spacy.load(bundled.parent)


@pytest.mark.parametrize("bundle_models", [True, False])
@pytest.mark.parametrize("linked", ["kb", "models", "models/language_model"])
def test_nothing_is_touched_through_a_link(
    linked: str, bundle_models: bool, models: Path, bundled: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(bundled / linked, elsewhere)
    (bundled / linked).symlink_to(elsewhere)
    before = {name: (elsewhere / name).read_bytes() for name in files_in(elsewhere)}
    (tmp_path / "few").mkdir()
    few = make_kb(tmp_path / "few", models, [{"id": "Mercury", "name": "Mercury"}, {"id": "Java", "name": "Java"}])
    shutil.copytree(models, tmp_path / "models")
    (tmp_path / "models" / "language_model" / "extra.json").write_text("{}", encoding="utf8")
    nlp: Language = make_pipeline(models, few.parent / few.name, bundle_models=bundle_models)
    nlp.to_disk(bundled.parent)
    assert {name: (elsewhere / name).read_bytes() for name in files_in(elsewhere)} == before
    assert len(linker(spacy.load(bundled.parent)).kb) == 2


def test_a_pipeline_whose_models_lie_elsewhere_is_saved_in_its_place(bundled: Path, tmp_path: Path) -> None:
    shutil.move(bundled / "models", tmp_path / "elsewhere")
    (bundled / "models").symlink_to(tmp_path / "elsewhere")
    nlp = spacy.load(bundled.parent)
    nlp.to_disk(bundled.parent)
    assert (bundled / "models").is_symlink()
    spacy.load(bundled.parent)
