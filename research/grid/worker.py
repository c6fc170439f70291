"""`python -m research.grid.worker JOB.json`: measure one trained pipeline in several ways.

A process of its own, so that a model that takes the process with it, or the memory of the GPU, takes no other trial.
"""

import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from research.grid.keeping import write_json
from research.grid.measured import write_measured
from spacy_gemel.evaluation.results import mentions_path
from spacy_gemel.evaluation.runner import EvaluateOptions, evaluate
from spacy_gemel.pipeline.loaded import load_pipeline

ERRORS = "errors.json"
"""Beside the job: output -> what went wrong with it; written when all have been tried."""
AT = "at.json"
"""Beside the job: `output`, which is being measured. Not there before the pipeline is loaded."""


def main(arguments: Sequence[str]) -> int:
    """Measure and write each; 1 where one failed, which ends no other."""
    job_file = Path(arguments[0])
    job = json.loads(job_file.read_text(encoding="utf8"))
    mark = time.perf_counter()
    errors: dict[str, str] = {}
    nlp = load_pipeline(job["pipeline"], gpu_id=job["gpu_id"])
    for wanted in job["trials"]:
        output = Path(wanted["output"])
        output.unlink(missing_ok=True)  # its mentions are replaced first
        mentions_path(output).unlink(missing_ok=True)
        write_json(job_file.with_name(AT), {"output": wanted["output"]})
        try:
            options = EvaluateOptions(**wanted["options"])
            metrics, results = evaluate(nlp, Path(job["data"]), options, pipeline=job["pipeline"])
            now = time.perf_counter()
            # the first has the seconds of loading the models on its account
            trial = {**wanted["trial"], "seconds": round(now - mark, 1)}
            mark = now
            write_measured({"key": wanted["key"], **metrics, "trial": trial}, results, output)
        except Exception as error:  # whatever it is, the other trials are still to be measured
            logging.getLogger(__name__).exception("%s", output)
            errors[wanted["output"]] = " ".join(str(error).split()) or type(error).__name__
    write_json(job_file.with_name(ERRORS), errors)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
