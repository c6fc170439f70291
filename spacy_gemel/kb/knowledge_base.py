"""A knowledge base folder, opened without loading it."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from spacy_gemel.kb.entity import Entity, KBError, build_command
from spacy_gemel.kb.index import HashIndex, open_array, surface_key
from spacy_gemel.kb.meta import META_FILE, KBMeta, read_meta
from spacy_gemel.kb.name_tokens import TokenizerLike, tokenise_names
from spacy_gemel.kb.trie import NameTrie, TokenArray, TrieArrays
from spacy_gemel.kb.trie_builder import build_trie
from spacy_gemel.utils.files import file_problems, folder_owner

IDS, SURFACES = "ids", "surfaces"
ENTITIES_FILE, COUNTS_FILE = "entities.arrow", "counts.npy"
DATA_FILES = (ENTITIES_FILE, COUNTS_FILE, *HashIndex.files(IDS), *HashIndex.files(SURFACES), *TrieArrays.file_names())
"""The files that every knowledge base has beside meta.json."""
VECTORS_FILE = "descriptions.npy"
"""Vectors of the entities' descriptions; only if they were encoded."""

_COLUMNS = {"id": pa.string(), "name": pa.string(), "count": pa.int64(), "aliases": pa.list_(pa.string())}
SCHEMA = pa.schema(
    [pa.field(name, kind, nullable=False) for name, kind in _COLUMNS.items()] + [pa.field("description", pa.string())]
)
"""The columns of entities.arrow: the fields of an entity, in their order."""
_ARROW = b"ARROW1\0\0"


def record_batch(entities: Sequence[Entity]) -> pa.RecordBatch:
    """Entities as a batch of ``SCHEMA``."""
    columns = zip(*map(attrgetter(*(each.name for each in fields(Entity))), entities), strict=True)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=SCHEMA)


class EntityTable:
    """Entities by row, read from the mapped file on demand; `rows` of them in batches of `batch_rows`, or KBError.

    The batches are views of the mapping: compressed ones, which may unpack to any size, are refused.
    """

    def __init__(self, folder: Path, rows: int, batch_rows: int) -> None:
        self._path = folder / ENTITIES_FILE
        try:
            file = pa.memory_map(str(self._path), "r")
            if file.read(len(_ARROW)) != _ARROW:
                raise ValueError("it is no Arrow file")
            # not by the reader of files: its index may lead to other batches than those that are checked here
            schema, self._messages = read_plain_stream(file)
        except (OSError, ValueError, struct.error, pa.ArrowException) as error:
            raise KBError(f"{self._path} cannot be read ({error}): build the KB again") from error
        self._rows, self._batch_rows, self.n_batches = rows, batch_rows, -(-rows // batch_rows)
        self._batches: dict[int, Any] = {}
        if not schema.equals(SCHEMA) or len(self._messages) != self.n_batches:
            raise KBError(f"{self._path} does not have the columns or batches that meta.json gives: build the KB again")

    def __len__(self) -> int:
        return self._rows

    def batch(self, index: int) -> Any:
        """One record batch, a view of the mapping. Raises KBError if it is damaged."""
        batch = self._batches.get(index)
        if batch is None:
            try:
                batch = pa.ipc.read_record_batch(self._messages[index], SCHEMA)
                # Arrow trusts offsets: without this check, damaged ones would be read outside of the mapping
                batch.validate(full=True)
            except (OSError, pa.ArrowException) as error:
                raise KBError(f"{self._path} is damaged ({error}): build the KB again") from error
            if batch.num_rows != min(self._batch_rows, self._rows - index * self._batch_rows):
                raise KBError(f"{self._path} is damaged (batch {index}): build the KB again")
            self._batches[index] = batch
        return batch

    def value(self, row: int, column: str) -> Any:
        """One cell, a list as a tuple. Raises IndexError if the row does not exist, KBError if its batch is damaged."""
        if not 0 <= row < self._rows:
            raise IndexError(f"Row {row} is outside the knowledge base's {self._rows}")
        index, offset = divmod(row, self._batch_rows)
        value = self.batch(index).column(column)[offset].as_py()
        return tuple(value) if isinstance(value, list) else value

    def entity(self, row: int) -> Entity:
        """The entity of a row. Raises as `value`."""
        return Entity(*(self.value(row, column) for column in SCHEMA.names))


def read_plain_stream(file: pa.NativeFile) -> tuple[pa.Schema, list[Any]]:
    """The columns of a stream of Arrow and its batches as messages, none of them compressed.

    Raises ValueError if it holds anything else, and struct.error, OSError or ArrowException if it is damaged.
    """
    first, *messages = pa.ipc.MessageReader.open_stream(file)
    if first.type != "schema":  # pyarrow crashes
        raise ValueError("it does not begin with its columns")
    schema = pa.ipc.read_schema(first)
    if not all(map(_is_plain_batch, messages)):
        raise ValueError("it holds compressed batches, or something else than batches")
    return schema, messages


def _is_plain_batch(message: Any) -> bool:
    """Whether a message of an Arrow file is a record batch that is not compressed, which pyarrow does not say.

    Raises struct.error if its metadata are damaged.
    """
    if message.type != "record batch" or message.metadata_version != pa.ipc.MetadataVersion.V5:
        return False  # version 4 has another place for its compression
    data = message.metadata

    def field(table: int, number: int) -> int:
        """Where a field of a table of FlatBuffers stands; 0 if the table has none."""
        vtable = table - struct.unpack_from("<i", data, table)[0]
        offset = 4 + 2 * number
        present = offset < struct.unpack_from("<H", data, vtable)[0]
        start = struct.unpack_from("<H", data, vtable + offset)[0] if present else 0
        return table + start if start else 0

    batch = field(struct.unpack_from("<I", data)[0], 2)  # Message.header
    return field(batch + struct.unpack_from("<I", data, batch)[0], 3) == 0  # RecordBatch.compression


@dataclass(frozen=True)
class Additions:
    """Entities that were added after the knowledge base was built: in memory, their rows follow those of the folder.

    `tokens` and `lengths` are those of their names, see ``TokenisedNames``.
    """

    entities: tuple[Entity, ...] = ()
    trie: NameTrie | None = None  # of their names
    tokens: TokenArray = field(default_factory=lambda: np.zeros(0, np.uint8), compare=False, repr=False)
    lengths: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8), compare=False, repr=False)


