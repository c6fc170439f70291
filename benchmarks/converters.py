"""The converters on the real data: every row read, every mention in its place, and what remains by reason.

python -m benchmarks.converters --data ../shared/data [--sample N --seed S --sample-file FILE]

Converts WikiDiverse (train and val, in MIMIC's form), WikiMEL and RichpediaMEL, and reads what was written. The sample
is for reading: N mentions of WikiMEL that are not verbatim in their sentence, drawn at random, each with its sentence
and the words it was found at. It belongs outside the repo; only figures and reasons go to benchmarks/results.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy.tokens import DocBin
from spacy.vocab import Vocab

from research.machine import describe_machine
from spacy_gemel.data.datasets.alignment import PART_OF_WORD, VERBATIM, align
from spacy_gemel.data.datasets.converters import convert
from spacy_gemel.data.records import as_list
from spacy_gemel.data.report import report_path
from spacy_gemel.utils.files import write_json

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    "wikidiverse-train": ("mimic", "wikidiverse/train.json"),
    "wikidiverse-val": ("mimic", "wikidiverse/val.json"),
    "wikimel": ("wikimel", "wikimel/Wikidata-MEL.json"),
    "richpediamel": ("richpediamel", "richpediamel/Richpedia-MEL.json"),
}
LEAST_TOLERANT = 0.98
MOST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Row:
    """A sentence, its mentions and their golds."""

    sentence: str
    mentions: list[str]
    gold_ids: list[str]


def main(arguments: list[str]) -> None:
    """Convert everything, print the figures and keep them, or draw a sample for reading."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.converters", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with wikidiverse/, wikimel/, richpediamel/")
    parser.add_argument("--sample", type=int, default=0, help="draw so many tolerant alignments instead")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--sample-file", type=Path, help="where the sample goes: outside the repo")
    options = parser.parse_args(arguments)
    if options.sample:
        if options.sample_file is None or options.sample_file.resolve().is_relative_to(ROOT):
            parser.error(
                "--sample needs --sample-file, outside the repo: the data set's text is not ours to keep there"
            )
        draw_sample(options.data, options.sample, options.seed, options.sample_file)
        return
    with tempfile.TemporaryDirectory() as name:
        sets = {key: measure(kind, options.data / file, Path(name)) for key, (kind, file) in FILES.items()}
    fuzzy_alignment = sets["wikimel"]["not_verbatim"]
    holds = {
        "every_row_read": all(figures["rows"]["read"] == figures["rows_in_file"] for figures in sets.values()),
        "every_row_kept": all(figures["rows"]["kept"] == figures["rows_in_file"] for figures in sets.values()),
        "every_mention_accounted": all(figures["mentions"] == figures["mentions_in_file"] for figures in sets.values()),
        "every_verbatim_mention_aligned": all(
            figures["verbatim"] == figures["verbatim_aligned"] == figures["verbatim_in_docs"]
            for figures in sets.values()
        ),
        "wikimel_tolerant_share": fuzzy_alignment["share"] >= LEAST_TOLERANT,
        "wikimel_seconds": sets["wikimel"]["seconds"] < MOST_SECONDS,
    }
    result = {"command": "python -m benchmarks.converters --data DATA", "sets": sets, "holds": holds}
    result["machine"] = describe_machine()
    write_json(ROOT / "benchmarks" / "results" / "converters.json", result)
    print("\n".join(table(sets)))
    print(json.dumps(result, ensure_ascii=False))


def measure(kind: str, source: Path, folder: Path) -> dict[str, Any]:
    """Convert one file; what its report says, and what a count of the file itself says beside that."""
    out = folder / "out.spacy"
    start = time.perf_counter()
    convert(kind, source, out, progress=False)
    seconds = time.perf_counter() - start
    report = json.loads(report_path(out).read_text(encoding="utf8"))
    rows = list(rows_of(source))
    verbatim_ents = verbatim_in_docs(out, rows)
    # beyond the times a string occurs in its sentence a mention has no place there, verbatim or otherwise
    verbatim, not_verbatim, beyond = count_mentions(rows)
    alignment = report["alignment"]
    fuzzy_alignment = sum(alignment["tolerant"].values())
    return {
        "rows_in_file": len(rows),
        "rows": report["rows"],
        "docs": report["docs"],
        "mentions_in_file": sum(len(row.mentions) for row in rows),
        "mentions": report["mentions"]["read"],
        "verbatim": verbatim,
        "verbatim_in_docs": verbatim_ents,
        "verbatim_aligned": alignment["verbatim"] + alignment["part_of_a_longer_word"],
        "of_these_inside_a_longer_word": alignment["part_of_a_longer_word"],
        "not_verbatim": {
            "mentions": not_verbatim,
            "aligned": fuzzy_alignment,
            "share": round(fuzzy_alignment / not_verbatim, 4) if not_verbatim else 1.0,
            "by_rule": alignment["tolerant"],
        },
        "listed_more_often_than_they_occur": {
            "mentions": beyond,
            "same_entity_so_merged": alignment["same_mention_listed_again"],
            "another_entity_so_left_out": beyond - alignment["same_mention_listed_again"],
        },
        "left_out_by_reason": report["mentions"]["dropped"],
        "widened_to_tokens": report["mentions"]["widened_to_tokens"],
        "seconds": round(seconds, 2),
    }


