"""The knowledge base needs neither spaCy nor torch, and its trie nothing but numpy."""

import subprocess
import sys
from pathlib import Path

import spacy_gemel.kb


def loaded_modules(code: str, names: tuple[str, ...]) -> str:
    program = f"import sys; {code}; print(*(name for name in {names} if name in sys.modules))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_no_module_imports_spacy_or_torch() -> None:
    modules = [f"spacy_gemel.kb.{path.stem}" for path in Path(spacy_gemel.kb.__path__[0]).glob("[a-z]*.py")]
    assert len(modules) > 10
    assert loaded_modules(f"import {', '.join(modules)}", ("spacy", "thinc", "torch", "transformers")) == ""


def test_the_trie_needs_only_numpy() -> None:
    code = "import spacy_gemel.kb.trie_builder"
    assert loaded_modules(code, ("pyarrow", "torch", "spacy", "thinc", "tqdm")) == ""
