"""A peer of one's own, by ARCHITECTURE.md's recipe: a line in KINDS, and a grid, the command and the report know it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest
from spacy.tokens import Doc
from typer.testing import CliRunner

from research.baselines.kinds import KINDS, Peer
from research.baselines.options import PeerOptions
from research.grid import run, trials
from spacy_gemel.__main__ import app
from spacy_gemel.evaluation.baselines import Baseline, TrainingData
from spacy_gemel.evaluation.report import read_runs
from tests.research.baselines.world import GOD, PLANET, make_corpus, make_kb
from tests.research.grid.conftest import grid_of


def make_first(data: TrainingData, options: PeerOptions) -> Baseline:
    """The first entity of the knowledge base, or the one of this seed."""
    kb_id = data.kb.entity(options.linker.seed).kb_id

    def link(docs: Sequence[Doc]) -> Iterator[Doc]:
        for doc in docs:
            for token in doc:
                token.ent_kb_id_ = kb_id if token.ent_type_ else ""
            yield doc

    return Baseline(link, {"chosen": kb_id})


@pytest.fixture
def own_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "first", Peer("The first", "the first entity that there is", make_first, ("seed",)))


def test_a_peer_of_ones_own_in_a_grid(index: Path, own_peer: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (index / "kb" / "meta.json").unlink()
    (index / "kb").rmdir()
    make_kb(index)
    for split in ("train", "dev", "test"):
        make_corpus(
            index / f"{split}.spacy", [("Mercury rises", [("Mercury", PLANET)]), ("Mercury", [("Mercury", GOD)])]
        )

    def in_this_process(root: Path, *arguments: str, log: IO[str] | None = None, keep_open: Sequence[int] = ()) -> None:
        assert arguments[:3] == ("-m", "spacy_gemel", "peer")
        done = CliRunner().invoke(app, list(arguments[2:]))
        assert done.exit_code == 0, done.output

    monkeypatch.setattr(trials, "run", in_this_process)
    rows = [{"name": "by seed", "peer": "first"}, {"name": "third", "peer": {"kind": "first", "seed": 2}}]
    grid = grid_of(index, {"t": {"rows": rows}}, seeds=[0, 1])
    lab = run.make_lab(grid, index / "out")
    results = run.run_grid(lab, grid.tables)
    by_seed, third = results["tables"][0]["rows"]
    assert (by_seed["status"], by_seed["accuracy"], len(by_seed["trials"])) == ("run", 0.25, 2)
    assert (third["status"], third["accuracy"]) == ("run", 0.5)
    metrics = json.loads(lab.metrics(lab.plan.trials[third["trials"][0]]).read_text())
    assert metrics["settings"]["chosen"] == GOD
    path = index / "first.json"
    path.write_text(json.dumps(metrics))
    [read] = read_runs([path])
    assert (read.title, read.description) == ("The first", "text only, the first entity that there is")
    assert "first" in CliRunner().invoke(app, ["peer", "guess", "a", "b", "--kb", "kb", "-o", "x.json"]).stderr
