"""`fetch-images` as a user calls it, interrupted and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from spacy_gemel.__main__ import app
from spacy_gemel.data.fetch.index import fetched
from tests.data.fetch.server import Server, picture

ROOT = Path(__file__).parents[3]


def call(*arguments: object) -> Any:
    options = ["--allow-private", "--quiet", "--delay", "0"]
    return CliRunner().invoke(app, ["fetch-images", *map(str, arguments), *options])


def test_a_data_set(server: Server, tmp_path: Path) -> None:
    good = server.send("/a", picture(1))
    rows = [{"img-url": good}, {"img-url": server.url("/gone")}, {"img-url": None}, {"img-url": good}]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    result = call(tmp_path / "train.json", tmp_path / "images", "--field", "img-url")
    assert result.exit_code == 0, result.output
    assert "1 of 2 URLs are there, 0 of them were before; 1 files" in result.stdout
    assert "1 x HTTP 404" in result.stdout
    assert "1 x no URL in the row" in result.stdout
    failed = [json.loads(line) for line in (tmp_path / "images" / "failed.jsonl").read_text().splitlines()]
    assert [(row["reason"], row["url"]) for row in failed] == [
        ("no URL in the row", ""),
        ("HTTP 404", server.url("/gone")),
    ]
    again = call(tmp_path / "train.json", tmp_path / "images", "--field", "img-url")
    assert "1 of them were before" in again.stdout
    assert server.asked == {"/a": 1, "/gone": 2}


def test_nothing_fetched_is_an_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "u.txt").write_text(server.url("/gone") + "\n")
    result = call(tmp_path / "u.txt", tmp_path / "images")
    assert result.exit_code == 1
    assert f"nothing was fetched; the first: {server.url('/gone')}: HTTP 404" in result.stderr
    assert (tmp_path / "images" / "failed.jsonl").is_file()
    missing = call(tmp_path / "none.txt", tmp_path / "images")
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert "no such file" in missing.stderr


def test_an_interrupt_loses_nothing(server: Server, tmp_path: Path) -> None:
    urls = [server.send(f"/{n}", picture(n), seconds=0.1) for n in range(40)]
    (tmp_path / "u.txt").write_text("\n".join(urls))
    folder = tmp_path / "images"
    command = [sys.executable, "-m", "spacy_gemel", "fetch-images", str(tmp_path / "u.txt"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--allow-private", "--delay", "0"], env=environment, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while len(fetched(folder)) < 5 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    first = fetched(folder)
    assert 5 <= len(first) < 40
    # every request that was made was waited for, and its image is known: none is made again
    assert {f"/{n}" for n in range(40) if server.asked[f"/{n}"]} == {"/" + url.rpartition("/")[2] for url in first}
    assert not list(folder.glob(".partial-*"))
    assert call(tmp_path / "u.txt", folder).exit_code == 0
    assert set(fetched(folder)) == set(urls)
    assert set(server.asked.values()) == {1}
