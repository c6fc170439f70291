"""Run a pipeline over a .spacy file and measure what it says."""

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.training import Example
from tqdm import tqdm

from spacy_gemel.data.reader import make_example, read_docs
from spacy_gemel.evaluation.bootstrap import RESAMPLES, SEED
from spacy_gemel.evaluation.judge import Judge, no_demonstrations
from spacy_gemel.evaluation.metrics import behind_ner, summarise
from spacy_gemel.evaluation.results import MentionResult, mentions_path, write_mentions
from spacy_gemel.evaluation.tail import split_tail
from spacy_gemel.pipeline.loaded import entity_pipes, linker_name, linker_of, measured_settings, overridden
from spacy_gemel.pipeline.scorer import check_images_read
from spacy_gemel.utils.files import write_whole


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """How to evaluate; None leaves the pipe's own setting. `limit` counts docs, 0 for all.

    demonstrations: whether the results tell what each prompt showed, which takes the prompts to be made again.
    """

    use_image: bool | None = None
    constrained: bool | None = None
    n_demonstrations: int | None = None
    predicted_ents: bool = False
    tail_share: float = 0.05
    limit: int = 0
    batch_size: int | None = None
    progress: bool = True
    demonstrations: bool = True


def evaluate(
    nlp: Language,
    data: Path,
    options: EvaluateOptions,
    *,
    pipeline: str = "",
) -> tuple[dict[str, Any], list[MentionResult]]:
    """Measure a pipeline on a .spacy file or a folder of them.

    The linker gets the gold mentions, or with `predicted_ents` those of the pipeline's own NER. `pipeline` is what
    the settings call it.

    Returns the metrics of the design and one result per gold mention. Raises ValueError where there is
    nothing to read or no linker in the pipeline, and where the linker could read none of the images; warns where it
    could not read some.
    """
    pipe = linker_of(nlp)
    tail = split_tail(pipe.kb.counts, options.tail_share)
    docs = read_docs(data, nlp.vocab)
    examples = [
        make_example(nlp, doc, gold_ents=not options.predicted_ents) for doc in islice(docs, options.limit or None)
    ]
    if not any(example.reference.ents for example in examples):
        raise ValueError(f"{data}: not one mention in {len(examples)} docs, so there is nothing to evaluate")
    setters = entity_pipes(nlp)
    if options.predicted_ents and not setters:
        raise ValueError("--predicted-ents needs a pipe that sets entities, such as a NER: there is none")
    overrides = {name: getattr(options, name) for name in ("use_image", "constrained", "n_demonstrations")}
    with (
        overridden(pipe, **{name: value for name, value in overrides.items() if value is not None}),
        # a NER would overwrite the gold mentions
        nullcontext() if options.predicted_ents else nlp.select_pipes(disable=setters),
    ):
        seconds = _predict(nlp, examples, options)
        if pipe.settings.use_image:
            judged = [example.predicted for example in examples if example.reference.ents]
            check_images_read(judged, name=linker_name(nlp), labels_discard=pipe.settings.labels_discard)
        linked = sum(len(example.predicted.ents) for example in examples)
        shows = options.demonstrations and pipe.settings.n_demonstrations > 0
        judge = Judge(pipe.kb, tail, pipe.training_golds, pipe.demonstrations_for if shows else no_demonstrations)
        results = [
            result
            for number, example in enumerate(tqdm(examples, "collect", disable=not options.progress))
            for result in judge.results_of(example, number)
        ]
        settings = {**_settings(nlp, options), "pipeline": pipeline, "data": data.as_posix()}
    if not options.predicted_ents and any(r.predicted is None for r in results):
        lost = next(r for r in results if r.predicted is None)
        raise ValueError(
            f"a pipe took a gold mention away before the linker saw it (doc {lost.doc}, {lost.mention!r}): "
            "evaluate with --predicted-ents, or without that pipe"
        )
    metrics = summarise(results, tail, settings=settings, seconds=seconds, linked=linked)
    if options.predicted_ents:
        metrics.update(behind_ner(results, predicted_mentions=linked))
    return metrics, results


def write_evaluation(metrics: dict[str, Any], results: Sequence[MentionResult], output: Path) -> None:
    """Write METRICS.json and METRICS.mentions.jsonl, each whole or not at all, the numbers last."""
    write_mentions(results, mentions_path(output))
    with write_whole(output) as partial:
        partial.write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _predict(nlp: Language, examples: Sequence[Example], options: EvaluateOptions) -> float:
    """Run the pipeline over the predicted docs; the seconds it took."""
    start = time.perf_counter()
    predicted = nlp.pipe((example.predicted for example in examples), batch_size=options.batch_size)
    bar = tqdm(predicted, "evaluate", total=len(examples), unit=" docs", disable=not options.progress)
    for example, doc in zip(examples, bar, strict=True):
        example.predicted = doc
    return time.perf_counter() - start


def _settings(nlp: Language, options: EvaluateOptions) -> dict[str, Any]:
    """What a reader must know to run it again. Read while the overrides are in force."""
    return {
        **measured_settings(nlp),
        "predicted_ents": options.predicted_ents,
        "tail_share": options.tail_share,
        "limit": options.limit,
        "batch_size": options.batch_size or nlp.batch_size,
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
        "versions": {name: version(name) for name in ("spacy", "torch", "transformers")},
    }
