"""spacy-gemel as it is installed, here or from its sdist: all its files, all its entry points.

SPACY_GEMEL_SOURCE: the sources it was built from, where that is not the folder above; it must then come from elsewhere.
"""

import os
from importlib.metadata import distribution
from pathlib import Path

import pytest

import spacy_gemel

BUILT_FROM = os.environ.get("SPACY_GEMEL_SOURCE")
SOURCE = Path(BUILT_FROM or Path(__file__).parent.parent) / "spacy_gemel"
INSTALLED = Path(spacy_gemel.__file__).parent


def files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.skipif(BUILT_FROM is None, reason="is of an installed package: .ci/run")
def test_it_is_not_the_clone() -> None:
    assert INSTALLED.parent.name in ("site-packages", "dist-packages")


def test_every_file_is_there() -> None:
    """py.typed, the report's template and whatever else is no module."""
    assert files(INSTALLED) == files(SOURCE)
    assert {"py.typed", "evaluation/report.html", "evaluation/report.js"} <= files(INSTALLED)


def test_every_entry_point_resolves() -> None:
    found = distribution("spacy-gemel").entry_points
    assert {"spacy_factories", "spacy_architectures", "spacy_misc", "spacy_readers", "spacy_scorers"} <= {
        point.group for point in found
    }
    for point in found:
        assert callable(point.load()), point


def test_its_version_is_the_one_it_is_installed_under() -> None:
    assert distribution("spacy-gemel").version == spacy_gemel.__version__
