"""docs/tour.ipynb runs from beginning to end (needs the extra [docs]: .ci/run), and what it stores is what it gives."""

from pathlib import Path
from typing import Any

import pytest

from tests.docs.reading import DOCS

nbclient = pytest.importorskip("nbclient", reason='needs pip install -e ".[docs]"')
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")


def results(notebook: Any) -> list[str]:
    return [
        output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "execute_result" and "image/png" not in output["data"]
    ]


@pytest.mark.filterwarnings("ignore")
def test_the_tour_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    stored = nbformat.read(Path(DOCS / "tour.ipynb"), as_version=4)
    run = nbformat.read(Path(DOCS / "tour.ipynb"), as_version=4)
    nbclient.NotebookClient(run, timeout=300, resources={"metadata": {"path": str(DOCS)}}).execute()
    assert len(results(run)) == len(results(stored)) > 3
    assert results(run)[0] == results(stored)[0]
    with_picture, without = map(float, results(run)[1].strip("()").split(","))
    assert with_picture >= 0.9
    assert without <= 0.5
