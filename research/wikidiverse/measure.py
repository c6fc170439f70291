"""The val rows answered by baselines, by the model, by the prior, and by a decision that weighs them and the rest."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import spacy

from research.baselines.entity_linker import make_entity_linker
from research.baselines.spacy_linker import LinkerOptions
from research.captions import Caption, ModelPaths, linker_in, make_pipeline
from research.commands import report, run_command
from research.machine import describe_machine
from research.mini_world import MODELS, ROOT
from research.statistics import with_interval
from research.wikidiverse.language_model import COURSES, check_torch, encoder_folder, make_model
from research.wikidiverse.text import read_entities, read_examples, split
from spacy_gemel.data.reader import read_docs
from spacy_gemel.evaluation.baselines import evaluate_baseline
from spacy_gemel.evaluation.bootstrap import accuracy_of, difference_of
from spacy_gemel.evaluation.decision_cases import collect_cases
from spacy_gemel.evaluation.decision_report import FOLDS, by_decision, cross_fit, fit
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.resolve import NIL
from spacy_gemel.linking.decision import Decision
from spacy_gemel.linking.prior import FLOOR
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.utils.files import write_json

VISION_ENCODER = ROOT / MODELS / "vision_encoder"  # a pipe must have one; this one gets no image
DEMONSTRATIONS = 8
BEAMS = 5
_ENTITY_LINKER = {"make": partial(make_entity_linker, options=LinkerOptions(), held_out=0.1)}
BASELINES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "most_frequent": ("most-frequent", {}),
    "most_frequent_any_case": ("most-frequent", {"ignore_case": True}),
    "alias": ("alias", {}),
    "entity_linker": ("entity_linker", _ENTITY_LINKER),
}
_REPORTED = ("seconds_to_prepare", "epoch", "prior_alone", "gold_among_candidates")
"""Of a baseline's own metrics."""
WAYS = ("model", "prior", "backoff", "decision")
"""The model alone; the prior alone, wrong where it has no evidence; the prior or else the model; all that is known."""
_BY_PRIOR = Decision({"prior": 1.0}, nil=math.log(FLOOR) + 1e-6)
"""The entity of the most evidence, NIL if none has any."""
_DIFFERENCES = (
    ("decision", "prior"),
    ("decision", "model"),
    ("decision", "backoff"),
    ("model", "most_frequent"),
    ("model", "most_frequent_any_case"),
    ("model", "prior"),
    ("model", "entity_linker"),
    ("decision", "most_frequent"),
    ("decision", "entity_linker"),
)


def run_wikidiverse(
    data: Path,
    course_name: str = "large",
    steps: int | None = None,
    work: Path | None = None,
    *,
    train_only: bool = False,
) -> dict[str, Any] | None:
    """Train what is not trained yet, measure, and write the figures to research/results.

    The language model reads the training text and the knowledge base's names, aliases and descriptions. Nothing is
    chosen on the val rows but the decision, which is cross-fitted.

    Args:
        data: A folder with kb/ and wikidiverse/.
        course_name: One of COURSES.
        steps: Of the training, in place of the course's.
        work: For what is made on the way; by default data/wikidiverse/COURSE.
        train_only: End with WORK/language_model and WORK/training.json.
    """
    course = COURSES[course_name].ending_at(steps or COURSES[course_name].steps)
    check_torch()
    if not train_only:
        check_models()
    work = work or ROOT / "data" / "wikidiverse" / course_name
    work.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val"):
        source, output = (data / "wikidiverse" / f"{part}.json").resolve(), (work / f"{part}.spacy").resolve()
        run_command(ROOT, "-m", "spacy_gemel", "convert", "mimic", str(source), str(output))
    entities_file = data / "kb" / "entities.jsonl"
    entities = read_entities(entities_file)
    learned, held_out = split(read_examples(work / "train.spacy", entities))
    training = make_model(work, learned, held_out, list(entities.values()), course)
    if train_only:
        return None
    report("building the knowledge base")
    build_kb(entities_file, work / "kb", load_tokenizer(str(work / "language_model")))
    converted = json.loads((work / "val.spacy.report.json").read_text(encoding="utf8"))
    result = {
        "command": f"python -m research wikidiverse --data DATA --course {course_name} --steps {course.steps}",
        "val": {"mentions": converted["mentions"], "note": "a mention that a row lists twice counts once"},
        **measure(work / "train.spacy", work / "val.spacy", work / "kb", work / "language_model"),
        "training": {**training, "mentions": len(learned), "held_out": len(held_out), "entities": len(entities)},
        "machine": describe_machine(),
    }
    write_json(ROOT / "research" / "results" / "wikidiverse-val.json", result)
    return result


def check_models() -> None:
    """SystemExit, before any long work, if a model is missing that measuring needs."""
    encoder_folder()
    if not any(VISION_ENCODER.glob("*.safetensors")):
        raise SystemExit(
            f"{VISION_ENCODER} holds no weights, and a pipe must have a vision encoder, even without images: run "
            "python -m spacy project run pretrain"
        )


