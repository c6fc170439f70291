from collections.abc import Iterator

import pytest

from tests.data.fetch.server import Server


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.shutdown()
    running.server_close()
