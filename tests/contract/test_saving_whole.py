"""A save that is cut off leaves the old pipe or the new one; a byte that has changed is never loaded silently."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language

from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.utils import files
from tests.mini_pipeline import LINKER, add_linker, example, linker, make_pipeline, train

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
