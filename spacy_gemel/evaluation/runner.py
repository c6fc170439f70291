"""Run a pipeline over a .spacy file and measure its answers."""

import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from tqdm import tqdm

from spacy_gemel.data.reader import make_example, read_docs
from spacy_gemel.evaluation.bootstrap import RESAMPLES, SEED
from spacy_gemel.evaluation.examples import explain_examples
from spacy_gemel.evaluation.metrics import end_to_end_metrics, summarise
from spacy_gemel.evaluation.results import MentionResult, score_mentions, split_tail
from spacy_gemel.pipeline.loaded_pipeline import entity_pipes, linker_name, linker_of, measured_settings, overridden
from spacy_gemel.pipeline.scorer import check_images_read


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """How to evaluate; None leaves the pipe's own setting."""

    use_image: bool | None = None
    constrained: bool | None = None
    n_demonstrations: int | None = None
    predicted_ents: bool = False  # link the mentions of the pipeline's own NER instead of the gold mentions
    tail_share: float = 0.05
    limit: int = 0  # docs to read at most, 0 for all
    batch_size: int | None = None
    progress: bool = True
    # List each prompt's demonstrations, which are then retrieved once more, and explain the mentions of the report.
    details: bool = True


def evaluate(
    nlp: Language, data: Path, options: EvaluateOptions, *, pipeline: str = ""
) -> tuple[dict[str, Any], list[MentionResult]]:
    """Measure a pipeline on the gold docs of a .spacy file or a folder of them; `pipeline` is its recorded name.

    Returns the metrics, and one result per gold mention. Warns if some images could not be read. Raises ValueError if
    there is nothing to read, no linker in the pipeline, or if the linker could read none of the images.
    """
    pipe = linker_of(nlp)
    tail = split_tail(pipe.kb.counts, options.tail_share)
    examples = read_examples(nlp, data, gold_ents=not options.predicted_ents, limit=options.limit)
    setters = entity_pipes(nlp)
    if options.predicted_ents and not setters:
        raise ValueError("--predicted-ents needs a pipe that sets entities, such as a NER: there is none")
    overrides = {name: getattr(options, name) for name in ("use_image", "constrained", "n_demonstrations")}
    with (
        overridden(pipe, **{name: value for name, value in overrides.items() if value is not None}),
        # a NER would overwrite the gold mentions
        nullcontext() if options.predicted_ents else nlp.select_pipes(disable=setters),
    ):
        predicted = nlp.pipe((example.predicted for example in examples), batch_size=options.batch_size)
        seconds = predict(examples, predicted, "evaluate", progress=options.progress)
        if pipe.settings.use_image:
            docs = [example.predicted for example in examples if example.reference.ents]
            check_images_read(docs, name=linker_name(nlp), labels_discard=pipe.settings.labels_discard)
        linked = sum(len(example.predicted.ents) for example in examples)
        listed = options.details and pipe.settings.n_demonstrations > 0
        demonstrations = pipe.demonstrations_for if listed else None
        collected = tqdm(examples, "collect", disable=not options.progress)
        results = score_mentions(collected, pipe.kb, tail, pipe.training_gold_ids, demonstrations)
        if options.details:
            results = explain_examples(results, examples, pipe.explain)
        settings = {
            **measured_settings(nlp),  # with the overrides
            "predicted_ents": options.predicted_ents,
            "tail_share": options.tail_share,
            "limit": options.limit,
            "batch_size": options.batch_size or nlp.batch_size,
            "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
            "versions": {name: version(name) for name in ("spacy", "torch", "transformers")},
            "pipeline": pipeline,
            "data": data.as_posix(),
        }
    lost = next((r for r in results if r.predicted is None), None)
    if lost is not None and not options.predicted_ents:
        raise ValueError(
            f"a pipe removed a gold mention before the linker saw it (doc {lost.doc}, {lost.mention!r}): "
            "evaluate with --predicted-ents, or without that pipe"
        )
    metrics = summarise(results, tail, settings=settings, seconds=seconds, linked=linked)
    if options.predicted_ents:
        metrics.update(end_to_end_metrics(results, predicted_mentions=linked))
    return metrics, results


def read_examples(nlp: Language, data: Path, *, gold_ents: bool = True, limit: int = 0) -> list[Example]:
    """The docs of a .spacy file, or a folder of them, as examples to be linked, with the gold mentions or without.

    Raises ValueError if there is no mention.
    """
    docs = islice(read_docs(data, nlp.vocab), limit or None)
    examples = [make_example(nlp, doc, gold_ents=gold_ents) for doc in docs]
    if not any(example.reference.ents for example in examples):
        raise ValueError(f"{data}: not one mention in {len(examples)} docs, so there is nothing to evaluate")
    return examples


def predict(examples: Sequence[Example], docs: Iterable[Doc], label: str, *, progress: bool) -> float:
    """Replace the predicted docs by the same docs linked, with a progress bar; returns the seconds it took."""
    start = time.perf_counter()
    bar = tqdm(docs, label, total=len(examples), unit=" docs", disable=not progress)
    for example, doc in zip(examples, bar, strict=True):
        example.predicted = doc
    return time.perf_counter() - start
