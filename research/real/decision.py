"""What a fitted decision is worth on real text: `python -m research decision`, kept in results/decision.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import spacy
from spacy.util import registry

from research.cache import cached, cached_folder, digest, read_object
from research.commands import Progress, report
from research.machine import describe_machine
from research.mini_world import ROOT
from research.real.calibrate import cross_calibrate
from research.real.cells import BASE, DTYPE, FEW, Cell, Workspace, code_digest
from research.statistics import with_interval
from spacy_gemel.data.distant_supervision import make_demonstrations
from spacy_gemel.data.reader import read_docs
from spacy_gemel.evaluation.bootstrap import accuracy_of, difference_of
from spacy_gemel.evaluation.calibration import answer_figures
from spacy_gemel.evaluation.decision_cases import DecisionCase, collect_cases
from spacy_gemel.evaluation.decision_report import FOLDS, Answers, by_decision, cross_fit, fit
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import NIL, resolve_gold
from spacy_gemel.linking.descriptions import DescriptionIndex
from spacy_gemel.models.sentence_encoder import load_sentence_encoder
from spacy_gemel.pipeline.gemel_linker import FEATURES
from spacy_gemel.pipeline.loaded_pipeline import linker_of, load_pipeline, overridden
from spacy_gemel.utils.files import lock_file, write_json

T = TypeVar("T")
OUTPUT = ROOT / "research" / "results" / "decision.json"
WORK = ROOT / "metrics" / "evidence-real"
DATASETS = ("wikidiverse", "wikimel", "richpediamel")
"""The first is fitted on; what is fitted there is measured on the others."""
WEAK_DEV = 0.1
"""Share of the plain texts whose weak labels are fitted on; the others' are shown."""
_WEAK_FILES = ("shown.spacy", "weak.spacy")
DRAWS, TAKEN = 3, 0.2
"""So often so large a share of the gold entities is taken out of what the mentions may mean, to make NIL."""
SIBLINGS = 200
"""Entities that get a made sibling of the same name."""
TAIL = 2
"""An entity linked so often in the shown docs, at most, is of the tail."""


def run_decision(
    data: Path,
    models: Path,
    datasets: Sequence[str] = DATASETS,
    *,
    work: Path = WORK,
    output: Path = OUTPUT,
    root: Path = ROOT,
) -> dict[str, Any]:
    """Link the asked mentions with all features, fit, measure, write and return the figures.

    Args:
        data: A folder with kb/, wikidiverse/, wikimel/ and richpediamel/.
        models: A folder with language_model/ and sentence_encoder/.
        datasets: Of DATASETS; the first is always needed.
        work: Where the features of each part are cached.
        output: The file of the figures; what it holds of other experiments stays.
        root: The clone, where `spacy project run real` has left the pipeline and the drawings to measure on.

    Raises:
        ValueError: If a file is missing, or another process is running here.
    """
    names = list(dict.fromkeys([DATASETS[0], *datasets]))
    cells = {name: Cell(name, "text_only") for name in names}
    workspace = Workspace(data, models, work)
    workspace.check(cells.values())
    with lock_file(work / ".lock", f"{work}: another process is running cells here; wait for it"):
        progress = Progress(len(names))
        collected = {}
        for name, cell in cells.items():
            progress.report(name)
            collected[name] = _collect(workspace, cell)
        kb = KnowledgeBase.open(workspace.kb()[0])
        result = {**read_object(output), **figures(collected, kb)}
        result["unlabelled"] = unlabelled_figures(workspace, cells[names[0]], collected[names[0]])
        result["made_siblings"] = sibling_figures(workspace, kb)
        pipeline, test = root / "training" / "real" / "model-best", root / "corpus" / "real" / "test.spacy"
        if pipeline.is_dir() and test.exists():
            report("drawings")
            result["drawings"] = drawing_figures(pipeline, test)
        result |= {
            "command": "python -m research decision --data DATA --models MODELS",
            "settings": {**BASE, "use_image": False, "retriever": "dense", "dtype": DTYPE, "tail": TAIL},
            "code": code_digest(),
            "machine": describe_machine(),
        }
        write_json(output, result)
        workspace.digests.save()
    report(f"wrote {output}")
    return result


