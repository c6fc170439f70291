"""`fetch-images` as a user calls it, interrupted and continued."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from spacy_gemel.__main__ import app
from spacy_gemel.data.fetch.urls import read_index
from tests.data.fetch.server import GENEROUS, Server, check_folder, failed_rows, picture

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
    assert "has 1 of 2 URLs in 1 files, 0 of them from before" in result.stdout
    assert "1 x HTTP 404" in result.stdout
    assert "1 x no URL in the row" in result.stdout
    assert [(row["reason"], row["url"]) for row in failed_rows(tmp_path / "images")] == [
        ("no URL in the row", ""),
        ("HTTP 404", server.url("/gone")),
    ]
    again = call(tmp_path / "train.json", tmp_path / "images", "--field", "img-url")
    assert "1 of them from before" in again.stdout
    assert server.asked == {"/a": 1, "/gone": 2}


def test_nothing_fetched_is_an_error(server: Server, tmp_path: Path) -> None:
    (tmp_path / "u.txt").write_text(server.url("/gone") + "\n")
    result = call(tmp_path / "u.txt", tmp_path / "images")
    assert result.exit_code == 1
    assert f"nothing was fetched; the first failure: {server.url('/gone')}: HTTP 404" in result.stderr
    assert (tmp_path / "images" / "failed.jsonl").is_file()
    missing = call(tmp_path / "none.txt", tmp_path / "images")
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
    assert "no such file" in missing.stderr


# Hangs in what cannot be interrupted: the system's look-up.
HANGING = """
import socket, threading
look_up = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **more: (
    threading.Event().wait() if "slow" in host else look_up(host, *rest, **more)
)
from spacy_gemel.__main__ import app
app()
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_fetch_can_be_continued(ending: signal.Signals, server: Server, tmp_path: Path) -> None:
    """Six requests hang, so the seventh worker fetches one image after the other, and then hangs as well."""
    folder, source = tmp_path / "images", tmp_path / "u.txt"
    beginnings = {"/status": b"HTTP/1.0 2", "/header": b"HTTP/1.0 200 OK\r\nX: ", "/body": b"HTTP/1.0 200 OK\r\n\r\nx"}
    bad = [server.stop(path, beginning) for path, beginning in {**beginnings, "/a": b"", "/b": b""}.items()]
    good = [server.send(f"/{n}", picture(n)) for n in range(5)]
    last = server.stop("/last")
    source.write_text("\n".join([*bad, "http://slow.example.org/x", *good, last]))
    options = ["--allow-private", "--delay", "0", "--per-host", "7", "--workers", "7", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, "fetch-images", str(source), str(folder), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        server.wait_for(lambda: len(server.asked) == 11)
        process.send_signal(ending)
        _, errors = process.communicate(timeout=GENEROUS)
    finally:
        process.kill()
    if ending == signal.SIGINT:
        assert process.returncode == 130, errors
        assert "the same command continues from there" in errors
        assert "Traceback" not in errors
        assert failed_rows(folder) == []
    assert set(read_index(folder)) == set(good)
    for number, url in enumerate([*bad, last]):
        server.send("/" + url.rpartition("/")[2], picture(30 + number))
    report = server.fetch([*bad, *good, last], folder)
    assert (report.cached, report.fetched, report.failures) == (5, 6, [])
    assert {server.asked[f"/{n}"] for n in range(5)} == {1}
    check_folder(folder)
