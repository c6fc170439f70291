"""What a pipe was loaded from has gone or changed when it is saved: said, never saved in part or wrongly."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
from safetensors.torch import load_file, save_file
from spacy.language import Language

from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.models.frozen import FrozenModel
from spacy_gemel.utils.files import files_in, link_folder
from tests.mini_pipeline import linker, make_kb, make_pipeline


@pytest.fixture(scope="module")
def nlp(models: Path, kb: Path) -> Language:
    return make_pipeline(models, kb)


@pytest.fixture
def saved(nlp: Language, tmp_path: Path) -> Path:
    nlp.to_disk(tmp_path / "saved")
    return tmp_path / "saved"


WAYS: dict[str, Callable[[Language, Path], object]] = {
    "the same folder": lambda nlp, saved: nlp.to_disk(saved),
    "another folder": lambda nlp, saved: nlp.to_disk(saved.with_name("other")),
    "bytes": lambda nlp, saved: nlp.to_bytes(),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_folder_was_deleted(saved: Path, way: str) -> None:
    loaded = spacy.load(saved)
    shutil.rmtree(saved)
    with pytest.raises(KBError, match=r"saved/gemel_linker/kb cannot be saved: it was deleted or damaged since"):
        WAYS[way](loaded, saved)
    for folder in (saved, saved.with_name("other")):
        assert not (folder / "gemel_linker").exists() or not list((folder / "gemel_linker").iterdir())


def test_a_file_was_deleted(saved: Path) -> None:
    loaded = spacy.load(saved)
    (saved / "gemel_linker" / "kb" / "counts.npy").unlink()
    with pytest.raises(KBError, match=r"cannot be saved: .*counts\.npy is missing"):
        loaded.to_disk(saved)


@pytest.mark.parametrize("way", WAYS)
def test_another_knowledge_base_took_its_place(saved: Path, models: Path, tmp_path: Path, way: str) -> None:
    loaded = spacy.load(saved)
    rows = [{"id": "Mercury", "name": "Mercury"}, {"id": "Q2", "name": "Mercury (planet)"}]
    (tmp_path / "few").mkdir()
    few = make_kb(tmp_path / "few", models, rows)
    link_folder(few, saved / "gemel_linker" / "kb", files_in(few))  # as another pipe does that is saved there
    with pytest.raises(KBError, match="cannot be saved: another one has taken its place since it was opened"):
        WAYS[way](loaded, saved)
    linker(loaded).to_bytes(exclude=["kb"])  # all else can be
    linker(loaded).set_kb(lambda vocab: KnowledgeBase.open(few))
    WAYS[way](loaded, saved)


def test_a_bundled_model_was_deleted(models: Path, kb: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(models, tmp_path / "models")
    make_pipeline(copy, kb, bundle_models=True).to_disk(tmp_path / "saved")
    shutil.rmtree(copy)
    loaded = spacy.load(tmp_path / "saved")
    bundled = tmp_path / "saved" / "gemel_linker" / "models"
    for name in files_in(bundled):
        (bundled / name).unlink()
    with pytest.raises(ValueError, match=r"The language model .* cannot be saved: .* holds none of its files"):
        loaded.to_disk(tmp_path / "saved")
    shutil.rmtree(bundled)
    with pytest.raises(ValueError, match=r"does not exist.*gemel_linker/models/language_model, from which it was"):
        loaded.to_disk(tmp_path / "saved")


def weights_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("model", "way"),
    [*(("language_model", way) for way in WAYS), ("vision_encoder", "bytes"), ("sentence_encoder", "another folder")],
)
def test_weights_that_were_not_loaded_are_never_bundled(
    models: Path, kb: Path, tmp_path: Path, model: str, way: str
) -> None:
    """The mapper was trained on others: made again in place, or of another size, they would not fit it."""
    copy = shutil.copytree(models, tmp_path / "models")
    nlp = make_pipeline(copy, kb, bundle_models=True)
    [file] = weights_in(copy / model)
    changed = {name: value * 0.5 for name, value in load_file(file).items()}
    file.unlink()
    save_file(changed, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"cannot be saved: .* no longer holds the model that was loaded"):
        WAYS[way](nlp, tmp_path / "saved")
    for folder in ("saved", "other"):  # spaCy's own part may be there, nothing of the linker's
        assert files_in(tmp_path / folder / "gemel_linker") == []
    linker(nlp).to_bytes(exclude=["models"])
    linker(nlp).bundle_models = False
    WAYS[way](nlp, tmp_path / "saved")


def test_saving_over_a_bundle_never_takes_its_weights_away(models: Path, kb: Path, tmp_path: Path) -> None:
    """They may be the last copy: a bundle's files are those of the model's folder, hard-linked."""
    copy = shutil.copytree(models, tmp_path / "models")
    nlp = make_pipeline(copy, kb, bundle_models=True)
    nlp.to_disk(tmp_path / "saved")
    before = files_in(tmp_path / "saved" / "gemel_linker" / "models")
    for file in weights_in(copy):  # config.json and the tokenizer stay
        file.unlink()
    with pytest.raises(ValueError, match=r"The language model .* no longer holds the model that was loaded"):
        nlp.to_disk(tmp_path / "saved")
    assert files_in(tmp_path / "saved" / "gemel_linker" / "models") == before
    assert any(name.endswith(".safetensors") for name in before)
    assert spacy.load(tmp_path / "saved").pipe_names == ["gemel_linker"]


def test_what_does_not_decide_a_model_may_change(models: Path, kb: Path, tmp_path: Path) -> None:
    """Nor what comes beside it, such as another run's log."""
    copy = shutil.copytree(models, tmp_path / "models")
    nlp = make_pipeline(copy, kb, bundle_models=True)
    for name in ("README.md", "log.txt", "run-1/metrics.json"):
        (copy / "language_model" / name).parent.mkdir(exist_ok=True)
        (copy / "language_model" / name).write_text("{}")
    nlp.to_disk(tmp_path / "saved")
    assert (tmp_path / "saved/gemel_linker/models/language_model/README.md").is_file()


