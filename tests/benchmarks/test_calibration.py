"""The benchmark of calibration: that it runs, on a pipeline where no figure means anything."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import calibration
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
    monkeypatch.setattr(calibration, "MODELS", models)
    arguments = ["--pipeline", str(tmp_path / "pipeline"), "--data", str(data)]
    calibration.main([*arguments, "--draws", "1", "--share", "0.4"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    [draw] = result["draws"]
    golds = calibration.draw(data, 1.0, 0)
    assert draw["entities_left_out"] == len(calibration.draw(data, 0.4, 0)) == round(0.4 * len(golds))
    assert calibration.draw(data, 0.4, 0) == calibration.draw(data, 0.4, 0) < golds
    nil = draw["dev"]["mentions"]["nil"] + draw["test"]["before"]["nil_golds"]
    assert 0 < nil < 16
    assert draw["dev"]["mentions"]["not_in_kb"] == 0
    assert result["mean_on_test"]["before"]["nil_f"] == 0
    assert str(tmp_path) not in json.dumps(result)


def test_it_says_what_makes_the_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(tmp_path)
    with pytest.raises(SystemExit):
        calibration.main(["--pipeline", str(tmp_path)])
    assert "project run all" in capsys.readouterr().err