@dataclass(eq=False, repr=False)
class KnowledgeBase:
    """Entities and the trie of their names, memory-mapped and read-only. Create one with ``open``.

    Attributes:
        path: the folder.
        meta: its meta.json.
        trie: of the names of the entities in the folder.
        table: the entities in the folder.
        ids: index of their ids.
        surfaces: index of their names and aliases.
        folder_counts: how often each of them is linked, (entities,).
        description_vectors: the unit vector of ``description_text`` of each of them, (entities, width); None if they
            were not encoded. Added entities have none.
        added: entities in memory, see ``with_added``. Their rows follow those of the folder.
    """

    path: Path
    meta: KBMeta
    trie: NameTrie
    table: EntityTable
    ids: HashIndex
    surfaces: HashIndex
    folder_counts: NDArray[np.int64]
    description_vectors: NDArray[np.float16] | None = None
    added: Additions = Additions()

    def __post_init__(self) -> None:
        self._owner = folder_owner(self.path)  # keeps a temporary folder alive

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> "KnowledgeBase":
        """Open a folder that ``build-kb`` wrote; checks meta.json, the sizes of files and the headers of arrays.

        `verify` reads everything and compares the checksums too. Raises KBError if the folder is not a knowledge base,
        has another version of the format, or is damaged.
        """
        folder = Path(path)
        meta = read_meta(folder)
        if problems := kb_problems(folder, meta, verify):
            raise KBError(f"{problems[0]}. Build it again with: {build_command(folder)}")
        folder = folder.absolute()
        trie = NameTrie.open(folder, meta.vocab_size, meta.entities)
        ids, surfaces = (HashIndex.open(folder, name, meta.entities) for name in (IDS, SURFACES))
        counts = open_array(folder / COUNTS_FILE, np.int64)
        sizes = (trie.n_edges, len(trie.leaf_rows), len(ids.rows), len(counts))
        if sizes != (meta.edges, meta.names, meta.entities, meta.entities):
            raise KBError(f"The arrays of {path} do not have the sizes that meta.json gives: build it again")
        table = EntityTable(folder, meta.entities, meta.batch_rows)
        return cls(folder, meta, trie, table, ids, surfaces, counts, _open_vectors(folder, meta))

    def without_added(self) -> "KnowledgeBase":
        """The knowledge base of the folder alone."""
        return replace(self, added=Additions())

    def with_added(
        self, entities: Iterable[Entity], tokenizer: TokenizerLike, *, max_tokens: int | None = None
    ) -> "KnowledgeBase":
        """A knowledge base with further entities, which are held in memory; neither this one nor its files change.

        `tokenizer` is the one that it was built for, `max_tokens` the longest name if less than it allows. Raises
        KBError for an id that already exists, and for a name that cannot enter the trie.
        """
        entities = list(entities)
        seen: set[str] = set()
        for entity in entities:
            if entity.kb_id in self or entity.kb_id in seen:
                raise KBError(f"{entity.kb_id!r} cannot be added: the knowledge base has an entity with this id")
            seen.add(entity.kb_id)
        limit = min(self.meta.max_name_tokens, max_tokens or self.meta.max_name_tokens)
        names = tokenise_names([entity.name for entity in entities], tokenizer, limit)
        for index, problem in names.problems:
            raise KBError(f"{entities[index].kb_id!r} cannot be added: {problem.message}")
        if not entities:
            return self
        old, vocab_size = self.added, self.meta.vocab_size
        added = (*old.entities, *entities)
        tokens = np.concatenate([old.tokens, names.tokens]).astype(names.tokens.dtype, copy=False)
        lengths = np.concatenate([old.lengths, names.lengths])
        rows = np.arange(self.meta.entities, self.meta.entities + len(added), dtype=np.int32)
        counts = np.array([entity.count for entity in added], dtype=np.int64)
        trie = NameTrie(build_trie(tokens, lengths, rows, counts, vocab_size), vocab_size, int(rows[-1]) + 1)
        return replace(self, added=Additions(added, trie, tokens, lengths))

    def __reduce__(self) -> tuple[object, tuple[Path, str, Additions]]:
        # another process maps the same files instead of getting a copy; it could not report a missing folder
        self.check_in_place("sent to another process, or copied")
        return _reopen, (self.path, self.meta.sha256, self.added)

    def __len__(self) -> int:
        """Number of entities."""
        return self.meta.entities + len(self.added.entities)

    def __contains__(self, kb_id: object) -> bool:
        return isinstance(kb_id, str) and self.row(kb_id) is not None

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each entity is linked, (rows,) int64; memory-mapped unless entities were added."""
        added = np.array([entity.count for entity in self.added.entities], dtype=np.int64)
        return np.append(self.folder_counts, added) if len(added) else self.folder_counts

    def count(self, row: int) -> int:
        """How often the entity of a row is linked. Raises IndexError if the row does not exist."""
        return self.entity(row).count if row >= self.meta.entities else int(self.folder_counts[row])

    def entity(self, row: int) -> Entity:
        """The entity of a row. Raises IndexError if the row does not exist, KBError if the table is damaged there."""
        if row >= len(self):
            raise IndexError(f"Row {row} is outside the knowledge base's {len(self)}")
        if row >= self.meta.entities:
            return self.added.entities[row - self.meta.entities]
        return self.table.entity(row)

    def row(self, kb_id: str) -> int | None:
        """The row of an id, or None if the knowledge base does not have it. Raises KBError if it is damaged there."""
        for row in self.ids.candidates(kb_id):
            if self.table.value(row, "id") == kb_id:
                return row
        return self._added_rows.get(kb_id)

    @cached_property
    def _added_rows(self) -> dict[str, int]:
        return {entity.kb_id: row for row, entity in enumerate(self.added.entities, self.meta.entities)}

    @cached_property
    def _added_surfaces(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, entity in enumerate(self.added.entities, self.meta.entities):
            for key in {surface_key(text) for text in (entity.name, *entity.aliases)}:
                rows.setdefault(key, []).append(row)
        return rows

    def rows_by_surface(self, text: str) -> tuple[list[int], list[int]]:
        """The rows of entities with this name, and of those with only an alias like this, each ascending.

        Underscores count as spaces; the first letter's case does not count. Raises KBError if it is damaged there.
        """
        key = surface_key(text)
        if not key:
            return [], []
        named: list[int] = []
        aliased: list[int] = []
        for row in (*self.surfaces.candidates(key), *self._added_surfaces.get(key, ())):
            entity = self.entity(row)
            if surface_key(entity.name) == key:
                named.append(row)
            elif key in map(surface_key, entity.aliases):
                aliased.append(row)
        return named, aliased

    def rows_of(self, token_ids: Sequence[int]) -> list[int]:
        """Rows of the entities with exactly these tokens, best first: the folder's, then the added. Raises KBError."""
        tries = [trie for trie in (self.trie, self.added.trie) if trie is not None]
        return [row for trie in tries for row in trie.rows_of(token_ids).tolist()]

    @property
    def max_depth(self) -> int:
        """Steps of the longest name in the trie or among the added entities, its END included."""
        return max(trie.max_depth for trie in (self.trie, self.added.trie) if trie is not None)

    @cached_property
    def _in_trie(self) -> NDArray[np.bool_]:  # (entities,), of the folder alone
        in_trie = np.zeros(self.meta.entities, dtype=np.bool_)
        in_trie[self.trie.all_rows()] = True
        return in_trie

    def is_in_trie(self, row: int) -> bool:
        """Whether the search can find the entity of a row by its name. Raises KBError if the trie is corrupt."""
        return row >= self.meta.entities or bool(self._in_trie[row])

    def check_in_place(self, action: str = "saved") -> None:
        """Raise KBError, "cannot be `action`", if the folder has been deleted, replaced or damaged since."""
        failed = f"The knowledge base {self.path} cannot be {action}"
        advice = "Put it back, or link to another one (set_kb)"
        try:
            meta = read_meta(self.path)
        except KBError as error:
            raise KBError(f"{failed}: it was deleted or damaged since it was opened. {advice}") from error
        if meta.sha256 != self.meta.sha256:
            again = "or load the pipeline again to get the new one"
            raise KBError(f"{failed}: another one has taken its place since it was opened. {advice}, {again}")
        if problems := kb_problems(self.path, meta):
            raise KBError(f"{failed}: {problems[0]}. {advice}")

    def files(self) -> list[str]:
        """Names of the files of the knowledge base in ``path``, meta.json last."""
        return [*data_files(self.meta), META_FILE]

    @staticmethod
    def files_at(folder: Path) -> list[str]:
        """Names of the files of the knowledge base in a folder, as it lists them; none if it is none."""
        try:
            return [*data_files(read_meta(folder)), META_FILE]
        except KBError:
            return []

    def check_tokenizer(self, fingerprint: str, name: str) -> None:
        """Raise KBError if the fingerprint is not that of its tokenizer; `name` is the language model's."""
        if fingerprint != self.meta.tokenizer_fingerprint:
            raise KBError(
                f"The knowledge base {self.path} was built for another tokenizer than that of {name!r}: "
                f"its trie has other token ids. Build it again with: {build_command(self.path, name)}"
            )


