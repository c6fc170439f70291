"""What stands in a page of docs: its fenced blocks, the rows of its tables, and its commands, which are run."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from spacy.cli._util import app as spacy_app
from typer.testing import CliRunner

from spacy_gemel.__main__ import app as gemel_app

DOCS = Path(__file__).parents[2] / "docs"
SHORT = ("--training.max_steps", "4", "--training.eval_frequency", "2")
"""Added to a command that trains."""

_BLOCK = re.compile(r"(?:^(?P<above>[^\n]+)\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
_MARK = re.compile(
    r"<!-- file: (\S+) -->|<!-- tested by (\S+) -->|<!-- (run|test|real) -->|\*Not run by the tests: (.+)\.\*"
)
_APPS = {"spacy": spacy_app, "spacy_gemel": gemel_app}


@dataclass(frozen=True)
class Block:
    """A fenced block, and what the line above it says of it.

    file: the name that a comment gives it. test: the test of the same commands, as a comment says, or the README's own
    mark. reason: why no test runs it.
    """

    language: str
    text: str
    file: str | None = None
    test: str | None = None
    reason: str | None = None


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page of docs/, or of "../README.md", in order."""
    text = (DOCS / page).read_text(encoding="utf8")
    found = []
    for match in _BLOCK.finditer(text):
        mark = _MARK.fullmatch(match["above"] or "")
        file, test, own, reason = mark.groups() if mark else (None, None, None, None)
        found.append(Block(match["language"], match["text"], file, test or own, reason))
    return found


def rows(page: str) -> list[list[str]]:
    """The cells of all table rows of a page, without heads."""
    text = (DOCS / page).read_text(encoding="utf8")
    found = []
    for table in re.findall(r"^\|.*\|$(?:\n^\|.*\|$)*", text, re.M):
        for line in table.splitlines()[2:]:
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def run_command(line: str, *more: str) -> str:
    """Run `python -m spacy ...` or `python -m spacy_gemel ...` in this process; its output. Fails where it fails.

    more: arguments to add.
    """
    python, flag, program, *arguments = shlex.split(line)
    assert (python, flag) == ("python", "-m"), line
    done = CliRunner().invoke(_APPS[program], [*arguments, *more])
    assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    return done.output
