"""What annotation tools export: Prodigy's `db-out`, and Label Studio's JSON.

Prodigy: JSON lines {"text", "spans": [{"start", "end", "label"}], "answer", "image"}. The entity is the span's
`kb_id`, or the chosen option of a task with one span ("accept": ["Q308"]), as in spaCy's own NEL recipe.

Label Studio: tasks {"data": {"text", "image"}, "annotations": [{"result": [...]}]}. The entity is what a TextArea,
Choices or Taxonomy with perRegion="true" gives the labelled region, which has the same id.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from spacy_gemel.data.jsonl import parse_row, read_json_lines, read_json_rows
from spacy_gemel.data.records import ImageFolder, Problem, Record, as_list, first_id, is_text


def read_prodigy(path: Path) -> Iterator[Record | Problem]:
    """Yield the accepted tasks as documents, and the problems. Raises OSError for the file."""
    for row in read_json_lines(path):
        if isinstance(row, Problem) or not isinstance(row.value, dict):
            yield row if isinstance(row, Problem) else Problem(row.location, "row", "not an object")
        elif (answer := row.value.get("answer", "accept")) != "accept":
            yield Problem(row.location, "row", "not accepted", f"its answer is {answer!r}")
        else:
            spans, options = row.value.get("spans"), as_list(row.value.get("accept"))
            if isinstance(spans, list):
                chosen = {"kb_id": options[0]} if len(spans) == len(options) == 1 else {}
                spans = [{**chosen, **span} if isinstance(span, dict) else span for span in spans]
                for span in filter(lambda span: isinstance(span, dict), spans):
                    if str(span.get("kb_id")).startswith("NIL_"):  # "NIL_ambiguous": nothing was decided
                        span["kb_id"] = None
            doc_id = first_id(row.value.get("id"), row.value.get("_input_hash"))
            row = replace(row, value={**row.value, "mentions": spans, "id": doc_id})
            yield from parse_row(row, path.parent)


def read_label_studio(path: Path, *, images: Path | None = None) -> Iterator[Record | Problem]:
    """Yield the annotated tasks as documents, each by its first annotation that was not cancelled, and the problems.

    Without `images`, a path of the server's, such as /data/upload/1/x.jpg, is no file here. Raises ValueError and
    OSError for the file.
    """
    folder = ImageFolder(images)
    for row in read_json_rows(path):
        task = row.value if isinstance(row.value, dict) else {}
        data, annotations = task.get("data"), as_list(task.get("annotations"))
        annotations = [each for each in annotations if isinstance(each, dict) and not each.get("was_cancelled")]
        if not isinstance(data, dict):
            yield Problem(row.location, "row", "no task of Label Studio", "it has no data")
            continue
        image = data.get("image")
        mentions = _regions(as_list(annotations[0].get("result"))) if annotations else None
        value = {"id": first_id(data.get("id"), task.get("id")), "text": data.get("text"), "image": image}
        for each in parse_row(replace(row, value={**value, "mentions": mentions}), path.parent):
            if isinstance(each, Record) and is_text(image):
                name = PurePosixPath(image).name
                # the server puts eight digits before an uploaded file's name
                each = folder.add_image(each, name, name.partition("-")[2] or name)
            yield each


def _regions(results: list[Any]) -> list[dict[str, Any]]:
    """The labelled regions, each with the entity that a result with its id gives it."""
    regions: dict[Any, dict[str, Any]] = {}
    for result in results:
        value = result.get("value") if isinstance(result, dict) else None
        if not isinstance(value, dict):
            continue
        region = regions.setdefault(str(result.get("id")), {})
        kind = str(result.get("type"))
        if kind.endswith("labels"):
            label = next(iter(as_list(value.get(kind))), None)
            region |= {name: value.get(name) for name in ("start", "end", "text")} | {"label": label}
        elif entity := as_list(value.get("text" if kind == "textarea" else kind)):
            region["kb_id"] = as_list(entity[-1])[-1]  # a taxonomy's is a path
    return [region for region in regions.values() if "start" in region]
