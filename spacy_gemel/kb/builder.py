"""Build a knowledge base folder from JSON lines: streamed, resumable, and written whole or not at all."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from spacy_gemel.kb.arrays import save_array
from spacy_gemel.kb.columns import Columns
from spacy_gemel.kb.entity_table import BATCH_ROWS, EntityWriter
from spacy_gemel.kb.errors import KBError
from spacy_gemel.kb.folder import Replacement, work_folder, work_path
from spacy_gemel.kb.index import IdIndex
from spacy_gemel.kb.jsonl import REASONS
from spacy_gemel.kb.knowledge_base import COUNTS_FILE, DATA_FILES
from spacy_gemel.kb.meta import META_FILE, KBMeta, records_of, write_meta
from spacy_gemel.kb.name_tokens import NameTokenizer, tokenise_names
from spacy_gemel.kb.reading import Batch, Scan, Skips, read_batches, scan_entities
from spacy_gemel.kb.surfaces import SurfaceIndex
from spacy_gemel.kb.token_store import TokenStore
from spacy_gemel.kb.trie import TrieArrays
from spacy_gemel.kb.trie_builder import MAX_TOKENS, build_trie

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


def build_kb(
    entities_jsonl: str | Path,
    out_dir: str | Path,
    tokenizer: NameTokenizer,
    *,
    max_name_tokens: int = 32,
    progress: bool = True,
    before_replacing: Callable[[KBMeta], object] | None = None,
) -> BuildReport:
    """Build a knowledge base folder from JSON lines.

    Rows that are no entities are skipped; entities whose name cannot enter the trie are kept in the table,
    so that gold ids resolve. Both are counted by reason in the report and in meta.json. The file is read
    twice (first for its checksum and ids that repeat), so that memory is bounded by the trie. An existing
    knowledge base in ``out_dir`` is replaced once the new one is complete and on the disk; a symbolic link keeps
    pointing to where it does. ``progress`` shows bars on stderr. ``before_replacing`` hears of the new one just before
    it takes its place, and may raise KBError to leave all as it was.

    Tokenising is the long step: each finished batch is kept in a work folder beside ``out_dir`` until the knowledge
    base is complete, and a build of the same file, tokenizer and settings goes on from there.

    Raises KBError if the file cannot be read, changes meanwhile, has no entity or no usable name, if ``out_dir``
    holds something else than a knowledge base, is a mount point or is being built by another process, or if it cannot
    be written (a full disk). A KeyboardInterrupt gets a note that says what is left.
    """
    begin = time.perf_counter()
    source, target = Path(entities_jsonl), Path(out_dir).resolve()
    if not 1 <= max_name_tokens <= MAX_TOKENS:
        raise KBError(f"max_name_tokens must be from 1 to {MAX_TOKENS}, not {max_name_tokens}")
    if not source.is_file():
        raise KBError(f"{source} does not exist or is no file: give a file of JSON lines with id and name")
    replacement = Replacement(target, {META_FILE, *DATA_FILES, *_FORMAT_1_FILES})
    try:
        scan = scan_entities(source, progress)
        with work_folder(target) as work:
            store = TokenStore(work, scan.sha256, tokenizer, max_name_tokens, BATCH_ROWS)
            build = _Build(source, scan, tokenizer, max_name_tokens, store, progress)
            with replacement.written(work) as folder:
                meta = build.run(folder)
                if before_replacing is not None:
                    before_replacing(meta)
    except OSError as error:
        what = "is in place, but the disk did not confirm it" if replacement.done else "could not be built"
        state = _state(replacement)
        raise KBError(f"The knowledge base {out_dir} {what}: {error}. {state}") from error
    except KeyboardInterrupt as error:
        error.add_note(_state(replacement))
        raise
    end = time.perf_counter()
    return BuildReport(Path(out_dir), meta, end - begin, end - build.tokenised_at, build.resumed)


def _state(replacement: Replacement) -> str:
    """What a build that did not end well has left, in words."""
    work = work_path(replacement.target)
    if replacement.done:
        rest = f" {work} can be deleted." if work.exists() else ""
        return f"The new knowledge base is complete.{rest}"
    if any(work.glob("tokens-*/*.npz")):
        again = f"The same command then goes on from the names that are tokenised, which {work} keeps."
    else:
        again = "No name had been tokenised and kept: the same command begins anew."
    return f"What was there before is unchanged. {again}"


class _Build:
    """One build, from the scanned file to a complete folder."""

    def __init__(
        self,
        source: Path,
        scan: Scan,
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
        self.skips = Skips(source.name)
        self.tokenised_at = 0.0
        """When all names were tokenised, by ``time.perf_counter``."""
        self.resumed = 0
        """Entities whose tokenised names were found."""

    def run(self, folder: Path) -> KBMeta:
        """Write everything into an empty folder. Raises KBError and OSError."""
        found = self.store.found()
        if found and self.progress:
            message = f"An interrupted build has tokenised {found} batches of {BATCH_ROWS} names: going on from there"
            tqdm.write(message, file=sys.stderr)
        batches = read_batches(self.source, self.scan, self.skips, BATCH_ROWS, self.progress)
        with EntityWriter(folder) as writer:
            for index, batch in enumerate(batches):
                writer.write(batch.entities)
                self._take(index, batch)
        self.tokenised_at = time.perf_counter()
        return self._finish(folder)

    def _take(self, index: int, batch: Batch) -> None:
        """Tokenise a batch's names, unless an earlier build has, and keep its numbers."""
        texts = [entity.name for entity in batch.entities]
        names = self.store.read(index, texts)
        if names is None:
            names = tokenise_names(texts, self.tokenizer, self.max_name_tokens)
            self.store.write(index, texts, names)
        else:
            self.resumed += len(batch.entities)
        for place, problem in names.problems:
            self.skips.add(batch.lines[place], problem)
        self.columns.add(batch.hashes, batch.entities, names)

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

            trie = self._write_arrays(folder, show)
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

    def _write_arrays(self, folder: Path, on_step: Callable[[str], object]) -> TrieArrays:
        """Build the trie and the index of ids, and write all arrays; the trie is returned.

        on_step is called with what is done next. Raises KBError as ``build_trie`` does, and OSError.
        """
        columns = self.columns
        counts, rows = np.concatenate(columns.counts), np.concatenate(columns.rows)
        tokens, lengths = np.concatenate(columns.tokens), np.concatenate(columns.lengths)
        trie = build_trie(tokens, lengths, rows, counts[rows], self.tokenizer.vocab_size, on_step)
        on_step("writing arrays")
        trie.save(folder)
        save_array(folder / COUNTS_FILE, counts)
        on_step("indexing ids")
        IdIndex.build(np.concatenate(columns.hashes)).save(folder)
        on_step("indexing names and aliases")
        SurfaceIndex.build(np.concatenate(columns.surfaces), np.concatenate(columns.surface_rows)).save(folder)
        return trie
