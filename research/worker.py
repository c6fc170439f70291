"""`python -m research.worker JOB.json`: measure one trained pipeline in several ways.

It is a process of its own, so that a model that kills it, or fills the GPU's memory, harms no other training.
"""

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy_gemel.evaluation.results import mentions_path, write_mentions
from spacy_gemel.evaluation.runner import EvaluateOptions, evaluate
from spacy_gemel.pipeline.loaded_pipeline import linker_of, load_pipeline
from spacy_gemel.utils.files import sha256_of, write_json
from spacy_gemel.utils.messages import one_line

if TYPE_CHECKING:
    from spacy.language import Language

ERRORS = "errors.json"
"""Beside the job: output -> error; written at the end."""
CURRENT = "at.json"
"""Beside the job: the `output` that is being measured; it appears after the pipeline is loaded."""


def main(arguments: Sequence[str]) -> int:
    """Measure and write each trial; 1 if one failed, which ends no other."""
    path = Path(arguments[0])
    job = json.loads(path.read_text(encoding="utf8"))
    start = time.perf_counter()
    errors: dict[str, str] = {}
    nlp = load_pipeline(job["pipeline"], gpu_id=job["gpu_id"])
    for row in job["trials"]:
        output, mentions = Path(row["output"]), mentions_path(Path(row["output"]))
        output.unlink(missing_ok=True)
        mentions.unlink(missing_ok=True)
        write_json(path.with_name(CURRENT), {"output": row["output"]})
        try:
            options = EvaluateOptions(**row["options"])
            metrics, results = evaluate(nlp, Path(job["data"]), options, pipeline=job["pipeline"])
            if job.get("prompt_lengths"):
                metrics["prompts"] = prompt_lengths(nlp, Path(job["data"]))
            end = time.perf_counter()
            trial, start = {**row["trial"], "seconds": round(end - start, 1)}, end  # the first includes loading
            write_mentions(results, mentions)
            record = {"n": len(results), "sha256": sha256_of(mentions)}
            write_json(output, {"key": row["key"], **metrics, "trial": trial, "mentions": record})
        except Exception as error:  # the other trials still have to be measured
            logging.getLogger(__name__).exception("%s", output)
            errors[row["output"]] = one_line(error)
    write_json(path.with_name(ERRORS), errors)
    return 1 if errors else 0


def prompt_lengths(nlp: "Language", data: Path) -> dict[str, float]:
    """Tokens of the mentions' prompts, each with an image's soft tokens: the mean and the longest."""
    import numpy as np

    from spacy_gemel.data.reader import read_docs
    from spacy_gemel.pipeline.mentions import gather_mentions

    linker: Any = linker_of(nlp)
    image = np.zeros(1, dtype=np.float32)  # any features make room for the soft tokens
    mentions = gather_mentions([doc.ents for doc in read_docs(data, nlp.vocab)], None, linker.settings)
    prompts = linker.linking_model.prompts([replace(mention, features=image) for mention in mentions], linker.settings)
    lengths = [prompt.length for prompt in prompts if prompt is not None]
    return {"mean": sum(lengths) / len(lengths), "longest": max(lengths)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
