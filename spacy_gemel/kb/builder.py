"""Build a knowledge base folder from JSON lines: streamed, resumable, and written whole or not at all."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from spacy_gemel.kb.columns import Columns
from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.entity_table import BATCH_ROWS, EntityWriter
from spacy_gemel.kb.errors import KBError
from spacy_gemel.kb.folder import check_replaceable, work_folder, work_path, written_whole
from spacy_gemel.kb.ids import hash_id
from spacy_gemel.kb.knowledge_base import DATA_FILES
from spacy_gemel.kb.meta import META_FILE, KBMeta, Skipped, records_of, write_meta
from spacy_gemel.kb.names import NameTokenizer, TokenisedNames, tokenise_names
from spacy_gemel.kb.rows import REASONS, RowProblem, RowReader
from spacy_gemel.kb.token_store import TokenStore
from spacy_gemel.kb.trie_builder import MAX_TOKENS

_EXAMPLES = 5
_FORMAT_1_FILES = ("trie_leaf_edges.npy", "trie_leaf_offsets.npy")


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was built.

    ``meta.skipped`` counts by reason what was left out; ``seconds`` is the whole build, ``trie_seconds`` what of it
    came after tokenising; ``resumed`` counts the entities whose names an interrupted build had tokenised before.
    """

    path: Path
    meta: KBMeta
    seconds: float
    trie_seconds: float
    resumed: int

    def lines(self) -> list[str]:
        """The report in words, one line each."""
        meta = self.meta
        lines = [
            f"{meta.entities} entities, {meta.names} of them in the trie under {meta.distinct_names} names "
            f"({meta.edges} edges), in {self.seconds:.1f} s, {self.trie_seconds:.1f} of them for the trie: {self.path}"
        ]
        if self.resumed:
            lines.append(f"The names of {self.resumed} entities had been tokenised by a build that was interrupted")
        for reason, skipped in meta.skipped.items():
            lines.append(f"{skipped.count} {REASONS[reason]}:")
            lines.extend(f"  {example}" for example in skipped.examples)
            if skipped.count > len(skipped.examples):
                lines.append("  ...")
        return lines


@dataclass(frozen=True, slots=True)
class _Scan:
    """What the first reading finds: the file's size in bytes and checksum, and hashes of ids that may repeat."""

    size: int
    sha256: str
    repeated: set[int]


@dataclass(slots=True)
class _Numbered:
    """A batch of entities with the line and the hash of the id of each."""

    entities: list[Entity] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)


class _Skips:
    """Counts and first examples of what is left out, by reason."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: dict[str, tuple[int, list[str]]] = {}

    def add(self, line: int, problem: RowProblem) -> None:
        count, examples = self._found.get(problem.reason, (0, []))
        if len(examples) < _EXAMPLES:
            examples.append(f"{self._source}:{line}: {problem.message}")
        self._found[problem.reason] = (count + 1, examples)

    def first(self) -> str:
        examples = [examples[0] for _, examples in self._found.values()]
        return f" The first problem: {examples[0]}" if examples else ""

    def summary(self) -> dict[str, Skipped]:
        return {reason: Skipped(count, tuple(examples)) for reason, (count, examples) in sorted(self._found.items())}


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
    twice (first for its checksum and ids that repeat), so that memory is bounded by the trie. An existing
    knowledge base in ``out_dir`` is replaced once the new one is complete; ``progress`` shows bars on stderr.

    Tokenising is the long step: each finished batch is kept in a work folder beside ``out_dir`` until the knowledge
    base is complete, and a build of the same file, tokenizer and settings goes on from there.

    Raises KBError if the file cannot be read, changes meanwhile, has no entity or no usable name, if ``out_dir``
    holds something else than a knowledge base or is being built by another process, or if it cannot be written
    (a full disk).
    """
    begin = time.perf_counter()
    source, target = Path(entities_jsonl), Path(out_dir).absolute()
    if not 1 <= max_name_tokens <= MAX_TOKENS:
        raise KBError(f"max_name_tokens must be from 1 to {MAX_TOKENS}, not {max_name_tokens}")
    if not source.is_file():
        raise KBError(f"{source} does not exist or is no file: give a file of JSON lines with id and name")
    check_replaceable(target, {META_FILE, *DATA_FILES, *_FORMAT_1_FILES})
    try:
        scan = _scan(source, progress)
        with work_folder(target) as work:
            store = TokenStore(work, scan.sha256, tokenizer, max_name_tokens, BATCH_ROWS)
            build = _Build(source, scan, tokenizer, max_name_tokens, store, progress)
            with written_whole(target, work) as folder:
                meta = build.run(folder)
    except OSError as error:
        work = work_path(target)
        kept = f" The same command then goes on from what {work} keeps." if work.exists() else ""
        raise KBError(
            f"The knowledge base {out_dir} could not be built: {error}. What was there before is unchanged.{kept}"
        ) from error
    return BuildReport(Path(out_dir), meta, time.perf_counter() - begin, build.trie_seconds, build.resumed)


