"""The mini world seen from outside: what it writes, and that the same seed writes the same."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mini_world.drawing import DRAWERS, SIZE, draw, to_jpeg
from mini_world.generate import generate, mention_row
from mini_world.names import DATA, DESCRIPTIONS, WORLD_SEED, load_world, readings_by_form, tail_ids
from mini_world.sampling import sample_split
from PIL import Image

NUMBERS = {"train": 12, "dev": 6, "test": 8}


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def world_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    generate(folder, WORLD_SEED, NUMBERS)
    return folder


def _all_bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_writes_the_same_bytes(world_folder: Path, tmp_path: Path) -> None:
    generate(tmp_path, WORLD_SEED, NUMBERS)
    assert _all_bytes(tmp_path) == _all_bytes(world_folder)


def test_another_seed_writes_another_world(world_folder: Path, tmp_path: Path) -> None:
    generate(tmp_path, WORLD_SEED + 1, NUMBERS)
    assert _all_bytes(tmp_path)["test.jsonl"] != _all_bytes(world_folder)["test.jsonl"]


def test_more_test_docs_leave_the_first_ones_alone() -> None:
    world = load_world()
    assert sample_split(world, "test", 100, WORLD_SEED)[:40] == sample_split(world, "test", 40, WORLD_SEED)


def test_test_set_is_the_one_fixed_before_the_models_were_tuned() -> None:
    mentions = sample_split(load_world(), "test", 2000, WORLD_SEED)
    lines = "".join(json.dumps(mention_row(mention), ensure_ascii=False) + "\n" for mention in mentions)
    fixed = DATA.with_name("test.sha256").read_text("utf-8").split()[0]
    assert hashlib.sha256(lines.encode("utf-8")).hexdigest() == fixed


def test_rows_are_well_formed(world_folder: Path) -> None:
    entities = _rows(world_folder / "entities.jsonl")
    names = {row["id"]: {row["name"], *row.get("aliases", ())} for row in entities}
    assert len(names) == len(entities) > 3400
    for split, number in NUMBERS.items():
        rows = _rows(world_folder / f"{split}.jsonl")
        assert len(rows) == number
        for row in rows:
            assert Image.open(world_folder / row["image"]).size == (SIZE, SIZE)
            for mention in row["mentions"]:
                assert row["text"][mention["start"] : mention["end"]] in names[mention["kb_id"]]


def test_offsets_and_golds_of_the_whole_world() -> None:
    world = load_world()
    ids = {reading.kb_id for reading in world}
    for split, number in (("train", 1600), ("dev", 300), ("test", 2000)):
        for mention in sample_split(world, split, number, WORLD_SEED):
            assert mention.text[mention.start : mention.end] == mention.form
            assert mention.form in mention.reading.forms
            assert mention.reading.kb_id in ids
            assert split != "train" or mention.reading.is_seen


def test_readings_of_a_form_differ_in_kind() -> None:
    for form, readings in readings_by_form(load_world()).items():
        kinds = [reading.kind for reading in readings]
        assert len(set(kinds)) == len(kinds), form


def test_world_is_as_large_and_as_hard_as_promised() -> None:
    world = load_world()
    assert len({reading.family for reading in world}) >= 150
    assert len(world) >= 400
    assert len({reading.kind for reading in world}) >= 25
    assert len({reading.kb_id for reading in world}) == len(world)
    plain = [r for r in world if r.name == r.family or r.name.startswith(f"{r.family} (")]
    assert len(plain) <= len(world) / 2
    trained = [reading for reading in world if reading.is_seen]
    assert abs(sum(not reading.is_read for reading in trained) / len(trained) - 1 / 3) < 0.02
    tail = tail_ids(world)
    held = sum(reading.count for reading in world if reading.kb_id in tail) / sum(reading.count for reading in world)
    assert 0.15 < held <= 0.2
    train = sample_split(world, "train", 1600, WORLD_SEED)
    assert {mention.reading.kb_id for mention in train} == {reading.kb_id for reading in trained}
    test = sample_split(world, "test", 2000, WORLD_SEED)
    assert sum(mention.reading.kb_id in tail for mention in test) >= 300
    assert sum(not mention.reading.is_seen for mention in test) >= 600
    assert sum(not mention.telling for mention in test) / len(test) > 0.64


def test_some_names_begin_others(world_folder: Path) -> None:
    names = {row["name"] for row in _rows(world_folder / "entities.jsonl")}
    assert sum(f"{name} in culture" in names for name in names) > 5


def test_every_kind_can_be_drawn() -> None:
    assert set(DRAWERS) == set(DESCRIPTIONS)
    for kind in DRAWERS:
        image = draw(kind, np.random.default_rng([3, 1]))
        again = draw(kind, np.random.default_rng([3, 1]))
        assert image.size == (SIZE, SIZE) and image.mode == "RGB"
        assert to_jpeg(image) == to_jpeg(again)
        assert Image.open(io.BytesIO(to_jpeg(image))).format == "JPEG"


def test_the_text_tells_mostly_of_what_is_popular() -> None:
    """Else the text alone could not know common entities better than rare ones."""
    world = load_world()
    tail = tail_ids(world)
    trained = [reading for reading in world if reading.is_seen]
    untold_rare = np.mean([not reading.is_read for reading in trained if reading.kb_id in tail])
    untold_common = np.mean([not reading.is_read for reading in trained if reading.kb_id not in tail])
    assert untold_rare > 2 * untold_common
    assert untold_common > 0.03  # not one and the same thing


def test_the_readme_s_caption_belongs_to_its_picture() -> None:
    readme = (DATA.parents[3] / "README.md").read_text(encoding="utf8")
    [caption] = re.findall(r'nlp.make_doc\("(.+?)"\)', readme)
    [picture] = re.findall(r'doc.user_data\["image"\] = "(docs/images/.+?)"', readme)
    assert (DATA.parents[3] / picture).is_file()
    mentions = sample_split(load_world(), "test", 600, WORLD_SEED)
    assert any(mention.text == caption and mention.form == "Mercury" for mention in mentions)