def rows_of(source: Path) -> Iterator[Row]:
    """Each row, read here without the package's readers."""
    content = json.loads(source.read_text(encoding="utf8"))
    for row in content.values() if isinstance(content, dict) else content:
        mentions, answers = row["mentions"] if "mentions" in row else row["mention"], row["answer"]
        yield Row(row["sentence"], as_list(mentions), as_list(answers))


def count_mentions(rows: Sequence[Row]) -> tuple[int, int, int]:
    """Mentions that are verbatim in their sentence, that are not, and that are there, but listed once more."""
    verbatim = not_verbatim = beyond = 0
    for row in rows:
        for mention, listed in Counter(mention.strip() for mention in row.mentions).items():
            there = occurrences(row.sentence, mention)
            if there:
                verbatim += min(listed, there)
                beyond += max(listed - there, 0)
            else:
                not_verbatim += listed
    return verbatim, not_verbatim, beyond


def occurrences(sentence: str, mention: str) -> int:
    """How often a string stands in a sentence: as whole words, or at all if never as whole words."""
    indices = [index for index in range(len(sentence)) if sentence.startswith(mention, index)]
    whole = [index for index in indices if not (cuts(sentence, index) or cuts(sentence, index + len(mention)))]
    return len(whole or indices)


def cuts(sentence: str, index: int) -> bool:
    """Whether letters or digits stand on both sides of a place."""
    return sentence[max(0, index - 1) : index].isalnum() and sentence[index : index + 1].isalnum()


def verbatim_in_docs(out: Path, rows: Sequence[Row]) -> int:
    """How many verbatim mentions have an entity in the docs of their sentence that holds their text and has their gold.

    Each entity serves one mention; mentions beyond the times their string occurs are not asked for.
    """
    ents: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for doc in DocBin().from_disk(out).get_docs(Vocab()):
        ents[doc.text] += [(ent.text, ent.kb_id_) for ent in doc.ents]
    count = 0
    for row in rows:
        remaining = Counter({mention.strip(): occurrences(row.sentence, mention.strip()) for mention in row.mentions})
        # the longest first, which have the fewest entities that could be theirs
        for mention, gold in sorted(zip(row.mentions, row.gold_ids, strict=True), key=lambda pair: -len(pair[0])):
            there = [ent for ent in ents[row.sentence] if mention.strip() in ent[0] and ent[1] == gold]
            if there and remaining[mention.strip()]:
                remaining[mention.strip()] -= 1
                ents[row.sentence].remove(min(there, key=lambda ent: len(ent[0])))
                count += 1
    return count


def draw_sample(data: Path, size: int, seed: int, out: Path) -> None:
    """Write some tolerant alignments of WikiMEL as JSON lines, and how many there are of all."""
    aligned: list[dict[str, str]] = []
    missing: list[dict[str, str]] = []
    for source_row in rows_of(data / FILES["wikimel"][1]):
        sentence = source_row.sentence
        for mention, index in zip(source_row.mentions, align(sentence, source_row.mentions), strict=True):
            row = {"sentence": sentence, "mention": mention}
            if isinstance(index, str):
                missing.append({**row, "reason": index})
            elif index.rule not in (VERBATIM, PART_OF_WORD):
                aligned.append({**row, "found": sentence[index.start : index.end], "rule": index.rule})
    drawn = random.Random(seed).sample(aligned, min(size, len(aligned)))
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in drawn + missing), encoding="utf8")
    print(f"{out}: {len(drawn)} of {len(aligned)} tolerant alignments, and all {len(missing)} that are not found")


def table(sets: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What a person reads."""
    for key, figures in sets.items():
        yield (
            f"{key}: {figures['rows']['read']} of {figures['rows_in_file']} rows, {figures['verbatim_aligned']} of "
            f"{figures['verbatim']} verbatim mentions ({figures['of_these_inside_a_longer_word']} of them inside a "
            f"longer word), {figures['not_verbatim']['aligned']} of "
            f"{figures['not_verbatim']['mentions']} others, {figures['seconds']} s"
        )
        merged = figures["listed_more_often_than_they_occur"]["same_entity_so_merged"]
        if merged:
            yield f"  {merged} x merged: the same mention and entity listed again"
        for reason, n in figures["left_out_by_reason"].items():
            yield f"  {n} x left out: {reason}"


if __name__ == "__main__":
    main(sys.argv[1:])
