"""Build a knowledge base folder from JSON lines: streamed, resumable, and written whole or not at all."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from spacy_gemel.kb.description_vectors import DescriptionEncoder, Encode
from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.folder import Replacement, work_folder, work_path
from spacy_gemel.kb.index import HashIndex, save_array, surface_hashes
from spacy_gemel.kb.jsonl import REASONS, Scan, SkippedRows, read_batches, scan_entities
from spacy_gemel.kb.knowledge_base import (
    COUNTS_FILE,
    DATA_FILES,
    ENTITIES_FILE,
    IDS,
    SCHEMA,
    SURFACES,
    VECTORS_FILE,
    EntityTable,
    record_batch,
)
from spacy_gemel.kb.meta import META_FILE, KBMeta, file_record, write_meta
from spacy_gemel.kb.name_tokens import TokenizerLike, TokenStore, tokenise_names
from spacy_gemel.kb.trie_builder import MAX_TOKENS, build_trie

BATCH_ROWS = 4096
"""Entities per batch: a build holds one in memory (256 MiB at most), and the first look at an entity checks one."""

_FORMAT_1_FILES = ("trie_leaf_edges.npy", "trie_leaf_offsets.npy")


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was built."""

    path: Path
    meta: KBMeta  # `meta.skipped` counts what was left out
    seconds: float  # of the whole build
    trie_seconds: float  # of the part after tokenising, without the encoding of descriptions
    encoding_seconds: float  # of the descriptions; 0 if they were not encoded
    resumed: int  # entities whose names an interrupted build had already tokenised
    resumed_descriptions: int  # entities whose descriptions it had already encoded

    def lines(self) -> list[str]:
        """The report as text, line by line."""
        meta = self.meta
        trie = f"{meta.names} of them in the trie under {meta.distinct_names} names ({meta.edges} edges)"
        seconds = f"{self.seconds:.1f} s, {self.trie_seconds:.1f} of them for the trie"
        if VECTORS_FILE in meta.files:
            seconds += f" and {self.encoding_seconds:.1f} for the vectors of descriptions"
        lines = [f"{meta.entities} entities, {trie}, in {seconds}: {self.path}"]
        if self.resumed:
            lines.append(f"An interrupted build had already tokenised the names of {self.resumed} entities")
        if self.resumed_descriptions:
            lines.append(f"It had already encoded the descriptions of {self.resumed_descriptions} entities")
        for reason, skipped in meta.skipped.items():
            lines.append(f"{skipped.count} {REASONS[reason]}:")
            lines.extend(f"  {example}" for example in skipped.examples)
            if skipped.count > len(skipped.examples):
                lines.append("  ...")
        return lines


def build_kb(
    entities_jsonl: str | Path,
    out_dir: str | Path,
    tokenizer: TokenizerLike,
    *,
    encode: Encode | None = None,
    max_name_tokens: int = 32,
    progress: bool = True,
    before_replacing: Callable[[KBMeta], object] | None = None,
) -> BuildReport:
    """Build a knowledge base folder from JSON lines.

    The form of a line: ``spacy_gemel.kb.jsonl.parse_row``. Rows that are not entities are skipped; entities whose name
    cannot enter the trie (too long, or not in the tokenizer) stay in the table, so that gold ids resolve. The report
    and meta.json count both by reason. The file is read twice, so that only the trie's size bounds the memory. A work
    folder beside `out_dir` holds the tokenised batches, from which a build of the same file, tokenizer and settings
    resumes. An existing knowledge base is replaced once the new one is on the disk; `before_replacing` is called with
    the new meta just before and may raise KBError.

    With `encode`, a sentence encoder, each entity also gets a vector (``KnowledgeBase.description_vectors``). Its
    batches are in the work folder, too, and a build with the same encoder resumes from them.

    Raises:
        KBError: if the file cannot be read, changes meanwhile, or has no entity or usable name; if `out_dir` holds
            something else, is a mount point, is being built by another process, or cannot be written; if the encoder
            gives no usable vectors.
        KeyboardInterrupt: with a note that says what is left.
    """
    begin = time.perf_counter()
    source, target = Path(entities_jsonl), Path(out_dir).resolve()
    if not 1 <= max_name_tokens <= MAX_TOKENS:
        raise KBError(f"max_name_tokens must be from 1 to {MAX_TOKENS}, not {max_name_tokens}")
    if not source.is_file():
        raise KBError(f"{source} does not exist or is not a file: give a file of JSON lines with id and name")
    replacement = Replacement(target, {META_FILE, *DATA_FILES, VECTORS_FILE, *_FORMAT_1_FILES})
    try:
        scan = scan_entities(source, progress)
        with work_folder(target) as work:
            store = TokenStore(work, scan.sha256, tokenizer, max_name_tokens, BATCH_ROWS)
            encoder = None if encode is None else DescriptionEncoder(work, scan.sha256, encode, BATCH_ROWS)
            build = _Build(source, scan, tokenizer, max_name_tokens, store, progress)
            with replacement.written(work) as folder:
                build.write_entities(folder)
                tokenised = time.perf_counter()
                meta = build.write_arrays(folder)
                built = time.perf_counter()
                if encoder is not None:
                    encoder.write(folder, EntityTable(folder, meta.entities, meta.batch_rows), progress)
                    meta = replace(meta, files={**meta.files, VECTORS_FILE: file_record(folder / VECTORS_FILE)})
                encoded = time.perf_counter()
                write_meta(folder, meta)
                if before_replacing is not None:
                    before_replacing(meta)
    except OSError as error:
        outcome = "is in place, but the disk did not confirm it" if replacement.done else "could not be built"
        raise KBError(f"The knowledge base {out_dir} {outcome}: {error}. {_state(replacement)}") from error
    except KeyboardInterrupt as error:
        error.add_note(_state(replacement))
        raise
    end = time.perf_counter()
    seconds = (end - begin, built - tokenised + end - encoded, encoded - built)
    resumed_descriptions = 0 if encoder is None else encoder.resumed
    return BuildReport(Path(out_dir), meta, *seconds, build.resumed, resumed_descriptions)


