"""The benchmark of import-kb in the small: its dumps are what they are said to be, and what is missing is seen."""

import json
from pathlib import Path

import pytest

from benchmarks import import_kb
from benchmarks.made_wiki import MadeWiki, make_wiki, page_of_article, page_of_redirect


def test_a_small_run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_kb, "describe_machine", dict)
    monkeypatch.setattr(import_kb, "write_json", lambda path, content: pytest.fail("a small run must not be kept"))
    import_kb.main(["--pages", "4000"])
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert [size["articles"] for size in result["sizes"]] == [1000, 4000]
    large = result["sizes"][1]
    assert large["entities"] == 4000
    assert large["aliases"] == large["redirects"] - large["circles"] == 1998
    assert large["sum_of_counts"] == large["links_to_articles"] > 10 * 4000
    assert result["holds"]["all_is_there"]
    assert large["peak_mb"] > 20


def test_what_is_missing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(pages: int, folder: Path) -> MadeWiki:
        right = make_wiki(pages, folder)
        return MadeWiki(right.articles, right.redirects, 0, right.links, right.links_to_articles, 0)

    monkeypatch.setattr(import_kb, "make_wiki", make)
    assert not import_kb.measure(100)["all_is_there"]


def test_pages_have_one_number_each() -> None:
    numbers = [page_of_article(number) for number in range(100)] + [page_of_redirect(number) for number in range(50)]
    assert len(set(numbers)) == 150
    assert max(numbers) < 170
