"""A knowledge base folder, opened without loading it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.additions import Additions
from spacy_gemel.kb.arrays import open_array
from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.entity_table import ENTITIES_FILE, EntityTable
from spacy_gemel.kb.errors import KBError, build_command
from spacy_gemel.kb.index import HASH_FILE, ROW_FILE, IdIndex
from spacy_gemel.kb.meta import META_FILE, KBMeta, read_meta, sha256_of
from spacy_gemel.kb.name_tokens import NameTokenizer
from spacy_gemel.kb.surfaces import SURFACE_HASH_FILE, SURFACE_ROW_FILE, SurfaceIndex, surface_key
from spacy_gemel.kb.trie import NameTrie, TrieArrays
from spacy_gemel.utils.files import folder_owner

COUNTS_FILE = "counts.npy"
DATA_FILES = (
    ENTITIES_FILE,
    COUNTS_FILE,
    HASH_FILE,
    ROW_FILE,
    SURFACE_HASH_FILE,
    SURFACE_ROW_FILE,
    *TrieArrays.file_names(),
)
"""Every file of a knowledge base but meta.json."""


class KnowledgeBase:
    """Entities and the trie of their names, memory-mapped and read-only. Use ``open``.

    added: entities that are not in the folder but in memory; see ``with_added``.
    """

    def __init__(
        self,
        path: Path,
        meta: KBMeta,
        trie: NameTrie,
        table: EntityTable,
        ids: IdIndex,
        surfaces: SurfaceIndex,
        counts: NDArray[np.int64],
        added: Additions | None = None,
    ) -> None:
        self.path = path
        self._unpacked = folder_owner(path)  # kept: the folder may be a temporary one
        self.meta = meta
        self.trie = trie
        self._counts = counts
        self.added = Additions(meta.entities) if added is None else added
        self.table = table
        self.ids = ids
        self.surfaces = surfaces

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> KnowledgeBase:
        """Open a folder that ``build-kb`` wrote.

        Checks the format's version, meta.json's own checksum, the size of every file and the header of every
        array. With ``verify`` it reads everything and checks the checksums as well.

        Raises KBError if the folder is no knowledge base, is of another version of the format, or is damaged.
        """
        folder = Path(path)
        meta = read_meta(folder)
        problems = size_problems(folder, meta)
        if verify and not problems:
            problems = checksum_problems(folder, meta)
        if problems:
            raise KBError(f"{problems[0]}. Build it again with: {build_command(folder)}")
        folder = folder.absolute()
        trie = NameTrie.open(folder, meta.vocab_size, meta.entities)
        ids, surfaces = IdIndex.open(folder), SurfaceIndex.open(folder)
        counts = open_array(folder / COUNTS_FILE, np.int64)
        found = (trie.n_edges, len(trie.leaf_rows), len(ids.rows), len(counts))
        if found != (meta.edges, meta.names, meta.entities, meta.entities):
            raise KBError(f"The arrays of {path} do not have the sizes that meta.json gives: build it again")
        return cls(folder, meta, trie, EntityTable(folder, meta.entities, meta.batch_rows), ids, surfaces, counts)

    def without_added(self) -> KnowledgeBase:
        """The knowledge base as it lies in its folder."""
        return self._with(Additions(self.meta.entities))

    def with_added(
        self, entities: Iterable[Entity], tokenizer: NameTokenizer, *, max_tokens: int | None = None
    ) -> KnowledgeBase:
        """The same knowledge base and these entities besides, which are kept in memory; the files stay as they are.

        tokenizer: the one that the knowledge base was built for. max_tokens: the longest name, where it is to be less
        than the knowledge base allows.
        Raises KBError for an id that is there already, and for a name that the language model cannot be made to say.
        """
        new = list(entities)
        known: set[str] = set()
        for entity in new:
            if entity.kb_id in self or entity.kb_id in known:
                raise KBError(f"{entity.kb_id!r} cannot be added: the knowledge base has an entity of this id")
            known.add(entity.kb_id)
        added = self.added.with_more(
            new,
            tokenizer,
            max_tokens=min(self.meta.max_name_tokens, max_tokens or self.meta.max_name_tokens),
            vocab_size=self.meta.vocab_size,
        )
        return self._with(added)

    def _with(self, added: Additions) -> KnowledgeBase:
        return KnowledgeBase(self.path, self.meta, self.trie, self.table, self.ids, self.surfaces, self._counts, added)

    def __reduce__(self) -> tuple[object, tuple[Path, str, Additions]]:
        # another process maps the same files; it does not get a copy of them, nor can it say what is wrong with them
        self.check_in_place("sent to another process, or copied")
        return _reopen, (self.path, self.meta.sha256, self.added)

    def __len__(self) -> int:
        """Number of entities."""
        return self.meta.entities + len(self.added)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each entity is linked, (rows,) int64; memory-mapped where no entity was added."""
        if not len(self.added):
            return self._counts
        return np.append(self._counts, np.array([entity.count for entity in self.added.entities], dtype=np.int64))

    def count(self, row: int) -> int:
        """How often the entity of a row is linked. Raises IndexError for a row that there is none of."""
        return self.added.entity(row).count if row >= self.meta.entities else int(self._counts[row])

    def __contains__(self, kb_id: object) -> bool:
        return isinstance(kb_id, str) and self.row(kb_id) is not None

    def entity(self, row: int) -> Entity:
        """The entity of a row; raises IndexError for a row outside the table, and KBError where it is damaged."""
        return self.added.entity(row) if row >= self.meta.entities else self.table.entity(row)

    def row(self, kb_id: str) -> int | None:
        """The row of an id, None if the knowledge base does not hold it. Raises KBError where it is damaged."""
        for row in self.ids.candidates(kb_id):
            if self.table.value(row, "id") == kb_id:
                return row
        return self.added.row(kb_id)

    def rows_by_surface(self, text: str) -> tuple[list[int], list[int]]:
        """The rows of the entities with this name, and of those with this alias and another name; each ascending.

        Underscores count as blanks, and the first letter's case does not count. Raises KBError where it is damaged.
        """
        key = surface_key(text)
        named: list[int] = []
        aliased: list[int] = []
        for row in self.surfaces.candidates(key) if key else ():
            if not 0 <= row < self.meta.entities:
                raise KBError(f"{SURFACE_ROW_FILE} of {self.path} is corrupt (python -m spacy_gemel check-kb KB_DIR)")
            if surface_key(self.table.value(row, "name")) == key:
                named.append(row)
            elif key in map(surface_key, self.table.value(row, "aliases")):
                aliased.append(row)
        too_named, too_aliased = self.added.rows_by_surface(key) if key else ([], [])
        return named + too_named, aliased + too_aliased

    @property
    def max_depth(self) -> int:
        """Steps of the longest name in the trie or among those added, its END included."""
        return max(self.trie.max_depth, self.added.trie.max_depth if self.added.trie is not None else 0)

    def rows_of(self, token_ids: Sequence[int]) -> list[int]:
        """Rows of the entities whose name has exactly these tokens, the best first. Raises KBError."""
        rows: list[int] = self.trie.rows_of(token_ids).tolist()
        if self.added.trie is not None:
            rows += self.added.trie.rows_of(token_ids).tolist()
        return rows

    @cached_property
    def _named(self) -> NDArray[np.bool_]:
        """Whether each entity's name is in the trie, (rows,). Raises KBError."""
        named = np.zeros(self.meta.entities, dtype=np.bool_)
        named[self.trie.all_rows()] = True
        return named

    def is_linkable(self, row: int) -> bool:
        """Whether the search can say the name of a row's entity: it is in the trie. Raises KBError."""
        return row >= self.meta.entities or bool(self._named[row])

    def check_in_place(self, what: str = "saved") -> None:
        """Raise KBError where the folder no longer holds what is open: it was deleted, replaced or damaged since.

        what: what it cannot be then, in the message.
        """
        advice = "Put it back, or link to one that is there (set_kb)"
        try:
            meta = read_meta(self.path)
        except KBError as error:
            raise KBError(
                f"The knowledge base {self.path} cannot be {what}: it was deleted or damaged since it was opened. "
                f"{advice}"
            ) from error
        if meta.sha256 != self.meta.sha256:
            raise KBError(
                f"The knowledge base {self.path} cannot be {what}: another one has taken its place since it was "
                f"opened. {advice}, or load the pipeline again to have the new one"
            )
        problems = size_problems(self.path, meta)
        if problems:
            raise KBError(f"The knowledge base {self.path} cannot be {what}: {problems[0]}. {advice}")

    def files(self) -> list[str]:
        """Names of the files in ``path`` that make the knowledge base."""
        return [META_FILE, *DATA_FILES]

    def check_tokenizer(self, fingerprint: str, name: str) -> None:
        """Raise KBError if the KB was built for another tokenizer than that of the model ``name``."""
        if fingerprint != self.meta.tokenizer_fingerprint:
            raise KBError(
                f"The knowledge base {self.path} was built for another tokenizer than that of {name!r}: "
                f"its trie holds other token ids. Build it again with: {build_command(self.path, name)}"
            )