def test_a_bundle_saved_over_without_hard_links_is_the_same_to_whom_has_loaded_it(
    models: Path, kb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another disk than the models: what is copied again is no other model."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    nlp = make_pipeline(models, kb, bundle_models=True)
    nlp.to_disk(tmp_path / "saved")
    loaded = spacy.load(tmp_path / "saved")
    nlp.to_disk(tmp_path / "saved")
    loaded.to_disk(tmp_path / "other")
    again = spacy.load(tmp_path / "saved")
    assert linker(again).linking_model.language_model is linker(loaded).linking_model.language_model


def test_a_model_that_would_be_taken_from_elsewhere_is_not_bundled(models: Path, kb: Path, tmp_path: Path) -> None:
    make_pipeline(models, kb, bundle_models=True).to_disk(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "saved", copy_function=shutil.copyfile)
    loaded = spacy.load(tmp_path / "saved")
    shutil.rmtree(tmp_path / "saved" / "gemel_linker" / "models")
    with pytest.raises(ValueError, match=r"saved/gemel_linker/models/.*, from which it was loaded, is gone, and"):
        loaded.to_disk(tmp_path / "other")


def test_a_bundled_model_of_a_hub_was_deleted(tmp_path: Path) -> None:
    frozen: FrozenModel[Any] = FrozenModel(
        "language model", "nowhere:load", "spacy_gemel.models.frozen:link_snapshot", "nobody/nothing", None, ()
    )
    with pytest.raises(ValueError, match=r"'nobody/nothing' cannot be saved: .*gone, from which it was loaded"):
        frozen.bundle(tmp_path / "target", tmp_path / "gone")


def test_a_file_that_is_not_there_is_never_taken_for_linked(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    for target in (tmp_path, tmp_path / "other"):
        with pytest.raises(FileNotFoundError, match=r"cannot be written: .*b is not there"):
            link_folder(tmp_path, target, ["a", "b"])
    assert not (tmp_path / "other").exists()


def test_an_earlier_bundle_in_the_folder_is_not_loaded_when_the_models_were_not_bundled(
    models: Path, kb: Path, tmp_path: Path
) -> None:
    """It may hold other weights than those of the folder that the config names."""
    copy = shutil.copytree(models, tmp_path / "models")
    make_pipeline(copy, kb, bundle_models=True).to_disk(tmp_path / "saved")
    [file] = weights_in(copy / "language_model")
    changed = {name: value * 0.5 for name, value in load_file(file).items()}
    file.unlink()
    save_file(changed, file, {"format": "pt"})
    nlp = make_pipeline(copy, kb)
    nlp.to_disk(tmp_path / "saved")
    again = spacy.load(tmp_path / "saved")
    assert linker(again).linking_model.language_model is linker(nlp).linking_model.language_model


def test_a_bundle_serves_on_after_the_pipe_was_saved_there_without_bundling(
    models: Path, kb: Path, tmp_path: Path
) -> None:
    """It may be the last copy of the models."""
    copy = shutil.copytree(models, tmp_path / "models")
    make_pipeline(copy, kb, bundle_models=True).to_disk(tmp_path / "saved")
    shutil.rmtree(copy)
    loaded = spacy.load(tmp_path / "saved")
    linker(loaded).bundle_models = False
    loaded.to_disk(tmp_path / "saved")
    again = spacy.load(tmp_path / "saved")
    assert linker(again).linking_model.language_model is linker(loaded).linking_model.language_model
