"""The benchmark of the report, at its smallest."""

import json
import shutil

import pytest


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium: apt-get install chromium")
def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    from benchmarks import report

    report.main(["--mentions", "30"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["holds"]["mb"] and result["holds"]["nothing_else"]
    assert result["filter_seconds"]["repeats"] == 45