def _state(replacement: Replacement) -> str:
    """What a failed build has left, as sentences."""
    work = work_path(replacement.target)
    if replacement.done:
        rest = f" {work} can be deleted." if work.exists() else ""
        return f"The new knowledge base is complete.{rest}"
    if any(work.glob("tokens-*/*.npz")):
        resumable = "tokenised names" + " and encoded descriptions" * any(work.glob("descriptions-*/*.npz"))
        return f"What was there before is unchanged. The same command resumes from the {resumable} in {work}."
    return "What was there before is unchanged. No tokenised names were saved: the same command starts over."


@dataclass
class _Build:
    """One build, from the scanned file to a complete folder."""

    source: Path
    scan: Scan
    tokenizer: TokenizerLike
    max_name_tokens: int
    store: TokenStore
    progress: bool
    resumed: int = 0

    def __post_init__(self) -> None:
        self.skipped = SkippedRows(self.source.name)
        # of each batch: the entities' counts and hashed ids; tokens, lengths and rows of the names that can enter the
        # trie; hashes and rows of all names and aliases
        self.batches: list[tuple[NDArray[Any], ...]] = []

    def write_entities(self, folder: Path) -> None:
        """Write the table of entities and tokenise their names. Raises KBError, OSError."""
        if len(self.store) and self.progress:
            done = f"{len(self.store)} batches of {BATCH_ROWS} names"
            tqdm.write(f"An interrupted build has tokenised {done}: resuming from there", file=sys.stderr)
        with pa.OSFile(str(folder / ENTITIES_FILE), "wb") as sink:
            writer = pa.ipc.new_file(sink, SCHEMA)
            batches = read_batches(self.source, self.scan, self.skipped, BATCH_ROWS, self.progress)
            for index, batch in enumerate(batches):
                lines, ids, entities = zip(*batch, strict=True)
                writer.write_batch(record_batch(entities))
                texts = [entity.name for entity in entities]
                names = self.store.read(index, texts)
                if names is not None:  # from an interrupted build
                    self.resumed += len(texts)
                else:
                    names = tokenise_names(texts, self.tokenizer, self.max_name_tokens)
                    self.store.write(index, texts, names)
                for number, problem in names.problems:
                    self.skipped.add(lines[number], problem)
                counts = np.array([entity.count for entity in entities], dtype=np.int64)
                hashes = [surface_hashes(entity) for entity in entities]
                surfaces = np.array([value for values in hashes for value in values], dtype=np.uint64)
                rows = np.arange(index * BATCH_ROWS, index * BATCH_ROWS + len(batch), dtype=np.int32)
                surface_rows = np.repeat(rows, [len(values) for values in hashes])
                tokens = names.tokens, names.lengths, rows[names.indices]
                self.batches.append((counts, np.array(ids, dtype=np.uint64), *tokens, surfaces, surface_rows))
            writer.close()  # not after an error: a full disk would only raise again

    def write_arrays(self, folder: Path) -> KBMeta:
        """Build the trie and the indexes, and write all arrays; returns their meta. Raises KBError, OSError."""
        vocab_size = self.tokenizer.vocab_size
        columns = map(np.concatenate, zip(*self.batches, strict=True))
        counts, ids, tokens, lengths, rows, surfaces, surface_rows = columns
        self.batches.clear()
        if len(rows) == 0:
            hint = self.skipped.hint()
            raise KBError(f"No name in {self.source} can enter the trie, so nothing could be linked.{hint}")
        with tqdm(desc="Building the trie", unit=" steps", file=sys.stderr, disable=not self.progress) as bar:

            def show(step: str) -> None:
                bar.update()
                bar.set_postfix_str(step)

            trie = build_trie(tokens, lengths, rows, counts[rows], vocab_size, show)
            show("writing arrays")
            trie.save(folder)
            save_array(folder / COUNTS_FILE, counts)
            show("indexing ids")
            HashIndex.save(folder, IDS, ids, np.arange(len(counts), dtype=np.int32))
            show("indexing names and aliases")
            HashIndex.save(folder, SURFACES, surfaces, surface_rows)
            show("computing checksums")
            files = {name: file_record(folder / name) for name in DATA_FILES}
        return KBMeta(
            entities=len(counts),
            names=len(rows),
            distinct_names=trie.count_names(),
            edges=len(trie.tokens),
            batch_rows=BATCH_ROWS,
            tokenizer_fingerprint=self.tokenizer.fingerprint,
            leading_space=self.tokenizer.leading_space,
            vocab_size=vocab_size,
            max_name_tokens=self.max_name_tokens,
            skipped=self.skipped.summary(),
            files=files,
        )