Collected = tuple[list[DecisionCase], list[str], dict[str, tuple[str, ...]], list[str]]
"""Cases, the columns of their values, the columns of each feature, and the digests of the code that computed them."""


def _collect(workspace: Workspace, cell: Cell) -> Collected:
    """The cases of all asked mentions of a data set, with its own docs as demonstrations."""
    corpus, key = workspace.corpus(cell.dataset), digest(workspace.key(cell), "decision")
    return _linked(workspace, cell, corpus.pool, corpus.chunks, workspace.folder / "decision" / cell.dataset, key)


def _linked(workspace: Workspace, cell: Cell, pool: Path, parts: Sequence[Path], folder: Path, key: str) -> Collected:
    """The cases of some parts, with the mentions of `pool` as demonstrations; a cached part is not linked again.

    What an earlier version of the features computed is taken by its columns' names: one that it lacked is 0.
    """
    instances = {name: registry.misc.get(f"spacy_gemel.{name}.v1")() for name in FEATURES.values()}
    features = {name: tuple(feature.columns) for name, feature in instances.items()}
    columns = [column for names in features.values() for column in names]
    cases: list[DecisionCase] = []
    codes = set()
    for number, part in enumerate(parts):
        file = folder / f"{part.stem}.json"
        content = cached(file, key)
        if content is None:
            report(f"{folder.name}: part {number + 1} of {len(parts)}")
            nlp = workspace.pipeline_of(cell, pool)
            with overridden(linker_of(nlp), **BASE):
                rows, names = collect_cases(nlp, part, progress=False)
            content = {"key": key, "columns": names, "cases": [_to_json(case) for case in rows], "code": code_digest()}
            write_json(file, content)
        codes.add(content["code"])
        cases += [_from_json(row, content["columns"], columns) for row in content["cases"]]
    return cases, columns, features, sorted(codes)


def _to_json(case: DecisionCase) -> dict[str, Any]:
    return {**asdict(case), "values": case.values.tolist()}


def _from_json(row: Mapping[str, Any], names: Sequence[str], columns: Sequence[str]) -> DecisionCase:
    computed = np.array(row["values"], dtype=np.float64).reshape(-1, len(names))
    values = np.zeros((len(computed), len(columns)))
    for index, column in enumerate(columns):
        if column in names:
            values[:, index] = computed[:, names.index(column)]
    return DecisionCase(**{**row, "values": values, "ids": tuple(row["ids"]), "current": tuple(row["current"])})


def figures(collected: Mapping[str, Collected], kb: KnowledgeBase) -> dict[str, Any]:
    """All figures of the collected data sets."""
    first = DATASETS[0]
    cases, columns, features, codes = collected[first]
    decision = fit(cases, columns, columns)
    after = cross_fit(cases, columns, columns, FOLDS)
    section = _section(cases, after, kb)
    section |= {"folds": FOLDS, "made_by_code": codes}
    prior = cross_fit(cases, columns, [*features["ScoreFeature"], *features["PriorFeature"]], FOLDS)
    section["score_and_prior"] = with_interval(accuracy_of(prior.right(cases), [case.doc for case in cases]))
    section["weights"] = {name: weight * decision.scales[name] for name, weight in decision.weights.items()}
    section["worth"] = {
        name: _worth(cases, after, cross_fit(cases, columns, [c for c in columns if c not in dropped], FOLDS))
        for name, dropped in features.items()
        if any(decision.weights[column] for column in dropped)
    }
    result = {first: section, "nil": nil_figures(cases, columns)}
    for name, (cases, _, _, codes) in collected.items():
        if name != first:
            section = _section(cases, by_decision(cases, columns, decision), kb)
            result[name] = {**section, "fitted_on": first, "made_by_code": codes}
    return result


def drawing_figures(pipeline: Path, test: Path) -> dict[str, Any]:
    """The drawings, linked by the pipeline that was trained on the others: with the decision, cross-fitted, and not."""
    nlp = load_pipeline(str(pipeline))
    cases, columns = collect_cases(nlp, test, progress=False)
    section = _section(cases, cross_fit(cases, columns, columns, FOLDS), linker_of(nlp).kb)
    return {**section, "folds": FOLDS}


