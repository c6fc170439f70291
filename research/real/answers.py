"""What a pipeline answers on the docs of a .spacy file, as plain rows, and figures of the rows."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.language import Language

from research.statistics import with_interval
from spacy_gemel.data.reader import read_docs
from spacy_gemel.evaluation.bootstrap import RESAMPLES, SEED, accuracy_of, difference_of
from spacy_gemel.evaluation.results import score_mentions, split_tail
from spacy_gemel.evaluation.runner import predict, read_examples
from spacy_gemel.kb.resolve import resolve_gold
from spacy_gemel.pipeline.loaded_pipeline import linker_of

Row = Mapping[str, Any]

GROUPS: Mapping[str, Callable[[Row], bool]] = {
    "seen": lambda row: row["seen"],
    "unseen": lambda row: not row["seen"],
    "new_texts": lambda row: row["new_text"],
    "gold_shown": lambda row: row["shown"],
    "gold_not_shown": lambda row: not row["shown"],
}
"""The gold entity occurs in the demonstrations' docs, or not; the text does not; the gold is in the prompt, or not."""


def link_gold_mentions(nlp: Language, path: Path) -> list[dict[str, Any]]:
    """One row per gold mention; `name` is the best candidate's, `found` whether the gold is among the candidates."""
    linker = linker_of(nlp)
    examples = read_examples(nlp, path)
    predict(examples, nlp.pipe(example.predicted for example in examples), "link", progress=False)
    tail = split_tail(linker.kb.counts, 0)
    results = score_mentions(examples, linker.kb, tail, linker.training_gold_ids, linker.demonstrations_for)
    texts = {demonstration.text for demonstration in linker.store}
    return [
        {
            **{name: getattr(result, name) for name in ("doc", "start", "end", "mention", "gold", "predicted", "seen")},
            "name": result.candidates[0]["name"] if result.candidates else None,
            "found": result.gold in {candidate["kb_id"] for candidate in result.candidates},
            "shown": result.gold in {demonstration["kb_id"] for demonstration in result.demonstrations},
            "new_text": result.text not in texts,
        }
        for result in results
    ]


def link_raw_texts(nlp: Language, path: Path) -> list[dict[str, Any]]:
    """One row per text: how many mentions are gold, were predicted, were both, and were linked to the gold besides.

    A mention counts as found with its exact characters. Docs that the converter made of one text, because mentions
    overlap, are one.
    """
    kb = linker_of(nlp).kb
    gold_mentions: dict[tuple[str, str], dict[tuple[int, int], str]] = {}
    for doc in read_docs(path, nlp.vocab):
        mentions = gold_mentions.setdefault((str(doc.user_data["id"]), doc.text), {})
        for ent in doc.ents:
            row = resolve_gold(kb, ent.kb_id_)
            mentions[ent.start_char, ent.end_char] = ent.kb_id_ if row is None else kb.entity(row).kb_id
    rows = []
    docs = nlp.pipe(text for _, text in gold_mentions)
    for ((id_, _), gold), doc in zip(gold_mentions.items(), docs, strict=True):
        predicted = {(ent.start_char, ent.end_char): ent.kb_id_ for ent in doc.ents}
        both = gold.keys() & predicted.keys()
        links = sum(gold[span] == predicted[span] for span in both)
        rows.append({"doc": id_, "gold": len(gold), "predicted": len(predicted), "mentions": len(both), "links": links})
    return rows


def key_of(row: Row) -> tuple[Any, ...]:
    """The mention that a row answers."""
    return row["doc"], row["start"], row["end"], row["gold"]


def correct(rows: Sequence[Row]) -> list[bool]:
    """Whether each answer is the gold entity."""
    return [row["predicted"] == row["gold"] for row in rows]


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """n, accuracy and its 95 % interval, docs resampled with all their mentions; the same of each group."""

    def accuracy(rows: Sequence[Row]) -> dict[str, Any]:
        return with_interval(accuracy_of(correct(rows), [row["doc"] for row in rows]))

    groups = {name: [row for row in rows if inside(row)] for name, inside in GROUPS.items()}
    return {
        **accuracy(rows),
        "gold_among_candidates": sum(row["found"] for row in rows) / len(rows),
        **{name: accuracy(group) for name, group in groups.items() if group},
    }


def difference(first: Sequence[Row], second: Sequence[Row]) -> dict[str, Any]:
    """The first accuracy minus the second on the mentions that both answered, with a paired bootstrap over docs."""
    left, right = _paired(first, second)
    value = difference_of(correct(left), correct(right), [row["doc"] for row in left])
    return {"n": len(left), **with_interval(value)}


def _paired(first: Sequence[Row], second: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of the same mentions, in the second's order."""
    answers = {key_of(row): row for row in first}
    right = [row for row in second if key_of(row) in answers]
    return [answers[key_of(row)] for row in right], right


def end_to_end_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Precision, recall and F1 of mentions and of links, each with its 95 % interval; docs are resampled."""
    counts = np.array([[row[name] for name in ("gold", "predicted", "mentions", "links")] for row in rows])
    draws = np.random.default_rng(SEED).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=RESAMPLES)
    total, resampled = counts.sum(axis=0, keepdims=True), draws @ counts  # (1, 4), (resamples, 4)
    result: dict[str, Any] = {"texts": len(rows), "gold": int(total[0, 0]), "predicted": int(total[0, 1])}
    for name, column in (("mentions", 2), ("links", 3)):
        values, intervals = _scores(total, column), _scores(resampled, column)
        result[name] = {
            measure: {"value": float(values[measure][0]), "interval": np.nanpercentile(drawn, [2.5, 97.5]).tolist()}
            for measure, drawn in intervals.items()
        }
    return result


def _scores(counts: NDArray[np.int64], column: int) -> dict[str, NDArray[np.float64]]:
    gold, predicted, right = counts[:, 0], counts[:, 1], counts[:, column]
    with np.errstate(invalid="ignore"):  # 0 / 0 if nothing was predicted
        return {"precision": right / predicted, "recall": right / gold, "f1": 2 * right / (gold + predicted)}
