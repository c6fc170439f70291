"""The commands of the package, called in this process, and how they fail."""

from typing import Any

from typer.testing import CliRunner

from spacy_gemel.__main__ import app


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def failed(result: Any, says: str) -> None:
    """One line that says it, exit code 1, no traceback."""
    assert result.exit_code == 1, result.output
    assert says in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert isinstance(result.exception, SystemExit)


def failed_last(result: Any, says: str) -> None:
    """The same as the last line, after warnings and progress."""
    assert result.exit_code == 1, result.output
    assert says in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.output
