"""Every block of code in README.md and docs/ runs, or the line above it says what tests the same, or why none does."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.util import registry
from thinc.api import Config

from spacy_gemel import Entity
from tests.docs.conftest import QIDS
from tests.docs.reading import DOCS, SHORT, Block, blocks, run_command

ROOT = DOCS.parent
PAGES = ["../README.md", "../CONTRIBUTING.md", *sorted(path.name for path in DOCS.glob("*.md"))]
WHOLE = {"from-entity-linker.md": "test_from_entity_linker.py"}  # whose tests run all of a page's blocks
UNIQUE = ["Jaguar Cars", "New York City"]
"""Names of one entity alone, for make-demonstrations."""


def to_run(page: str, *languages: str) -> list[Block]:
    if page in WHOLE:
        return []
    found = [block for block in blocks(page) if block.language in languages]
    return [block for block in found if block.test is None and block.reason is None]


@pytest.fixture
def files(world: dict[str, Any], models: Path) -> dict[str, Any]:
    """The files that the pages' commands name, beside what they make themselves."""
    for name in ("NAME_OR_PATH", "NAME_OR_PATH_OF_YOUR_LANGUAGE_MODEL"):
        Path(name).symlink_to(models / "language_model")
    shutil.copy(models / "language_model" / "config.json", "config.json")
    Path("docs").symlink_to(DOCS)
    Path("pictures").symlink_to("images")
    shutil.copy("dev.spacy", "test.spacy")
    text = (ROOT / "configs" / "mini.cfg").read_text(encoding="utf8").replace("../", "")
    Path("my.cfg").write_text(text, encoding="utf8")
    names = dict(zip(QIDS.values(), QIDS, strict=True)) | {name: f"Q{number}" for number, name in enumerate(UNIQUE)}
    write_lines("entities.jsonl", [{"id": kb_id, "name": name, "count": 2} for name, kb_id in names.items()])
    spans = [{"start": 11, "end": 18, "kb_id": kb_id} for kb_id in QIDS]
    rows = [
        {"text": f"A photo of Mercury number {number}.", "image": f"images/{number}.png", "mentions": [span]}
        for number, span in enumerate(spans)
    ]
    for name in ("train.jsonl", "dev.jsonl", "new.jsonl"):
        write_lines(name, rows)
    texts = [{"text": f"In May the {name} guide had {number} visitors."} for number in range(40) for name in UNIQUE]
    for name in ("captions.jsonl", "texts.jsonl"):
        write_lines(name, texts)
    with Path("captions.csv").open("w", newline="", encoding="utf8") as table:
        csv.writer(table).writerows([["caption", "picture", "name"], ["A photo of Mercury", "images/0.png", "Mercury"]])
    return {**world, "Entity": Entity}


def write_lines(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")


def commands(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            yield line.partition("  #")[0]


@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page, "python", "bash")])
def test_python_and_bash_run(page: str, files: dict[str, Any]) -> None:
    for block in to_run(page, "python", "bash"):
        if block.language == "python":
            exec(block.text, files)
        else:
            for command in commands(block.text):
                run_command(command, *(SHORT if " train " in command else ()))


def registered(section: Any) -> Iterator[dict[str, Any]]:
    if isinstance(section, dict):
        if any(key.startswith("@") for key in section) and "${" not in str(section):
            yield section
        for value in section.values():
            yield from registered(value)


def with_parents(text: str) -> str:
    """A part of a config, with the sections that its sections are in."""
    there = re.findall(r"^\[(.+)\]$", text, re.M)
    parents = {".".join(name.split(".")[:size]) for name in there for size in range(1, name.count(".") + 1)}
    return "".join(f"[{name}]\n" for name in sorted(parents - {*there})) + text


@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page, "ini")])
def test_blocks_of_a_config_have_settings_that_exist(page: str) -> None:
    for block in to_run(page, "ini"):
        config = Config().from_str(with_parents(block.text), interpolate=False)
        for section in registered(config):
            registry.fill({"block": section})  # raises for a name that is not registered and an argument it lacks
        nlp = spacy.blank("en")
        for name, component in config.get("components", {}).items():
            if "factory" in component:
                known = (
                    nlp.get_pipe_config(name) if name in nlp.pipe_names else nlp.get_factory_meta(name).default_config
                )
                assert {*component} - {"factory"} <= {*known}, name


@pytest.mark.parametrize("page", PAGES)
def test_a_block_that_is_not_run_says_why(page: str) -> None:
    for block in blocks(page):
        if block.test is not None and block.test not in ("run", "test", "real"):
            assert (ROOT / block.test).is_file(), block.test
        assert block.language in ("python", "bash", "ini", "json", "yaml", "text", "toml"), block.language