def _reopen(path: Path, sha256: str, added: Additions) -> KnowledgeBase:
    """Open the knowledge base that another process has open. Raises KBError, also if it has been replaced since."""
    kb = KnowledgeBase.open(path)
    if kb.meta.sha256 != sha256:
        raise KBError(f"The knowledge base {path} has been built again since it was opened: load the pipeline again")
    return kb._with(added) if len(added) else kb


def size_problems(folder: Path, meta: KBMeta) -> list[str]:
    """Files that are missing, unknown to meta.json, or of another size than it says."""
    problems = [f"{folder / META_FILE} does not list {name}" for name in DATA_FILES if name not in meta.files]
    for name in DATA_FILES:
        record = meta.files.get(name)
        if record is None:
            continue
        try:
            size = (folder / name).stat().st_size
        except OSError:
            problems.append(f"{folder / name} is missing")
            continue
        if size != record.bytes:
            problems.append(f"{folder / name} has {size} bytes in place of {record.bytes}")
    return problems


def checksum_problems(folder: Path, meta: KBMeta) -> list[str]:
    """Files whose bytes do not match their checksum; reads everything."""
    problems = []
    for name in DATA_FILES:
        record = meta.files.get(name)
        try:
            if record is not None and sha256_of(folder / name) != record.sha256:
                problems.append(f"{folder / name} does not match its checksum: its bytes have changed")
        except OSError as error:
            problems.append(f"{folder / name} cannot be read: {error}")
    return problems
