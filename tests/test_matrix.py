""".ci/matrix: which tests it runs where. The virtual environments are pretended; the script is the real one."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# In place of python3 it makes a "virtual environment" with a pip and a uv, whose environments have a python that only
# writes down what it is called with.
PYTHON = """#!/usr/bin/env bash
mkdir -p "$3/bin"
printf '#!/bin/sh\\n' > "$3/bin/pip"
cat > "$3/bin/uv" <<'UV'
#!/usr/bin/env bash
[ "$1" = venv ] || exit 0
for folder; do :; done
mkdir -p "$folder/bin"
cat > "$folder/bin/python" <<'INNER'
#!/usr/bin/env bash
echo "$(basename "$(dirname "$(dirname "$0")")"): $*" >> "$CALLS"
echo "1 passed in 0.01s"
case "$*" in *"$FAILING"*) exit 1 ;; esac
INNER
chmod +x "$folder/bin/python"
UV
chmod +x "$3/bin/pip" "$3/bin/uv"
"""
PACKAGING = "newest: -m pytest tests/test_packaging.py --slow"


@pytest.fixture
def python(tmp_path: Path) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("the script takes the files that git tracks")
    path = tmp_path / "python"
    path.write_text(PYTHON)
    path.chmod(0o755)
    return path


def call(python: Path, *arguments: str, failing: str = "nothing", **more: str) -> tuple[int, list[str], str]:
    calls = python.with_name("calls")
    environment = {**os.environ, "PYTHON": str(python), "CALLS": str(calls), "FAILING": failing, **more}
    command = [ROOT / ".ci" / "matrix", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return done.returncode, calls.read_text().splitlines(), done.stdout


def test_all_of_it(python: Path) -> None:
    code, calls, said = call(python)
    assert code == 0
    assert calls == ["oldest: -m pytest", "newest: -m pytest", PACKAGING]
    assert said.count("exit code 0") == 3
    assert "newest (tests/test_packaging.py --slow): exit code 0" in said


def test_arguments_are_what_runs(python: Path) -> None:
    code, calls, _ = call(python, "tests/kb", "-x")
    assert (code, calls) == (0, ["oldest: -m pytest tests/kb -x", "newest: -m pytest tests/kb -x"])


def test_one_of_them(python: Path) -> None:
    assert call(python, MATRIX="newest")[1] == ["newest: -m pytest", PACKAGING]
    python.with_name("calls").unlink()
    assert call(python, MATRIX="oldest")[1] == ["oldest: -m pytest"]


@pytest.mark.parametrize("failing", ["test_packaging", "pytest"])
def test_a_failure_is_one_of_all(python: Path, failing: str) -> None:
    code, calls, _ = call(python, failing=failing)
    assert code == 1
    assert len(calls) == 3
