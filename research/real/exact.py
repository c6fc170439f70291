"""How often beams miss the best of all names on real text: `python -m research exact`, in results/exact.json."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.language import Language
from torch import Tensor

from research.cache import cached, digest, read_object
from research.commands import Progress, report
from research.machine import describe_machine
from research.mini_world import ROOT
from research.real.cells import BASE, DTYPE, Cell, Workspace, code_digest
from research.statistics import with_interval
from spacy_gemel.data.reader import read_docs
from spacy_gemel.decoding.beam_search import Hypothesis, beam_search, room_for_beams
from spacy_gemel.decoding.constraints import TrieConstraint
from spacy_gemel.decoding.decoder import DecoderState
from spacy_gemel.decoding.exact_search import exact_search
from spacy_gemel.decoding.score_names import score_names
from spacy_gemel.evaluation.bootstrap import accuracy_of, difference_of
from spacy_gemel.kb.resolve import resolve_gold
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.pipeline.loaded_pipeline import linker_of, overridden
from spacy_gemel.utils.files import lock_file, write_json

OUTPUT = ROOT / "research" / "results" / "exact.json"
WORK = ROOT / "metrics" / "evidence-real"
PARTS = 10
"""Of the asked docs, about a hundred mentions each."""
BEAMS = (1, 5, 10)
NAMES = 5
MAX_TOKENS = 1024
"""That the exact search may try; what it would have known after fewer is counted too."""
LIMITS = (0, 32, 64, 128, LinkerSettings().exact_tokens, 512, MAX_TOKENS)
SMALL = 0.01
"""Scores that are nearer than this are taken for equal: bf16 rounds."""
FloatArray = NDArray[np.float64]
Row = Mapping[str, Any]


def run_exact(
    data: Path, models: Path, parts: int = PARTS, *, work: Path = WORK, output: Path = OUTPUT
) -> dict[str, Any]:
    """Search for the asked mentions of WikiDiverse with beams and exactly; write and return the figures.

    Each prompt is read once, and all searches follow it, one mention at a time.

    Args:
        data: A folder with kb/ and wikidiverse/.
        models: A folder with language_model/ and sentence_encoder/.
        parts: So many parts of the asked docs; fewer than PARTS are a try, of which no file is written.
        work: Where the rows of each part are cached.
        output: The file of the figures.

    Raises:
        ValueError: If a file is missing, or another process is running here.
    """
    cell = Cell("wikidiverse", "text_only")
    workspace = Workspace(data, models, work)
    workspace.check([cell])
    with lock_file(work / ".lock", f"{work}: another process is running cells here; wait for it"):
        corpus, key = workspace.corpus(cell.dataset), digest(workspace.key(cell), BEAMS, NAMES, MAX_TOKENS)
        chunks = corpus.chunks[:parts]
        files = {chunk: work / "exact" / f"{chunk.stem}.json" for chunk in chunks}
        missing = [chunk for chunk, file in files.items() if cached(file, key) is None]
        progress = Progress(len(missing))
        for chunk in missing:
            progress.report(chunk.stem)
            start = time.perf_counter()
            with overridden(linker_of(nlp := workspace.pipeline_of(cell, corpus.pool)), **BASE):
                rows = search_mentions(nlp, chunk)
            write_json(files[chunk], {"key": key, "code": code_digest(), "rows": rows})
            progress.seconds.append(time.perf_counter() - start)
        contents = [read_object(file) for file in files.values()]
        result = figures([row for content in contents for row in content["rows"]]) | {
            "command": "python -m research exact --data DATA --models MODELS",
            "settings": {**BASE, "use_image": False, "retriever": "dense", "dtype": DTYPE, "max_tokens": MAX_TOKENS},
            "code": sorted({content["code"] for content in contents}),
            "machine": describe_machine(),
        }
        workspace.digests.save()
        if parts >= PARTS:
            write_json(output, result)
            report(f"wrote {output}")
    return result


def search_mentions(nlp: Language, path: Path) -> list[dict[str, Any]]:
    """One row per gold mention of a .spacy file: what each search finds, and at what cost."""
    linker = linker_of(nlp)
    model, settings = linker.linking_model, linker.settings
    constraint = TrieConstraint(linker.kb.trie, model.end_id(settings), settings.max_name_tokens, linker.kb.added.trie)
    room = room_for_beams(max(BEAMS), constraint.max_tokens) + MAX_TOKENS
    rows = []
    for doc in read_docs(path, nlp.vocab):
        ents = [*doc.ents]
        for ent, prompt in zip(ents, model.prompts(linker.mentions_of([ents]), settings), strict=True):
            gold = resolve_gold(linker.kb, ent.kb_id_)
            assert gold is not None  # only such mentions are asked
            assert prompt is not None  # and the language model has room for them
            start = time.perf_counter()
            embedded, _ = model.embed([prompt], train=False)
            state = _Counted(model.decoder.prefill(embedded, tokens=constraint.max_tokens, room=room))
            seconds = time.perf_counter() - start
            row = _search(state, constraint)
            row |= {"doc": str(doc.user_data.get("id")), "gold": linker.kb.entity(gold).kb_id, "read_seconds": seconds}
            for way in row["ways"].values():
                way["kb_id"] = linker.kb.entity(constraint.rows_at(way.pop("edge"))[0]).kb_id
            rows.append(row)
    return rows


def _search(state: "_Counted", constraint: TrieConstraint) -> dict[str, Any]:
    """What each search finds after the one prompt of a state: its best name, and how much is known of it."""
    best: dict[str, Hypothesis] = {}
    ways: dict[str, dict[str, Any]] = {}
    for beams in BEAMS:
        start = state.begin()
        names = beam_search(state, constraint, beam_size=beams, n_names=min(beams, NAMES))[0]
        best[name := f"beam_{beams}"] = names[0]
        weights = np.exp([each.score - names[0].score for each in names])
        ways[name] = {"seconds": time.perf_counter() - start, "passes": len(state.widths)}
        ways[name] |= {"tokens": sum(state.widths), "probability": float(weights[0] / weights.sum())}
    start = state.begin()
    # It begins with 5 beams, as the linker's.
    options = {"beam_size": 5, "n_names": NAMES, "max_tokens": MAX_TOKENS}
    [(names, certificate)] = exact_search(state, constraint, **options)
    assert certificate is not None
    best["exact"] = names[0]
    ways["exact"] = {"seconds": time.perf_counter() - start, "passes": certificate.passes, "tokens": sum(state.widths)}
    sums = np.array([each.score * (len(each.tokens) + 1) for each in names])
    widths = [*state.widths]
    share = float(np.exp(sums[0] - np.logaddexp.reduce(sums)))
    ways["exact"]["probability"] = share * certificate.mass[0]
    # All once more in one pass, so that they are rounded alike.
    distinct = [*dict.fromkeys(each.tokens for each in best.values())]
    scores = dict(zip(distinct, score_names(state, [distinct], constraint.end_id)[0], strict=True))
    for name, hypothesis in best.items():
        ways[name] |= {"edge": hypothesis.edge, "length": len(hypothesis.tokens), "score": scores[hypothesis.tokens]}
        ways[name]["same_name"] = hypothesis.tokens == best["exact"].tokens
    beam_passes = ways["beam_5"]["passes"]
    return {
        "ways": ways,
        "exact": certificate.exact,
        "gap": certificate.gap,
        "mass": [*certificate.mass],
        "widths": widths[beam_passes:],
    }


class _Counted:
    """A state that notes the tokens of each pass."""

    def __init__(self, state: DecoderState) -> None:
        self.state, self.logits, self.room, self.free_slots = state, state.logits, state.room, state.free_slots
        self.widths: list[int] = []

    def begin(self) -> float:
        """Forget the passes. Returns the time."""
        self.widths = []
        return time.perf_counter()

    def extend(self, tokens: Tensor, seen: Tensor, depth: Tensor, mentions: slice = slice(None)) -> Tensor:
        """See DecoderState."""
        self.widths.append(tokens.shape[1])
        return self.state.extend(tokens, seen, depth, mentions)


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """All figures of the rows."""
    docs = [row["doc"] for row in rows]
    right = {name: [row["ways"][name]["kb_id"] == row["gold"] for row in rows] for name in rows[0]["ways"]}
    certified = [row for row in rows if row["exact"]]
    result: dict[str, Any] = {"mentions": len(rows), "read_seconds": _spread([row["read_seconds"] for row in rows])}
    for name, correct in right.items():
        ways = [row["ways"][name] for row in rows]
        result[name] = {
            **with_interval(accuracy_of(correct, docs)),
            **{column: _spread([way[column] for way in ways]) for column in ("passes", "tokens", "seconds")},
            "auroc_of_probability": auroc([way["probability"] for way in ways], correct),
            "length": float(np.mean([way["length"] for way in ways])),
        }
        if name != "exact":
            result[name]["misses"] = misses(certified, name)
            result[f"exact - {name}"] = with_interval(difference_of(right["exact"], correct, docs))
    result["exact"] |= {
        "certified": len(certified) / len(rows),
        "certified_within_tokens": {str(limit): _within(rows, limit) for limit in LIMITS},
        "gap_otherwise": _spread([row["gap"] for row in rows if not row["exact"]]),
        "accuracy_if_certified": _accuracy(certified),
        "accuracy_otherwise": _accuracy([row for row in rows if not row["exact"]]),
        "mass_at_least": _spread([row["mass"][0] for row in rows]),
        "mass_at_most": _spread([row["mass"][1] for row in rows]),
    }
    default = LinkerSettings().exact_tokens
    passes = [row["ways"]["beam_5"]["passes"] + _passes_within(row["widths"], default) for row in rows]
    result["exact"]["passes_with_exact_tokens"] = {"exact_tokens": default, **_spread(passes)}
    return result


def misses(certified: Sequence[Row], name: str) -> dict[str, Any]:
    """How often a beam search misses the best of all names, where that is known, and by how much."""
    behind = [
        row["ways"]["exact"]["score"] - row["ways"][name]["score"]
        for row in certified
        if not row["ways"][name]["same_name"]
    ]
    worse = [value for value in behind if value > SMALL]
    return {
        "of": len(certified),
        "another_name": len(behind) / max(len(certified), 1),
        f"worse_by_{SMALL}": len(worse) / max(len(certified), 1),
        "worse_by": _spread(worse),
    }


def auroc(values: Sequence[float], correct: Sequence[bool]) -> float | None:
    """The probability that a right answer has a higher value than a wrong one; None without either."""
    numbers, is_right = np.array(values), np.array(correct)
    above = numbers[is_right][:, None] - numbers[~is_right]
    return float(((above > 0) + (above == 0) / 2).mean()) if above.size else None


def _accuracy(rows: Sequence[Row]) -> dict[str, Any] | None:
    correct = [row["ways"]["exact"]["kb_id"] == row["gold"] for row in rows]
    return with_interval(accuracy_of(correct, [row["doc"] for row in rows])) if rows else None


def _within(rows: Sequence[Row], tokens: int) -> float:
    """The share that is certified after so many tokens behind the beams'."""
    return sum(row["exact"] and sum(row["widths"]) <= tokens for row in rows) / len(rows)


def _passes_within(widths: Sequence[int], tokens: int) -> int:
    """Passes that begin before so many tokens were tried."""
    return int((np.cumsum([0, *widths])[:-1] < tokens).sum())


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    low, median, high = np.percentile(values, [10, 50, 90]).tolist()
    return {"mean": float(np.mean(values)), "p10": low, "median": median, "p90": high}
