"""Labels of make-demonstrations against gold ones."""

import json
from pathlib import Path

from typer.testing import CliRunner

from research.__main__ import app
from tests.research.baselines.world import CARS, ELEMENT, GOD, make_corpus, make_kb

ROWS = [
    {"id": ELEMENT, "name": "Quicksilver", "aliases": ["Hydrargyrum"]},
    {"id": CARS, "name": "Jaguar Cars"},
    {"id": GOD, "name": "Roman god", "aliases": ["Mercurius"]},
]


def test_counts_those_that_agree(tmp_path: Path) -> None:
    gold = make_corpus(
        tmp_path / "gold.spacy",
        [
            ("a bowl of Quicksilver", [("Quicksilver", ELEMENT)]),
            ("a bowl of Hydrargyrum", [("Hydrargyrum", GOD)]),
            ("a car of the Jaguar Cars", [("the Jaguar Cars", CARS)]),
            ("some Mercurius", []),
        ],
    )
    keep = tmp_path / "kept.json"
    keep.write_text('{"other": 1}')
    command = ["weak-labels", str(gold), "--kb", str(make_kb(tmp_path / "kb", ROWS)), "--keep", str(keep), "-q"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    by_name = {"mentions": 2, "same_span": 1, "same_span_right": 1, "overlap": 1, "overlap_right": 1, "no_gold": 0}
    by_alias = {"mentions": 2, "same_span": 1, "same_span_right": 0, "overlap": 0, "overlap_right": 0, "no_gold": 1}
    assert figures == {"texts": 4, "name": by_name, "alias": by_alias}
    assert json.loads(keep.read_text()) == {"other": 1, "gold": figures}
