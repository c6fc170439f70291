"""A knowledge base of real entities: built, opened, every gold of four data sets looked up in it, and linked against.

python -m benchmarks.real_kb --data ../shared/data

The language model is the mini world's, which has never read these names: how often it is right says nothing. Only
figures go to benchmarks/results.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.converters import FILES
from benchmarks.subject import Caption, ModelPaths, docs_of, make_pipeline
from research.commands import report
from research.machine import describe_machine
from research.mini_world import MODELS, ROOT
from spacy_gemel.data.records import as_list
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.check import check_kb
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.resolve import resolve_gold
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.utils.files import write_json

EXAMPLES, LINKED = 200, 200
WIKI = "https://en.wikipedia.org/wiki/"
# How a gold may be written, of the QID and the title that the data give.
WAYS: dict[str, Callable[[str, str], str]] = {
    "qid": lambda qid, _: qid,
    "title": lambda _, title: title,
    "escaped title": lambda _, title: quote(title.replace(" ", "_")),
    "url": lambda _, title: WIKI + quote(title.replace(" ", "_")),
}


def main(arguments: list[str]) -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_kb", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with kb/, wikidiverse/, wikimel/, ...")
    data = parser.parse_args(arguments).data
    with tempfile.TemporaryDirectory() as name:
        result = measure(data, Path(name))
    result = {"command": "python -m benchmarks.real_kb --data DATA", **result, "machine": describe_machine()}
    write_json(ROOT / "benchmarks" / "results" / "real-kb.json", result)
    print(json.dumps(result))


def measure(data: Path, folder: Path) -> dict[str, Any]:
    """All figures. folder: for the knowledge bases, one keyed on QIDs and one on titles."""
    tokenizer = load_tokenizer(str(ROOT / MODELS / "language_model"))
    entities = [json.loads(line) for line in (data / "kb" / "entities.jsonl").read_text("utf-8").splitlines()]
    gold_ids = list(read_gold_ids(data))
    resolved: dict[str, Any] = {}
    for keyed in ("qids", "titles"):
        report(f"a knowledge base keyed on {keyed}")
        rows = entities if keyed == "qids" else on_titles(entities)
        source = folder / f"{keyed}.jsonl"
        source.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        built = build_kb(source, folder / keyed, tokenizer, progress=False)
        kb = KnowledgeBase.open(folder / keyed, verify=True)
        resolved[keyed] = {
            "entities": built.meta.entities,
            "names": built.meta.names,
            "build_seconds": round(built.seconds, 1),
            "skipped": {reason: skipped.count for reason, skipped in built.meta.skipped.items()},
            "problems": check_kb(folder / keyed),
            "golds": {way: look_up(kb, gold_ids, write) for way, write in WAYS.items()},
        }
    linking = link(data, folder / "qids")
    results = [ways for keyed in resolved.values() for ways in keyed["golds"].values()]
    holds = {
        "every_qid": all(keyed["golds"]["qid"] == {"as its QID": len(gold_ids)} for keyed in resolved.values()),
        "no_gold_is_another": not any("another" in ways for ways in results),
        "nothing_is_damaged": not any(keyed["problems"] for keyed in resolved.values()),
        "answers_are_entities": linking["answers_in_kb"] == linking["mentions"],
    }
    return {"golds": len(gold_ids), **resolved, "linking": linking, "holds": holds}


def on_titles(entities: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same entities with names as ids and QIDs as aliases; where two share a name, both keep their QIDs."""
    taken = Counter(entity["name"] for entity in entities)
    return [
        {
            **entity,
            "id": entity["name"] if taken[entity["name"]] == 1 else entity["id"],
            "aliases": [*entity.get("aliases", ()), entity["id"]],
        }
        for entity in entities
    ]


def read_gold_ids(data: Path) -> Iterator[tuple[str, str]]:
    """QID and title of each distinct gold of the four files."""
    seen = set()
    for _, file in FILES.values():
        rows = json.loads((data / file).read_text(encoding="utf-8"))
        for row in rows.values() if isinstance(rows, dict) else rows:
            titles = as_list(row.get("entities", row.get("entity")))
            for pair in zip(as_list(row["answer"]), titles, strict=True):
                if pair not in seen and all(isinstance(part, str) for part in pair):
                    seen.add(pair)
                    yield pair


def look_up(kb: KnowledgeBase, gold_ids: list[tuple[str, str]], write: Callable[[str, str], str]) -> dict[str, int]:
    """How many golds, written in one way, are found, as the entity of their QID or as another, and how many are not.

    Not found is a title that two entities share, or one that is no name or alias: a redirect that the file lacks.
    """
    results: Counter[str] = Counter()
    for qid, title in gold_ids:
        row, right = resolve_gold(kb, write(qid, title)), resolve_gold(kb, qid)
        if row is None:
            results["of no entity" if not any(kb.rows_by_surface(title)) else "of several"] += 1
        else:
            results["as its QID" if row == right else "another"] += 1
    return dict(sorted(results.items()))


def link(data: Path, kb: Path) -> dict[str, Any]:
    """Sentences of WikiDiverse, linked without images: every answer must be an entity of the knowledge base."""
    report("linking")
    models = ROOT / MODELS
    paths = ModelPaths(models / "language_model", models / "vision_encoder", models / "sentence_encoder", kb)
    train = captions(data / "wikidiverse" / "train.json", EXAMPLES)
    nlp = make_pipeline(paths, train, 4)
    docs = docs_of(nlp, captions(data / "wikidiverse" / "val.json", LINKED))
    begin = time.perf_counter()
    answers = [doc.ents[0].kb_id_ for doc in nlp.pipe(docs)]
    seconds = time.perf_counter() - begin
    opened = KnowledgeBase.open(kb)
    return {
        "mentions": len(answers),
        "answers_in_kb": sum(answer in opened for answer in answers),
        "mentions_per_second": round(len(answers) / seconds, 1),
    }


def captions(path: Path, count: int, longest: int = 99) -> list[Caption]:
    """The first mention of some sentences of at most so many characters, by default as the mini world's model takes."""
    results = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        start = row["sentence"].find(row["mention"][0]) if row["mention"] else -1
        if start >= 0 and len(row["sentence"]) <= longest:
            end = start + len(row["mention"][0])
            results.append(Caption(row["sentence"], start, end, row["answer"][0], None))
        if len(results) == count:
            break
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
