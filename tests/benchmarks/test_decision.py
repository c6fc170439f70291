"""The benchmark of the decision: that it runs, on a pipeline where no figure means anything."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import decision
from tests.mini_pipeline import entity_id, make_kb, make_pipeline
from tests.test_project import write_small_world


def test_a_draw_from_beginning_to_end(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    write_small_world(data)
    for name in ("entities", "dev", "test"):  # ids as the pipeline below has them
        path = data / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            if name == "entities":
                row["id"] = entity_id(row["id"])
            for mention in row.get("mentions", ()):
                mention["kb_id"] = entity_id(mention["kb_id"])
        path.write_text("\n".join(json.dumps(row) for row in rows))
    make_pipeline(models, make_kb(tmp_path, models)).to_disk(tmp_path / "pipeline")
    monkeypatch.setattr(decision, "MODELS", models)
    arguments = ["--pipeline", str(tmp_path / "pipeline"), "--data", str(data)]
    decision.main([*arguments, "--draws", "1", "--share", "0.4"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    [draw] = result["draws"]
    golds = decision.draw(data, 1.0, 0)
    assert draw["entities_left_out"] == len(decision.draw(data, 0.4, 0)) == round(0.4 * len(golds))
    assert decision.draw(data, 0.4, 0) == decision.draw(data, 0.4, 0) < golds
    nil = draw["dev"]["mentions"]["nil"] + draw["test"]["before"]["nil_golds"]
    assert 0 < nil < 16
    assert draw["dev"]["mentions"]["n"] == 4
    assert len({draw["test"][way]["nil_golds"] for way in decision.WAYS}) == 1  # the same mentions
    assert result["mean_on_test"]["before"]["nil_f"] == 0
    assert set(result["mean_on_test"]) == set(decision.WAYS)
    assert [*draw["decision"]["weights"]] == [*draw["decision"]["scales"]]
    assert str(tmp_path) not in json.dumps(result)


def test_it_says_what_makes_the_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(tmp_path)
    with pytest.raises(SystemExit):
        decision.main(["--pipeline", str(tmp_path)])
    assert "project run all" in capsys.readouterr().err