class Answers:
    """Which answers were right: for each way a list over the same mentions.

    golds: of the mentions. groups: name -> whether each mention belongs to it; groups have figures of their own.
    """

    def __init__(self, gold_ids: Sequence[str], groups: Mapping[str, Sequence[bool]]) -> None:
        self.gold_ids = list(gold_ids)
        self.groups = groups
        self.correct: dict[str, list[bool]] = {}

    def add(self, way: str, correct: Sequence[bool], gold_ids: Sequence[str]) -> None:
        """Add a way's answers. Raises RuntimeError if they are to other mentions."""
        if list(gold_ids) != self.gold_ids:
            raise RuntimeError(
                f"{way} answered {len(gold_ids)} mentions, which are not the {len(self.gold_ids)} of the model"
            )
        self.correct[way] = list(correct)

    def figures(self, way: str) -> dict[str, Any]:
        """n, accuracy and its 95 % interval; the same of each group."""
        return self._by_group(accuracy_of, self.correct[way])

    def difference(self, first: str, second: str) -> dict[str, Any]:
        """The first way's accuracy minus the second's, with a paired bootstrap's 95 % interval; also of each group."""
        return self._by_group(difference_of, self.correct[first], self.correct[second])

    def _by_group(self, figure: Callable[..., dict[str, Any]], *correct: Sequence[bool]) -> dict[str, Any]:
        groups = {
            name: with_interval(figure(*(list(compress(each, inside)) for each in correct)))
            for name, inside in self.groups.items()
        }
        return {**with_interval(figure(*correct)), **groups}


def measure(train: Path, val: Path, kb: Path, language_model: Path) -> dict[str, Any]:
    """Every way's figures, and their differences. train, val: .spacy files. kb: built for the language model."""
    report("reading the training mentions as demonstrations")
    paths = ModelPaths(language_model, VISION_ENCODER, Path(encoder_folder()), kb)
    train_captions, val_captions = captions_of(train), captions_of(val)
    nlp = make_pipeline(paths, train_captions, DEMONSTRATIONS, use_image=False, beam_size=BEAMS, n_candidates=BEAMS)
    cases, columns = collect_cases(nlp, val)
    gold_ids = [case.gold for case in cases]
    if [caption.kb_id for caption in val_captions] != gold_ids:
        raise RuntimeError(f"{val}: {len(val_captions)} mentions, of which {len(gold_ids)} were answered")
    train_ids, texts = linker_in(nlp).training_gold_ids, {caption.text for caption in train_captions}
    by_prior = by_decision(cases, columns, _BY_PRIOR)
    evidence = [answer != NIL for answer in by_prior.answers]
    groups = {
        "seen": [gold in train_ids for gold in gold_ids],
        "unseen": [gold not in train_ids for gold in gold_ids],
        "new_texts": [caption.text not in texts for caption in val_captions],
        "with_evidence": evidence,
        "without_evidence": [not known for known in evidence],
    }
    answers = Answers(gold_ids, groups)
    right = {
        "model": [case.current[0] == case.gold for case in cases],
        "prior": by_prior.right(cases),
        "decision": cross_fit(cases, columns, columns, FOLDS).right(cases),
    }
    backoff = zip(evidence, right["prior"], right["model"], strict=True)
    right["backoff"] = [prior if known else model for known, prior, model in backoff]
    for way in WAYS:
        answers.add(way, right[way], gold_ids)
    baselines: dict[str, dict[str, Any]] = {}
    for name, (kind, options) in BASELINES.items():
        report(f"baseline: {name}")
        metrics, results = evaluate_baseline(kind, train, val, kb, **options)
        in_kb = [result for result in results if result.in_kb]
        answers.add(name, [result.correct for result in in_kb], [result.gold for result in in_kb])
        baselines[name] = {key: metrics["settings"][key] for key in _REPORTED if key in metrics["settings"]}
    return {
        **{way: answers.figures(way) for way in (*BASELINES, *WAYS)},
        "differences": {f"{first} - {second}": answers.difference(first, second) for first, second in _DIFFERENCES},
        "fitted": asdict(fit(cases, columns, columns)),
        "gold_among_the_candidates": sum(case.gold_index is not None for case in cases) / len(cases),
        "baselines": baselines,
        "settings": {"n_demonstrations": DEMONSTRATIONS, "beam_size": BEAMS, "use_image": False},
    }


def captions_of(path: Path) -> list[Caption]:
    """A .spacy file's mentions with a gold, one caption each."""
    return [
        Caption(doc.text, ent.start_char, ent.end_char, ent.kb_id_)
        for doc in read_docs(path, spacy.blank("en").vocab)
        for ent in doc.ents
        if ent.kb_id_
    ]
