"""What benchmarks.house counts."""

from pathlib import Path

from benchmarks import house


def test_counts_modules_circles_and_private_words(tmp_path: Path) -> None:
    package = tmp_path / "spacy_gemel"
    package.mkdir()
    (package / "__init__.py").write_text('"""Top."""\n', encoding="utf8")
    (package / "one.py").write_text(
        "from spacy_gemel import two\n\n\ndef _say_slow(found, left):\n    right = place = found\n", encoding="utf8"
    )
    (package / "two.py").write_text("def lazy():\n    import spacy_gemel.one\n\n\nclass Lab: ...\n", encoding="utf8")
    counts = house.measure(tmp_path)
    assert (counts["lines"], counts["modules"], counts["top_level_modules"]) == (11, 2, 2)
    assert counts["circles"] == [["spacy_gemel.one", "spacy_gemel.two"]]
    assert counts["words"] == {"say": 1, "found": 1, "place": 1, "lab": 1}  # left stands beside right
    assert set(counts["missed"]) == {"import_circles", "private_words"}
