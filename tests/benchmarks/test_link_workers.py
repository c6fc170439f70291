"""The benchmark of `link`'s processes, on a few rows."""

import json
from pathlib import Path

import pytest

from benchmarks import link_workers
from tests.bulk.test_workers import load


def test_processes_beside_the_plain_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": f"Jaguar {n}"}) + "\n" for n in range(5)))
    monkeypatch.setattr(link_workers, "load", load)
    monkeypatch.setattr(link_workers, "BLOCK", 2)
    monkeypatch.setattr(link_workers, "find_spec", lambda name: None)
    arguments = ["--pipeline", str(tmp_path), "--source", str(tmp_path / "in.jsonl"), "--rows", "12", "--repeats", "1"]
    link_workers.main(arguments)
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["rows"] == 12
    assert result["rows_per_second"].keys() == {"plain", "processes_2"}
    assert result["over_plain"]["plain"]["median"] == 1
    with pytest.raises(SystemExit, match="spacy project run all"):
        link_workers.main(["--source", str(tmp_path / "none")])
