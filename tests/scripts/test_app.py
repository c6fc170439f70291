"""The app links what is typed, and says what is wrong in one message."""

import sys
from pathlib import Path
from typing import Any

import pytest
import spacy

APP = Path(__file__).parents[2] / "scripts" / "app.py"


@pytest.fixture
def run_app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    testing = pytest.importorskip("streamlit.testing.v1", reason="needs the extra [app]")
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> Any:
        monkeypatch.setattr(sys, "argv", [str(APP), *map(str, args)])
        return testing.AppTest.from_file(str(APP), default_timeout=60).run()

    return run


def test_without_a_pipeline_it_says_how_to_name_one(run_app: Any) -> None:
    app = run_app()
    assert not app.exception
    assert "no pipeline in training/" in app.error[0].value


def test_a_folder_that_is_no_pipeline_is_one_message(run_app: Any, tmp_path: Path) -> None:
    app = run_app(tmp_path / "none")
    assert not app.exception
    assert app.error[0].value.startswith(f"{tmp_path / 'none'} cannot be loaded")


def test_a_pipeline_without_a_linker_is_one_message(run_app: Any, tmp_path: Path) -> None:
    spacy.blank("en").to_disk(tmp_path / "blank")
    app = run_app(tmp_path / "blank")
    assert not app.exception
    assert "has no gemel_linker" in app.error[0].value
