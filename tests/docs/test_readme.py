"""The README's lines on real models run; on the models themselves (--slow) they print what stands below them."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from tests.docs.reading import run_command
from tests.models.test_vision_encoder import save

ROOT = Path(__file__).parents[2]
REAL = ROOT / "assets" / "real"
_BLOCKS = r"^pip [^\n]*real-models\n(.*?)^```\n.*?^<!-- real -->\n```python\n(.*?)^```\n+```text\n(.*?)^```"
[(COMMANDS, CODE, OUTPUT)] = re.findall(_BLOCKS, (ROOT / "README.md").read_text(encoding="utf8"), re.M | re.S)


def run_readme(folder: Path, real: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the commands and the code in a folder, with the models of another; what they print."""
    (folder / "assets").mkdir()
    (folder / "assets" / "example").symlink_to(ROOT / "assets" / "example")
    (folder / "assets" / "real").symlink_to(real)
    monkeypatch.chdir(folder)
    for line in COMMANDS.splitlines():
        run_command(line)
    with redirect_stdout(StringIO()) as output:
        exec(CODE, {})
    return output.getvalue()


def test_the_lines_run(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for name in ("language_model", "sentence_encoder"):
        (small / name).symlink_to(models / name)
    save("ResNet", small / "vision_encoder")
    lines = run_readme(tmp_path, small, monkeypatch).splitlines()
    mentions = [re.sub(r", '[^']*'\)", ")", line) for line in lines]
    assert mentions == [re.sub(r", '[^']*'\)", ")", line) for line in OUTPUT.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs assets/real: python -m spacy project run real-models")
def test_they_print_what_stands_below_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_readme(tmp_path, REAL, monkeypatch) == OUTPUT
