"""What says of spacy-gemel where it is: pyproject.toml, CITATION.cff, and universe.json for spaCy's Universe."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
from PIL import Image

import spacy_gemel
from tests.mini_pipeline import picture

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]


def test_the_version_and_the_licence_are_the_same_everywhere() -> None:
    citation = srsly.read_yaml(ROOT / "CITATION.cff")
    assert PROJECT["version"] == citation["version"] == spacy_gemel.__version__
    assert PROJECT["license"] == citation["license"] == "MIT"
    assert citation["title"] == PROJECT["name"]


def test_the_paper_is_cited() -> None:
    paper = srsly.read_yaml(ROOT / "CITATION.cff")["preferred-citation"]
    assert (paper["title"], paper["year"]) == ("Generative Multimodal Entity Linking", 2024)
    assert [author["family-names"] for author in paper["authors"]] == ["Shi", "Xu", "Hu", "Zhang"]


def test_the_example_of_the_universe_runs(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = json.loads((ROOT / "universe.json").read_text(encoding="utf8"))
    assert entry["id"] == entry["pip"] == PROJECT["name"]
    assert all(isinstance(entry[key], list) and entry[key] for key in ("code_example", "category", "tags"))
    assert len(entry["slogan"]) < 80
    nlp = spacy.load(saved)
    ruler = nlp.add_pipe("entity_ruler", first=True)
    ruler.add_patterns([{"label": "ENT", "pattern": "Mercury"}])  # type: ignore[attr-defined]
    (tmp_path / "training").mkdir()
    nlp.to_disk(tmp_path / "training" / "model-best")
    Image.fromarray(picture("Mercury")).save(tmp_path / "mercury.jpg")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(entry["code_example"]), {})
    assert capsys.readouterr().out.startswith("Mercury -> ")
