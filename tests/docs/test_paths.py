"""Modules, functions and files that the pages name exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest

from tests.docs.reading import DOCS

ROOT = DOCS.parent
PAGES = [*sorted(DOCS.glob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"))]
_DOTTED = re.compile(r"\b(?:spacy_gemel|research|benchmarks|scripts|tests)(?:\.\w+)+")
_REGISTERED = re.compile(r"spacy_gemel\.\w+\.v\d+")
_CODE = re.compile(r"```.*?```|`([^`\s]+)`", re.S)
_SUFFIXES = (".py", ".cfg", ".yml", ".toml", ".md")
_TREES = ("spacy_gemel", "research", "benchmarks", "scripts", "tests", "configs", "docs", ".ci")


def paths_in(page: Path) -> Iterator[Path]:
    """The paths in backticks: in the clone, or in the package if they begin with one of its folders."""
    folders = {path.name for path in (ROOT / "spacy_gemel").iterdir() if path.is_dir()}
    for path in filter(None, _CODE.findall(page.read_text(encoding="utf8"))):
        first = path.split("/")[0]
        if "/" in path and first in _TREES:
            yield ROOT / path
        elif "/" in path and first in folders and (path.endswith(_SUFFIXES) or page.parent == ROOT):
            yield ROOT / "spacy_gemel" / path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf8")
    for name in set(_DOTTED.findall(text)):
        if not _REGISTERED.match(name):
            resolve_name(name)  # raises for a module or a name that does not exist
    missing = {path.relative_to(ROOT).as_posix() for path in paths_in(page) if not path.exists()}
    assert not missing


def test_every_module_in_the_table_of_the_architecture_exists() -> None:
    """It names modules below the folder at the beginning of their row."""
    named = 0
    for line in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf8").splitlines():
        if row := re.match(r"\| `(\w+)/` \|", line):
            for module in re.findall(r"`(\w+\.py)`", line):
                folders = (ROOT / "spacy_gemel" / row[1], ROOT / "spacy_gemel")
                assert any((folder / module).is_file() for folder in folders), f"{row[1]}/{module}"
                named += 1
    assert named
