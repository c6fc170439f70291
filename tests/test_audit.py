""".ci/audit: licences that are not on the list, and what pip-audit says; it is pretended, the script is real."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / ".ci").is_dir(), reason="is of a clone")


def package(folder: Path, name: str, *lines: str) -> None:
    (folder / f"{name}-1.0.dist-info").mkdir(parents=True)
    header = ("Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines)
    (folder / f"{name}-1.0.dist-info" / "METADATA").write_text("\n".join(header) + "\n")


def audit(folder: Path, answer: object = None) -> tuple[int, str]:
    tools = folder.with_name("tools")
    tools.mkdir(exist_ok=True)
    if answer is not None:
        tool = tools / "pip-audit"
        tool.write_text(f"#!{sys.executable}\nprint({json.dumps(answer)!r})\n")
        tool.chmod(0o755)
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit", folder],
        env={**os.environ, "PATH": str(tools)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_licences(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    package(folder, "one", "License-Expression: MIT AND Apache-2.0 WITH LLVM-exception")
    package(folder, "two", "Classifier: License :: OSI Approved :: BSD License", "License: anything")
    package(folder, "nvidia-cublas", "License-Expression: LicenseRef-NVIDIA-Proprietary")
    assert audit(folder) == (
        0,
        "licences of 3 packages: 0 not allowed\nvulnerabilities: not looked up, there is no pip-audit\n",
    )
    package(folder, "copyleft", "License-Expression: MIT OR AGPL-3.0-only")
    package(folder, "silent")
    code, output = audit(folder)
    assert code == 1
    assert "licence of copyleft: MIT and AGPL-3.0-only; allow it in .ci/audit" in output
    assert "licence of silent: none named" in output


def test_vulnerabilities(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    package(folder, "one", "License: MIT")
    skipped = {"name": "one", "skip_reason": "not found"}
    assert "cannot be reached (not found)" in audit(folder, {"dependencies": [skipped]})[1]
    assert "cannot be reached (no answer)" in audit(folder, {})[1]
    sound = {"name": "one", "version": "1.0", "vulns": []}
    code, output = audit(folder, {"dependencies": [sound, skipped]})
    assert (code, output.splitlines()[-1]) == (0, "vulnerabilities looked up of 1 packages, 1 not known there")
    hole = {**sound, "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
    code, output = audit(folder, {"dependencies": [hole]})
    assert code == 1
    assert "one 1.0: PYSEC-1, mended in 1.1" in output