def _scan(source: Path, progress: bool) -> _Scan:
    """Read the whole file once; raises KBError if it has no entity."""
    size = source.stat().st_size
    hashes: list[NDArray[np.uint64]] = []
    batch: list[int] = []
    problem = ""
    rows = RowReader(source)
    with _bar("Reading entities", size, "B", progress) as bar:
        for line in rows:
            bar.update(line.size)
            if isinstance(line.content, Entity):
                batch.append(hash_id(line.content.kb_id))
            elif not problem:
                problem = f" The first problem: {source.name}:{line.number}: {line.content.message}"
            if len(batch) == BATCH_ROWS:
                hashes.append(np.array(batch, dtype=np.uint64))
                batch.clear()
    hashes.append(np.array(batch, dtype=np.uint64))
    found = np.sort(np.concatenate(hashes))
    if len(found) == 0:
        raise KBError(f'{source} has no entity: lines like {{"id": "Q1", "name": "Name"}} are expected.{problem}')
    return _Scan(size, rows.sha256, set(found[1:][found[1:] == found[:-1]].tolist()))


class _Build:
    """One build, from the scanned file to a complete folder."""

    def __init__(
        self,
        source: Path,
        scan: _Scan,
        tokenizer: NameTokenizer,
        max_name_tokens: int,
        store: TokenStore,
        progress: bool,
    ) -> None:
        self.source = source
        self.scan = scan
        self.tokenizer = tokenizer
        self.max_name_tokens = max_name_tokens
        self.store = store
        self.progress = progress
        self.columns = Columns()
        self.skips = _Skips(source.name)
        self.trie_seconds = 0.0
        self.resumed = 0
        """Entities whose tokenised names were found."""

    def run(self, folder: Path) -> KBMeta:
        """Write everything into an empty folder. Raises KBError and OSError."""
        found = self.store.found()
        if found and self.progress:
            message = f"An interrupted build has tokenised {found} batches of {BATCH_ROWS} names: going on from there"
            tqdm.write(message, file=sys.stderr)
        with EntityWriter(folder) as writer:
            for index, batch in enumerate(self._batches()):
                writer.write(batch.entities)
                self._take(index, batch)
        begin = time.perf_counter()
        meta = self._finish(folder)
        self.trie_seconds = time.perf_counter() - begin
        return meta

    def _batches(self) -> Iterator[_Numbered]:
        """The entities in batches, without ids that stand above already."""
        seen: set[str] = set()
        batch = _Numbered()
        rows = RowReader(self.source)
        with _bar("Tokenising names", self.scan.size, "B", self.progress) as bar:
            for line in rows:
                bar.update(line.size)
                if isinstance(line.content, RowProblem):
                    self.skips.add(line.number, line.content)
                    continue
                kb_id = line.content.kb_id
                hashed = hash_id(kb_id)
                if hashed in self.scan.repeated:
                    if kb_id in seen:
                        self.skips.add(line.number, RowProblem("duplicate_id", f"id {kb_id!r} stands above already"))
                        continue
                    seen.add(kb_id)
                batch.entities.append(line.content)
                batch.lines.append(line.number)
                batch.hashes.append(hashed)
                if len(batch.entities) == BATCH_ROWS:
                    yield batch
                    batch = _Numbered()
        if rows.sha256 != self.scan.sha256:
            raise KBError(f"{self.source} changed while it was read: build again")
        if batch.entities:
            yield batch

    def _take(self, index: int, batch: _Numbered) -> None:
        """Tokenise a batch's names, unless an earlier build has, and keep its numbers."""
        names = self.store.read(index, len(batch.entities))
        if names is None:
            names = self._tokenise(batch.entities)
            self.store.write(index, names)
        else:
            self.resumed += len(batch.entities)
        for place, problem in names.problems:
            self.skips.add(batch.lines[place], problem)
        counts = np.array([entity.count for entity in batch.entities], dtype=np.int64)
        self.columns.add(np.array(batch.hashes, dtype=np.uint64), counts, names)

    def _tokenise(self, entities: list[Entity]) -> TokenisedNames:
        return tokenise_names([entity.name for entity in entities], self.tokenizer, self.max_name_tokens)

    def _finish(self, folder: Path) -> KBMeta:
        """Write the arrays and meta.json."""
        columns = self.columns
        if columns.n_names == 0:
            problem = self.skips.first()
            raise KBError(f"No name in {self.source} can enter the trie, so nothing could be linked.{problem}")
        with tqdm(desc="Building the trie", unit=" steps", file=sys.stderr, disable=not self.progress) as bar:

            def show(step: str) -> None:
                bar.update()
                bar.set_postfix_str(step)

            trie = columns.write_arrays(folder, self.tokenizer.vocab_size, show)
            show("taking checksums")
            files = records_of(folder, DATA_FILES)
        meta = KBMeta(
            entities=columns.n_entities,
            names=columns.n_names,
            distinct_names=trie.count_names(),
            edges=len(trie.tokens),
            batch_rows=BATCH_ROWS,
            tokenizer_fingerprint=self.tokenizer.fingerprint,
            leading_space=self.tokenizer.leading_space,
            vocab_size=self.tokenizer.vocab_size,
            max_name_tokens=self.max_name_tokens,
            skipped=self.skips.summary(),
            files=files,
        )
        write_meta(folder, meta)
        return meta


def _bar(what: str, total: int, unit: str, progress: bool) -> tqdm[NoReturn]:
    bar: tqdm[NoReturn] = tqdm(
        total=total, desc=what, unit=unit, unit_scale=True, file=sys.stderr, disable=not progress
    )
    return bar
