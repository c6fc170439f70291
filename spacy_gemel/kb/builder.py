"""Build a knowledge base folder from JSON lines: streamed, and written whole or not at all."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from spacy_gemel.kb.arrays import save_array
from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.entity_table import BATCH_ROWS, EntityWriter
from spacy_gemel.kb.errors import KBError
from spacy_gemel.kb.folder import check_replaceable, written_whole
from spacy_gemel.kb.ids import IdIndex, hash_id
from spacy_gemel.kb.knowledge_base import COUNTS_FILE, DATA_FILES
from spacy_gemel.kb.meta import META_FILE, FileRecord, KBMeta, Skipped, sha256_of, write_meta
from spacy_gemel.kb.names import NameTokenizer, tokenise_names
from spacy_gemel.kb.rows import REASONS, RowProblem, read_rows
from spacy_gemel.kb.trie import token_dtype
from spacy_gemel.kb.trie_builder import MAX_TOKENS, build_trie

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was built. ``meta.skipped`` counts by reason what was left out; ``seconds`` is the whole build."""

    path: Path
    meta: KBMeta
    seconds: float

    def lines(self) -> list[str]:
        """The report in words, one line each."""
        meta = self.meta
        lines = [
            f"{meta.entities} entities, {meta.names} of them in the trie under {meta.distinct_names} names "
            f"({meta.edges} edges), in {self.seconds:.1f} s: {self.path}"
        ]
        for reason, skipped in meta.skipped.items():
            lines.append(f"{skipped.count} {REASONS[reason]}:")
            lines.extend(f"  {example}" for example in skipped.examples)
            if skipped.count > len(skipped.examples):
                lines.append("  ...")
        return lines


@dataclass(slots=True)
class _Collected:
    """What is kept in memory while streaming: a few numbers per entity, nothing of its text."""

    source: str
    hashes: list[NDArray[np.uint64]] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    tokens: list[NDArray[np.unsignedinteger]] = field(default_factory=list)
    lengths: list[NDArray[np.uint8]] = field(default_factory=list)
    rows: list[NDArray[np.int32]] = field(default_factory=list)
    n_rows: int = 0
    skipped: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def skip(self, line: int, problem: RowProblem) -> None:
        count, examples = self.skipped.get(problem.reason, (0, []))
        if len(examples) < _EXAMPLES:
            examples.append(f"{self.source}:{line}: {problem.message}")
        self.skipped[problem.reason] = (count + 1, examples)

    def first_problem(self) -> str:
        examples = [examples[0] for _, examples in self.skipped.values()]
        return f" The first problem: {examples[0]}" if examples else ""


def build_kb(
    entities_jsonl: str | Path,
    out_dir: str | Path,
    tokenizer: NameTokenizer,
    *,
    max_name_tokens: int = 32,
    progress: bool = True,
) -> BuildReport:
    """Build a knowledge base folder from JSON lines.

    Rows that are no entities are skipped; entities whose name cannot enter the trie are kept in the table,
    so that gold ids resolve. Both are counted by reason in the report and in meta.json. The file is read
    twice (first for ids that repeat), so that memory is bounded by the trie. An existing knowledge base in
    ``out_dir`` is replaced once the new one is complete; ``progress`` shows bars on stderr.

    Raises KBError if the file cannot be read, has no entity or no usable name, if ``out_dir`` holds something
    else than a knowledge base, or if it cannot be written (a full disk).
    """
    begin = time.perf_counter()
    source, target = Path(entities_jsonl), Path(out_dir).absolute()
    if not 1 <= max_name_tokens <= MAX_TOKENS:
        raise KBError(f"max_name_tokens must be from 1 to {MAX_TOKENS}, not {max_name_tokens}")
    if not source.is_file():
        raise KBError(f"{source} does not exist or is no file: give a file of JSON lines with id and name")
    check_replaceable(target, {META_FILE, *DATA_FILES})
    repeated, size = _scan(source, progress)
    try:
        with written_whole(target) as folder:
            collected = _stream(source, folder, tokenizer, repeated, size, max_name_tokens, progress)
            meta = _finish(source, folder, tokenizer, collected, max_name_tokens)
    except OSError as error:
        raise KBError(f"The knowledge base {out_dir} could not be written: {error}") from error
    return BuildReport(Path(out_dir), meta, time.perf_counter() - begin)


def _scan(source: Path, progress: bool) -> tuple[set[int], int]:
    """Hashes of the ids that may repeat, and the size of the file in bytes."""
    size = source.stat().st_size
    hashes: list[NDArray[np.uint64]] = []
    batch: list[int] = []
    problem = ""
    with _bar("Reading entities", size, "B", progress) as bar:
        try:
            for line in read_rows(source):
                bar.update(line.size)
                if isinstance(line.content, Entity):
                    batch.append(hash_id(line.content.kb_id))
                elif not problem:
                    problem = f" The first problem: {source.name}:{line.number}: {line.content.message}"
                if len(batch) == BATCH_ROWS:
                    hashes.append(np.array(batch, dtype=np.uint64))
                    batch.clear()
        except OSError as error:
            raise KBError(f"{source} cannot be read: {error}") from error
    hashes.append(np.array(batch, dtype=np.uint64))
    found = np.sort(np.concatenate(hashes))
    if len(found) == 0:
        raise KBError(f'{source} has no entity: lines like {{"id": "Q1", "name": "Name"}} are expected.{problem}')
    return set(found[1:][found[1:] == found[:-1]].tolist()), size


