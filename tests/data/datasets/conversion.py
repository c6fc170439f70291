"""What the tests of data sets share: small files, and what `convert` makes of them."""

import json
from pathlib import Path
from typing import Any

import spacy
from spacy.tokens import Doc, DocBin

from spacy_gemel.data.datasets.converters import ConvertReport, convert
from spacy_gemel.data.report import report_path

URL = "https://upload.wikimedia.org/wikipedia/commons/0/06/Ada_%28Lovelace%29.svg"
WIKI = "https://en.wikipedia.org/wiki/"


def write(path: Path, content: Any, *, lines: bool = False) -> Path:
    """Write JSON, or with `lines` JSON lines, of which bytes are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in content] if lines else []
    path.write_bytes(b"\n".join(rows) + b"\n" if lines else json.dumps(content, indent=1).encode())
    return path


def run(dataset: str, source: Path, **options: Path) -> tuple[ConvertReport, list[Doc], dict[str, Any]]:
    """Convert to out/x.spacy beside the source: the report, the docs, and the report's file."""
    out = source.parent / "out" / "x.spacy"
    report = convert(dataset, source, out, progress=False, **options)
    docs = list(DocBin().from_disk(out).get_docs(spacy.blank("en").vocab))
    return report, docs, json.loads(report_path(out).read_text(encoding="utf-8"))


def ents(doc: Doc) -> list[tuple[str, str, str]]:
    """Text, label and gold of each entity."""
    return [(ent.text, ent.label_, ent.kb_id_) for ent in doc.ents]


def pictures(folder: Path, *names: str) -> Path:
    """A folder with files of these names."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"picture")
    return folder