def unlabelled_figures(workspace: Workspace, cell: Cell, labelled: Collected) -> dict[str, Any]:
    """Linking without a label: demonstrations and weak labels to fit on by `make-demonstrations`, measured on golds.

    It reads the texts of the docs that are shown otherwise, and answers the first FEW parts. Beside it stand the same
    mentions with labels: the demonstrations' and those that the decision is fitted on, cross-fitted.
    """
    corpus, folder = workspace.corpus(cell.dataset), workspace.folder / "unlabelled"
    kb = KnowledgeBase.open(workspace.kb()[0])
    key = digest(workspace.key(cell), "unlabelled", WEAK_DEV)

    def make(partial: Path) -> None:
        report("making demonstrations of plain texts")
        texts = dict.fromkeys(doc.text for doc in read_docs(corpus.pool, spacy.blank("en").vocab))
        source, (shown, dev) = partial / "texts.jsonl", (partial / name for name in _WEAK_FILES)
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf8")
        make_demonstrations(source, kb, shown, dev=dev, dev_share=WEAK_DEV, progress=False)

    cached_folder(folder, key, _WEAK_FILES[1], make)
    shown, dev = (folder / name for name in _WEAK_FILES)
    parts = corpus.chunks[:FEW]
    rows = workspace.folder / "decision" / "unlabelled"
    weak, columns, _, _ = _linked(workspace, cell, shown, [dev], rows, key)
    cases, _, _, codes = _linked(workspace, cell, shown, parts, rows, key)
    with_labels = [*zip(labelled[0], cross_fit(labelled[0], columns, columns, FOLDS).right(labelled[0]), strict=True)]
    with_labels = with_labels[: len(cases)]
    if [(case.doc, case.mention) for case, _ in with_labels] != [(case.doc, case.mention) for case in cases]:
        raise ValueError(f"{rows}: other mentions than in the parts with labels; delete it")
    after = by_decision(cases, columns, fit(weak, columns, columns))
    section = _section(cases, after, kb)
    docs, right = [case.doc for case in cases], after.right(cases)
    labels = {
        "by_score": with_interval(accuracy_of([case.current[0] == case.gold for case, _ in with_labels], docs)),
        "decision": with_interval(accuracy_of([hit for _, hit in with_labels], docs)),
        "lost_without": with_interval(difference_of([hit for _, hit in with_labels], right, docs)),
    }
    return {**section, "weak_mentions_fitted_on": len(weak), "with_labels": labels, "made_by_code": codes}


def sibling_figures(workspace: Workspace, kb: KnowledgeBase) -> dict[str, Any]:
    """How often the description tells an entity from a made one of the same name, which has another's description.

    Without counts, the search's score and the name leave it to chance.
    """
    encoder = load_sentence_encoder(str(workspace.models / "sentence_encoder"), device="cpu")
    index, generator = DescriptionIndex(encoder, kb), np.random.default_rng(0)
    right: list[bool] = []
    docs: list[str] = []
    seen: set[int] = set()
    for part in workspace.corpus(DATASETS[0]).chunks:
        for doc in read_docs(part, spacy.blank("en").vocab):
            for ent in doc.ents:
                row = resolve_gold(kb, ent.kb_id_)
                if row is None or row in seen or len(right) == SIBLINGS or not kb.entity(row).description:
                    continue
                seen.add(row)
                entity, other = kb.entity(row), None
                while other is None or not other.description or other.description == entity.description:
                    other = kb.entity(int(generator.integers(len(kb))))
                siblings = [entity, replace(other, kb_id="made", name=entity.name, count=entity.count)]
                shares = index.share(doc.text, siblings)
                right.append(shares[0] > shares[1])
                docs.append(str(doc.user_data["id"]))
    return {**with_interval(accuracy_of(right, docs)), "by_score": 0.5}


