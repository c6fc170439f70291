from collections.abc import Iterator

import pytest

from spacy_gemel.data.fetch import run
from tests.data.fetch.server import Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(run, "_TICK", 0.02)  # the clock of the tests does not wait
    running = Server()
    monkeypatch.setattr(run, "time", running.clock)
    yield running
    running.shutdown()
    running.server_close()
