"""The val rows answered by peers, by the model, by the prior, and by both."""

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from benchmarks.running import say
from benchmarks.subject import Caption, Parts, linker_in, make_pipeline
from benchmarks.wikidiverse.model import encoder_folder
from benchmarks.worlds import MODELS, ROOT
from research.baselines.runner import PeerOptions, evaluate_peer
from spacy_gemel.data.reader import read_docs
from spacy_gemel.evaluation.prior_weight import (
    WAYS,
    accuracy_of,
    collect_cases,
    cross_validate,
    curve,
    difference_of,
)

VISION_ENCODER = ROOT / MODELS / "vision_encoder"  # which a pipe must have; it is shown no image
DEMONSTRATIONS = 8
BEAMS = 5
PEERS = {
    "shortcut": ("shortcut", PeerOptions()),
    "shortcut_any_case": ("shortcut", PeerOptions(ignore_case=True)),
    "alias": ("alias", PeerOptions()),
    "entity_linker": ("entity_linker", PeerOptions(held_out=0.1)),  # which choose its epoch
}
# What a peer's own metrics say of it, beside its answers.
TOLD = ("seconds_to_prepare", "epoch", "prior_alone", "gold_among_candidates")


class Answers:
    """Who answered what rightly: for each way a list over the same mentions."""

    def __init__(self, golds: Sequence[str], groups: Mapping[str, Sequence[bool]]) -> None:
        """groups: mentions whose figures are told apart as well, by name, each over all of them."""
        self.golds = list(golds)
        self.groups = groups
        self.correct: dict[str, list[bool]] = {}

    def add(self, way: str, correct: Sequence[bool], golds: Sequence[str]) -> None:
        """Take another way's answers. Raises RuntimeError where they are to other mentions."""
        if list(golds) != self.golds:
            raise RuntimeError(f"{way} was asked about {len(golds)} mentions that are not the {len(self.golds)} others")
        self.correct[way] = list(correct)

    def figures(self, way: str) -> dict[str, Any]:
        """n, accuracy and its 95 % interval; the same of each group."""
        return self._by_group(accuracy_of, self.correct[way])

    def difference(self, first: str, second: str) -> dict[str, Any]:
        """The first way's accuracy minus the second's, with a paired bootstrap's 95 % interval; also of each group."""
        return self._by_group(difference_of, self.correct[first], self.correct[second])

    def _by_group(self, message: Callable[..., dict[str, Any]], *correct: Sequence[bool]) -> dict[str, Any]:
        groups = {
            name: _with_interval(message(*(list(compress(each, inside)) for each in correct)))
            for name, inside in self.groups.items()
        }
        return {**_with_interval(message(*correct)), **groups}


def _with_interval(figures: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in figures.items() if name not in ("low", "high")}
    return {**rest, "interval": [figures["low"], figures["high"]]}


def measure(train: Path, val: Path, kb: Path, language_model: Path) -> dict[str, Any]:
    """Every way's figures, and their differences. train, val: .spacy files; kb: built for the language model."""
    say("reading the training mentions as demonstrations")
    parts = Parts(language_model, VISION_ENCODER, Path(encoder_folder()), kb)
    known = captions_of(train)
    nlp = make_pipeline(parts, known, DEMONSTRATIONS, use_image=False, beam_size=BEAMS, n_candidates=BEAMS)
    cases = collect_cases(nlp, val)
    crossed = cross_validate(cases)
    seen = linker_in(nlp).training_golds
    texts = {caption.text for caption in known}
    asked = captions_of(val)
    if [caption.kb_id for caption in asked] != crossed.golds:
        raise RuntimeError(f"{val}: {len(asked)} mentions, of which {len(crossed.golds)} were answered")
    evidence = [case.has_evidence() for case in cases]
    groups = {
        "seen": [gold in seen for gold in crossed.golds],
        "unseen": [gold not in seen for gold in crossed.golds],
        "new_texts": [caption.text not in texts for caption in asked],
        "with_evidence": evidence,
        "without_evidence": [not known for known in evidence],
    }
    answers = Answers(crossed.golds, groups)
    for way in WAYS:
        answers.add(way, crossed.correct(way), crossed.golds)
    message: dict[str, dict[str, Any]] = {}
    for name, (kind, options) in PEERS.items():
        say(f"peer: {name}")
        metrics, results = evaluate_peer(kind, train, val, kb, options)
        in_kb = [result for result in results if result.in_kb]
        answers.add(name, [result.correct for result in in_kb], [result.gold for result in in_kb])
        message[name] = {key: metrics["settings"][key] for key in TOLD if key in metrics["settings"]}
    found = sum(case.gold in {c.kb_id for c in case.candidates if c.searched} for case in cases)
    return {
        **{way: answers.figures(way) for way in (*PEERS, *WAYS)},
        "differences": {
            f"{first} - {second}": answers.difference(first, second)
            for first, second in (
                ("both", "prior"),
                ("both", "model"),
                ("both", "backoff"),
                ("model", "shortcut"),
                ("model", "shortcut_any_case"),
                ("model", "prior"),
                ("model", "entity_linker"),
                ("both", "shortcut"),
                ("both", "entity_linker"),
            )
        },
        "prior_weights": crossed.weights,
        "accuracy_by_weight": curve(cases),
        "gold_among_the_models_candidates": found / len(cases),
        "peers": message,
        "settings": {"n_demonstrations": DEMONSTRATIONS, "beam_size": BEAMS, "use_image": False},
    }


def captions_of(path: Path) -> list[Caption]:
    """A .spacy file's mentions with a gold, one caption each."""
    import spacy

    return [
        Caption(doc.text, ent.start_char, ent.end_char, ent.kb_id_, None)
        for doc in read_docs(path, spacy.blank("en").vocab)
        for ent in doc.ents
        if ent.kb_id_
    ]