def _section(cases: Sequence[DecisionCase], after: Answers, kb: KnowledgeBase) -> dict[str, Any]:
    """Accuracy with the decision and by the score alone, and their difference, over all mentions and over groups."""
    before = Answers(*zip(*(case.current for case in cases), strict=True))
    groups = {
        "all": [True] * len(cases),
        "seen": [case.seen for case in cases],
        "unseen": [not case.seen for case in cases],
        "described": [case.has_description for case in cases],
        "undescribed": [not case.has_description for case in cases],
        "tail": [0 < case.count <= TAIL for case in cases],
        "common": [case.count > TAIL for case in cases],
        "shared_name": [_shares_name(kb, case.gold) for case in cases],
    }
    right, old = after.right(cases), before.right(cases)
    section: dict[str, Any] = {}
    for name, mask in groups.items():
        docs = _chosen([case.doc for case in cases], mask)
        if docs:
            new, past = _chosen(right, mask), _chosen(old, mask)
            section[name] = {
                **with_interval(accuracy_of(new, docs)),
                "by_score": with_interval(accuracy_of(past, docs)),
                "gain": with_interval(difference_of(new, past, docs)),
            }
    recall = sum(case.gold_index is not None for case in cases) / len(cases)
    ece = {"ece": after.figures(cases)["ece"], "ece_by_score": before.figures(cases)["ece"]}
    return {**section.pop("all"), "candidate_recall": recall, **ece, **section}


def _shares_name(kb: KnowledgeBase, kb_id: str) -> bool:
    row = kb.row(kb_id)
    return row is not None and len(kb.rows_by_surface(kb.entity(row).name)[0]) > 1


def _worth(cases: Sequence[DecisionCase], whole: Answers, without: Answers) -> dict[str, Any]:
    """What is lost without a feature, over all mentions, seen and unseen."""
    right, rest, docs = whole.right(cases), without.right(cases), [case.doc for case in cases]
    groups = {"all": [True] * len(cases), "seen": [c.seen for c in cases], "unseen": [not c.seen for c in cases]}
    by_group = {
        name: with_interval(difference_of(_chosen(right, mask), _chosen(rest, mask), _chosen(docs, mask)))
        for name, mask in groups.items()
    }
    return {**by_group.pop("all"), **by_group}


def _chosen(values: Sequence[T], mask: Sequence[bool]) -> list[T]:
    return [*compress(values, mask)]


def nil_figures(cases: Sequence[DecisionCase], columns: Sequence[str]) -> dict[str, Any]:
    """NIL by the decision, beside the temperature and threshold of the score that `calibrate` used to fit.

    In each draw some gold entities are taken out of all candidates, which stands for a knowledge base without them: the
    search is not run again, so no other name takes the place of one that it had found.
    """
    gold_ids = sorted({case.gold for case in cases})
    draws = []
    for seed in range(DRAWS):
        taken = {*np.random.default_rng(seed).permutation(gold_ids)[: round(TAKEN * len(gold_ids))].tolist()}
        drawn = [_without(case, taken, columns) for case in cases]
        after = cross_fit(drawn, columns, columns, FOLDS)
        before = _calibrated(drawn, columns)
        draws.append({"before": _nil(before, drawn), "after": _nil(after, drawn)})
    keys = ("ece", "nil_f", "nil_p", "nil_r", "linking_f")
    means = {f"{key}_{when}": float(np.mean([draw[when][key] for draw in draws])) for key in keys for when in draws[0]}
    return {**means, "draws": draws, "share_taken": TAKEN, "by": "removal from the candidates"}


def _nil(answers: Answers, cases: Sequence[DecisionCase]) -> dict[str, Any]:
    content = answer_figures([case.gold for case in cases], answers.answers, answers.best, answers.confidences)
    nil, linking = content["nil"], content["linking"]
    return {"ece": content["ece"], **{f"nil_{k}": nil[k] for k in "prf"}, "linking_f": linking["f"], "n": nil["n"]}


def _without(case: DecisionCase, taken: set[str], columns: Sequence[str]) -> DecisionCase:
    """A case without some entities, "behind" counted from the best that is left."""
    remaining = [index for index, kb_id in enumerate(case.ids) if kb_id not in taken]
    values = case.values[remaining].copy()
    if remaining:
        score, behind = columns.index("score"), columns.index("behind")
        values[:, behind] = values[:, score] - values[:, score].max()
    ids = tuple(case.ids[index] for index in remaining)
    return replace(case, gold=NIL if case.gold in taken else case.gold, ids=ids, values=values)


def _calibrated(cases: Sequence[DecisionCase], columns: Sequence[str]) -> Answers:
    """The score alone at a temperature with a threshold, both fitted on the docs of the other folds."""
    scores = [case.values[:, columns.index("score")] for case in cases]
    return cross_calibrate(cases, scores, FOLDS)
