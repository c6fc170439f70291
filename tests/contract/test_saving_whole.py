"""A save that is cut off leaves the old pipe or the new one; a byte that has changed is never loaded silently."""

import errno
import itertools
import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.vocab import Vocab

from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.pipeline.serialization import read_folder
from spacy_gemel.utils import files
from tests import tiny
from tests.mini_pipeline import LINKER, add_linker, entity_id, example, linker, make_kb, make_pipeline, train
from tests.tiny import NAMES

VERIFY = {f"components.{LINKER}.verify": True}


class Killed(BaseException):
    """No Exception, as a kill is none."""


def state_of(pipe: GemelLinker) -> bytes:
    return pipe.to_bytes(exclude=["vocab", "cfg", "models"])


@pytest.fixture(scope="module")
def bundled(models: Path, kb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline with its models and an added entity."""
    nlp = make_pipeline(models, kb, bundle_models=True)
    train(nlp)
    linker(nlp).add_entity("new", "Venus")
    nlp.to_disk(tmp_path_factory.mktemp("bundled"))
    return tmp_path_factory.getbasetemp() / [*tmp_path_factory.getbasetemp().glob("bundled*")][-1].name


@pytest.mark.parametrize("at", range(16))
def test_a_save_that_is_cut_off(
    models: Path, kb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """At any of its writes and renames: mapper, demonstrations, decision and additions are all old, or all new."""
    nlp = make_pipeline(models, kb)
    pipe, folder = linker(nlp), tmp_path / LINKER
    pipe.to_disk(folder)
    old = state_of(pipe)
    train(nlp)
    pipe.add_entity("new", "Venus")
    pipe.add_demonstrations([example(nlp, "Here is Mercury.", "Mercury", "Mercury (planet)").reference])
    new, count, replace = state_of(pipe), 0, Path.replace

    def dying(path: Path, target: Any) -> Path:
        nonlocal count
        count += 1
        if count == at + 1:
            raise Killed
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", dying)
        pipe.to_disk(folder)
        raise Killed  # fewer renames than that
    other = add_linker(spacy.blank("en"), models)
    assert state_of(linker(other).from_disk(folder, exclude=["vocab"])) == (old if count <= 6 else new)
    pipe.to_disk(folder)  # and the next save goes through
    assert state_of(linker(add_linker(spacy.blank("en"), models)).from_disk(folder)) == new


def loaded(folder: Path) -> list[Any]:
    """What a saved pipe consists of, every byte of it verified."""
    state = read_folder(folder, Vocab(), ["vocab"], LINKER, verify=True)
    bundle = None if state.models_folder is None else state.models_folder / "language_model" / "bundle.json"
    return [state.cfg, state.mapper, state.kb and state.kb.meta, bundle and json.loads(bundle.read_bytes())]


@pytest.mark.parametrize("bundle_models", [True, False])
@pytest.mark.parametrize("can_link", [True, False])
def test_a_save_of_other_files_that_is_cut_off(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle_models: bool, can_link: bool
) -> None:
    """Of another knowledge base and other models at the same paths: all is old, or all is new."""
    if not can_link:
        monkeypatch.setattr(os, "link", refuse)
    copy, kb = tmp_path / "models", make_kb(tmp_path, models)
    shutil.copytree(models, copy)
    make_pipeline(copy, kb, bundle_models=True).to_disk(tmp_path / "before")
    shutil.rmtree(kb)
    make_kb(tmp_path, models, [{"id": entity_id(name), "name": name, "count": 7} for name in NAMES])  # as large
    tiny.make_language_model(copy / "language_model", seed=1)
    nlp = make_pipeline(copy, kb, bundle_models=bundle_models)
    train(nlp)
    linker(nlp).to_disk(tmp_path / "after")
    old, new = loaded(tmp_path / "before" / LINKER), loaded(tmp_path / "after")
    assert all(one != other for one, other in zip(old[1:], new[1:], strict=True))
    results = []
    for at in itertools.count():
        folder = tmp_path / "saved"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "before" / LINKER, folder)
        with monkeypatch.context() as patch, suppress(Killed):
            died = die_at(patch, at)
            linker(nlp).to_disk(folder)
        state = loaded(folder)
        assert state in (old, new), at
        results.append(state == new)
        if not died:
            break
        linker(nlp).to_disk(folder)  # and the next save goes through
        assert loaded(folder) == new
        assert not (folder / "kb.new").exists() and not (folder / "models.new").exists()
    assert results == sorted(results)
    assert results.count(False) > 10 and results.count(True) > 10


def refuse(*_: object) -> None:
    raise OSError(errno.EXDEV, "another file system")


def die_at(patch: pytest.MonkeyPatch, at: int) -> list[int]:
    """Die in the place of a rename or of a removal; the list is filled then."""
    count, died = itertools.count(), []

    def dying(action: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            if next(count) == at:
                died.append(at)
                raise Killed
            return action(*arguments, **options)

        return act

    for name in ("replace", "unlink"):
        patch.setattr(Path, name, dying(getattr(Path, name)))
    return died


def test_what_a_killed_save_has_left_can_be_saved_again(models: Path, kb: Path, tmp_path: Path) -> None:
    """A pipe that was loaded from the files beside the old ones, to the same folder and to another."""
    folder = tmp_path / LINKER
    make_pipeline(models, kb).to_disk(tmp_path)
    (tmp_path / "few").mkdir()
    few = make_kb(tmp_path / "few", models, [{"id": entity_id(name), "name": name} for name in NAMES[:4]])
    nlp = make_pipeline(models, few)
    linker(nlp).to_disk(tmp_path / "new", exclude=["vocab"])
    shutil.move(tmp_path / "new" / "kb", folder / "kb.new")
    for part in ("sums", "cfg", "model", "demonstrations", "decision", "added"):
        shutil.copyfile(tmp_path / "new" / part, folder / part)
    pipe = linker(spacy.load(tmp_path))
    expected = state_of(pipe)
    for target in (folder, tmp_path / "other", folder):
        pipe.to_disk(target, exclude=["vocab"])
        assert state_of(pipe) == expected
    shutil.rmtree(folder / "kb.new")
    assert state_of(linker(spacy.load(tmp_path))) == expected


def test_no_changed_byte_is_loaded_silently(bundled: Path, tmp_path: Path) -> None:
    generator, expected = random.Random(0), state_of(linker(spacy.load(bundled)))
    names = [name for name in files.files_in(bundled / LINKER) if not name.startswith("vocab/")]
    for number in range(len(names) + 20):
        folder = tmp_path / str(number)
        shutil.copytree(bundled, folder)
        path = folder / LINKER / names[number % len(names)]
        flip(path, generator)
        try:
            nlp = spacy.load(folder, config=VERIFY)
        except (ValueError, OSError):
            continue
        assert state_of(linker(nlp)) == expected, path.name
        assert path.name in ("README.md", ".gitignore"), path.name
        shutil.rmtree(folder)


def test_no_changed_byte_of_bytes_is_loaded_silently(bundled: Path) -> None:
    nlp = spacy.load(bundled, config=VERIFY)
    content, generator = linker(nlp).to_bytes(), random.Random(1)
    for _ in range(30):
        changed = bytearray(content)
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
        with pytest.raises((ValueError, OSError)):
            linker(nlp).from_bytes(bytes(changed))


def flip(path: Path, generator: random.Random) -> None:
    """Change one bit of a file, in a copy of its own: files are hard-linked."""
    content = bytearray(path.read_bytes())
    content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    path.unlink()
    path.write_bytes(content)


def test_parts_of_two_saves_are_refused(models: Path, kb: Path, tmp_path: Path) -> None:
    nlp: Language = make_pipeline(models, kb)
    linker(nlp).to_disk(tmp_path / "old")
    train(nlp)
    linker(nlp).to_disk(tmp_path / "new")
    shutil.copyfile(tmp_path / "old" / "model", tmp_path / "new" / "model")
    with pytest.raises(ValueError, match="'model' of the saved pipe is not what was saved with its other parts"):
        linker(nlp).from_disk(tmp_path / "new")
