"""Measure a peer as `evaluate` measures a pipeline: the same mentions, scored alike, in the same files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from research.baselines.kinds import KINDS
from research.baselines.options import PeerOptions
from spacy_gemel.evaluation.baselines import Baseline, TrainingData, evaluate_baseline
from spacy_gemel.evaluation.results import MentionResult

__all__ = ["KINDS", "PeerOptions", "evaluate_peer"]


def evaluate_peer(
    kind: str, train: Path, test: Path, kb_folder: Path, options: PeerOptions
) -> tuple[dict[str, Any], list[MentionResult]]:
    """Let a peer learn from `train` and measure it on the gold mentions of `test`, .spacy files or folders of them.

    Returns what `evaluation.runner.evaluate` does, which `write_evaluation` writes. Raises ValueError where there is no
    such kind, an option that the kind has no use for, and where there is nothing to read, KBError for the
    knowledge base.
    """
    options.check(kind)
    peer = KINDS[kind]
    description = {"title": peer.title, "description": peer.message(ignore_case=options.ignore_case)}

    def make(data: TrainingData) -> Baseline:
        baseline = peer.make(data, options)
        return replace(baseline, settings={**description, **baseline.settings})

    return evaluate_baseline(
        kind,
        train,
        test,
        kb_folder,
        make,
        lang=options.lang,
        tail_share=options.tail_share,
        limit=options.limit,
        progress=options.progress,
    )