def _reopen(path: Path, sha256: str, added: Additions) -> KnowledgeBase:
    """Open what another process has open. Raises KBError, also if it has been replaced since."""
    kb = KnowledgeBase.open(path)
    if kb.meta.sha256 != sha256:
        raise KBError(f"The knowledge base {path} has been built again since it was opened: load the pipeline again")
    return replace(kb, added=added)


def data_files(meta: KBMeta) -> list[str]:
    """Every file of a knowledge base but meta.json."""
    return [*DATA_FILES, *(name for name in [VECTORS_FILE] if name in meta.files)]


def _open_vectors(folder: Path, meta: KBMeta) -> NDArray[np.float16] | None:
    if VECTORS_FILE not in meta.files:
        return None
    vectors = open_array(folder / VECTORS_FILE, np.float16, ndim=2)
    if len(vectors) != meta.entities:
        problem = f"has vectors of {len(vectors)} entities instead of {meta.entities}"
        raise KBError(f"{folder / VECTORS_FILE} {problem}: build the KB again")
    return vectors


def kb_problems(folder: Path, meta: KBMeta, verify: bool = False) -> list[str]:
    """What is wrong with the files by meta.json: see `file_problems`."""
    missing = [name for name in DATA_FILES if name not in meta.files]
    unlisted = [f"{folder / META_FILE} does not list {name}" for name in missing]
    return unlisted + file_problems(folder, meta.files, verify=verify)