def _stream(
    source: Path,
    folder: Path,
    tokenizer: NameTokenizer,
    repeated: set[int],
    size: int,
    max_name_tokens: int,
    progress: bool,
) -> _Collected:
    """Write entities.arrow and collect the names' tokens."""
    collected = _Collected(source.name)
    seen: set[str] = set()
    batch: list[tuple[int, int, Entity]] = []  # line, hash of the id, entity
    with EntityWriter(folder) as writer, _bar("Tokenising names", size, "B", progress) as bar:
        for line in read_rows(source):
            bar.update(line.size)
            if isinstance(line.content, RowProblem):
                collected.skip(line.number, line.content)
                continue
            kb_id = line.content.kb_id
            hashed = hash_id(kb_id)
            if hashed in repeated:
                if kb_id in seen:
                    problem = RowProblem("duplicate_id", f"id {kb_id!r} stands above already")
                    collected.skip(line.number, problem)
                    continue
                seen.add(kb_id)
            batch.append((line.number, hashed, line.content))
            if len(batch) == BATCH_ROWS:
                _take(batch, writer, collected, tokenizer, max_name_tokens)
                batch.clear()
        if batch:
            _take(batch, writer, collected, tokenizer, max_name_tokens)
    return collected


def _take(
    batch: list[tuple[int, int, Entity]],
    writer: EntityWriter,
    collected: _Collected,
    tokenizer: NameTokenizer,
    max_name_tokens: int,
) -> None:
    """Write a batch of entities and keep the tokens of their names."""
    entities = [entity for _, _, entity in batch]
    writer.write(entities)
    tokens: list[int] = []
    lengths: list[int] = []
    rows: list[int] = []
    names = tokenise_names([entity.name for entity in entities], tokenizer, max_name_tokens)
    for place, (result, (line, _, _)) in enumerate(zip(names, batch, strict=True)):
        if isinstance(result, RowProblem):
            collected.skip(line, result)
        else:
            tokens.extend(result)
            lengths.append(len(result))
            rows.append(collected.n_rows + place)
    collected.hashes.append(np.array([hashed for _, hashed, _ in batch], dtype=np.uint64))
    collected.counts.append(np.array([entity.count for entity in entities], dtype=np.int64))
    collected.tokens.append(np.array(tokens, dtype=token_dtype(tokenizer.vocab_size)))
    collected.lengths.append(np.array(lengths, dtype=np.uint8))
    collected.rows.append(np.array(rows, dtype=np.int32))
    collected.n_rows += len(batch)


def _finish(
    source: Path, folder: Path, tokenizer: NameTokenizer, collected: _Collected, max_name_tokens: int
) -> KBMeta:
    """Write the arrays and meta.json."""
    if collected.n_rows == 0:
        raise KBError(f"{source} changed while it was read: build again")
    counts = np.concatenate(collected.counts)
    rows = np.concatenate(collected.rows)
    if len(rows) == 0:
        problem = collected.first_problem()
        raise KBError(f"No name in {source} can enter the trie, so nothing could be linked.{problem}")
    trie = build_trie(
        np.concatenate(collected.tokens),
        np.concatenate(collected.lengths),
        rows,
        counts[rows],
        tokenizer.vocab_size,
    )
    trie.save(folder)
    save_array(folder / COUNTS_FILE, counts)
    IdIndex.build(np.concatenate(collected.hashes)).save(folder)
    meta = KBMeta(
        entities=collected.n_rows,
        names=len(rows),
        distinct_names=trie.count_names(),
        edges=len(trie.tokens),
        batch_rows=BATCH_ROWS,
        tokenizer_fingerprint=tokenizer.fingerprint,
        leading_space=tokenizer.leading_space,
        vocab_size=tokenizer.vocab_size,
        max_name_tokens=max_name_tokens,
        skipped={
            reason: Skipped(count, tuple(examples)) for reason, (count, examples) in sorted(collected.skipped.items())
        },
        files={name: FileRecord((folder / name).stat().st_size, sha256_of(folder / name)) for name in DATA_FILES},
    )
    write_meta(folder, meta)
    return meta


def _bar(what: str, total: int, unit: str, progress: bool) -> tqdm[NoReturn]:
    bar: tqdm[NoReturn] = tqdm(
        total=total, desc=what, unit=unit, unit_scale=True, file=sys.stderr, disable=not progress
    )
    return bar
