"""A knowledge base folder, opened without loading it."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.additions import Additions
from spacy_gemel.kb.entity import Entity, KBError, build_command
from spacy_gemel.kb.entity_table import ENTITIES_FILE, EntityTable
from spacy_gemel.kb.index import HashIndex, open_array, surface_key
from spacy_gemel.kb.meta import META_FILE, KBMeta, read_meta, sha256_of
from spacy_gemel.kb.name_tokens import TokenizerLike
from spacy_gemel.kb.trie import NameTrie, TrieArrays
from spacy_gemel.utils.files import folder_owner

IDS, SURFACES = "ids", "surfaces"
COUNTS_FILE = "counts.npy"
DATA_FILES = (
    ENTITIES_FILE,
    COUNTS_FILE,
    *HashIndex.files(IDS),
    *HashIndex.files(SURFACES),
    *TrieArrays.file_names(),
)
"""Every file of a knowledge base but meta.json."""


class KnowledgeBase:
    """Entities and the trie of their names, memory-mapped and read-only. Create one with ``open``.

    Attributes:
        path: the folder.
        meta: its meta.json.
        trie: of the names of the entities in the folder.
        table: the entities in the folder.
        ids: index of their ids.
        surfaces: index of their names and aliases.
        added: entities in memory, see ``with_added``. Their rows follow those of the folder.
    """

    def __init__(
        self,
        path: Path,
        meta: KBMeta,
        trie: NameTrie,
        table: EntityTable,
        ids: HashIndex,
        surfaces: HashIndex,
        counts: NDArray[np.int64],
        added: Additions | None = None,
    ) -> None:
        self.path = path
        self._owner = folder_owner(path)  # keeps a temporary folder alive
        self.meta = meta
        self.trie = trie
        self.table = table
        self.ids = ids
        self.surfaces = surfaces
        self._counts = counts
        self.added = Additions(meta.entities) if added is None else added

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> "KnowledgeBase":
        """Open a folder that ``build-kb`` wrote.

        Checks the version of the format, the checksum of meta.json, the size of every file and the header of every
        array.

        Args:
            path: the folder.
            verify: read everything and compare the checksums of all files as well.

        Raises:
            KBError: if the folder is not a knowledge base, has another version of the format, or is damaged.
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
        ids, surfaces = (HashIndex.open(folder, name, meta.entities) for name in (IDS, SURFACES))
        counts = open_array(folder / COUNTS_FILE, np.int64)
        sizes = (trie.n_edges, len(trie.leaf_rows), len(ids.rows), len(counts))
        if sizes != (meta.edges, meta.names, meta.entities, meta.entities):
            raise KBError(f"The arrays of {path} do not have the sizes that meta.json gives: build it again")
        return cls(folder, meta, trie, EntityTable(folder, meta.entities, meta.batch_rows), ids, surfaces, counts)

    def without_added(self) -> "KnowledgeBase":
        """The knowledge base of the folder alone."""
        return self._with(Additions(self.meta.entities))

    def with_added(
        self, entities: Iterable[Entity], tokenizer: TokenizerLike, *, max_tokens: int | None = None
    ) -> "KnowledgeBase":
        """A knowledge base with further entities, which are held in memory; neither this one nor its files change.

        Args:
            entities: the new entities.
            tokenizer: the one that the knowledge base was built for.
            max_tokens: the longest name in tokens, if less than the knowledge base allows.

        Raises:
            KBError: for an id that already exists, and for a name that cannot enter the trie.
        """
        entities = list(entities)
        seen: set[str] = set()
        for entity in entities:
            if entity.kb_id in self or entity.kb_id in seen:
                raise KBError(f"{entity.kb_id!r} cannot be added: the knowledge base has an entity with this id")
            seen.add(entity.kb_id)
        limit = min(self.meta.max_name_tokens, max_tokens or self.meta.max_name_tokens)
        return self._with(self.added.extended(entities, tokenizer, max_tokens=limit, vocab_size=self.meta.vocab_size))

    def _with(self, added: Additions) -> "KnowledgeBase":
        return KnowledgeBase(self.path, self.meta, self.trie, self.table, self.ids, self.surfaces, self._counts, added)

    def __reduce__(self) -> tuple[object, tuple[Path, str, Additions]]:
        # another process maps the same files instead of getting a copy; it could not report a missing folder
        self.check_in_place("sent to another process, or copied")
        return _reopen, (self.path, self.meta.sha256, self.added)

    def __len__(self) -> int:
        """Number of entities."""
        return self.meta.entities + len(self.added)

    def __contains__(self, kb_id: object) -> bool:
        return isinstance(kb_id, str) and self.row(kb_id) is not None

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each entity is linked, (rows,) int64; memory-mapped unless entities were added."""
        if not len(self.added):
            return self._counts
        return np.append(self._counts, np.array([entity.count for entity in self.added.entities], dtype=np.int64))

    def count(self, row: int) -> int:
        """How often the entity of a row is linked.

        Raises:
            IndexError: if the row does not exist.
        """
        return self.added.entity(row).count if row >= self.meta.entities else int(self._counts[row])

    def entity(self, row: int) -> Entity:
        """The entity of a row.

        Raises:
            IndexError: if the row does not exist.
            KBError: if the table is damaged there.
        """
        return self.added.entity(row) if row >= self.meta.entities else self.table.entity(row)

    def row(self, kb_id: str) -> int | None:
        """The row of an id, or None if the knowledge base does not have it.

        Raises:
            KBError: if the index or the table is damaged there.
        """
        for row in self.ids.candidates(kb_id):
            if self.table.value(row, "id") == kb_id:
                return row
        return self.added.row(kb_id)

    def rows_by_surface(self, text: str) -> tuple[list[int], list[int]]:
        """Look up a name or alias; underscores count as spaces, and the first letter's case does not count.

        Returns:
            The rows of the entities with this name, and the rows of those with only an alias like this, each ascending.

        Raises:
            KBError: if the index or the table is damaged there.
        """
        key = surface_key(text)
        if not key:
            return [], []
        named: list[int] = []
        aliased: list[int] = []
        for row in self.surfaces.candidates(key):
            if surface_key(self.table.value(row, "name")) == key:
                named.append(row)
            elif key in map(surface_key, self.table.value(row, "aliases")):
                aliased.append(row)
        added_named, added_aliased = self.added.rows_by_surface(key)
        return named + added_named, aliased + added_aliased

    def rows_of(self, token_ids: Sequence[int]) -> list[int]:
        """Rows of the entities whose name has exactly these tokens; of the folder's and of the added, best first.

        Raises:
            KBError: if the trie is corrupt.
        """
        tries = [trie for trie in (self.trie, self.added.trie) if trie is not None]
        return [row for trie in tries for row in trie.rows_of(token_ids).tolist()]

    @property
    def max_depth(self) -> int:
        """Steps of the longest name in the trie or among the added entities, its END included."""
        return max(self.trie.max_depth, self.added.trie.max_depth if self.added.trie is not None else 0)

    @cached_property
    def _in_trie(self) -> NDArray[np.bool_]:
        """Whether the name of each entity in the folder is in the trie, (rows,). Raises KBError."""
        in_trie = np.zeros(self.meta.entities, dtype=np.bool_)
        in_trie[self.trie.all_rows()] = True
        return in_trie

    def is_linkable(self, row: int) -> bool:
        """Whether the search can find the entity of a row: whether its name is in the trie.

        Raises:
            KBError: if the trie is corrupt.
        """
        return row >= self.meta.entities or bool(self._in_trie[row])

    def check_in_place(self, action: str = "saved") -> None:
        """Check that the folder still holds what was opened.

        Args:
            action: what is otherwise impossible, as a participle for the message.

        Raises:
            KBError: if the folder has been deleted, replaced or damaged.
        """
        failed = f"The knowledge base {self.path} cannot be {action}"
        advice = "Put it back, or link to another one (set_kb)"
        try:
            meta = read_meta(self.path)
        except KBError as error:
            raise KBError(f"{failed}: it was deleted or damaged since it was opened. {advice}") from error
        if meta.sha256 != self.meta.sha256:
            raise KBError(
                f"{failed}: another one has taken its place since it was opened. {advice}, or load the pipeline again "
                "to get the new one"
            )
        problems = size_problems(self.path, meta)
        if problems:
            raise KBError(f"{failed}: {problems[0]}. {advice}")

    def files(self) -> list[str]:
        """Names of the files of the knowledge base in ``path``."""
        return [META_FILE, *DATA_FILES]

    def check_tokenizer(self, fingerprint: str, name: str) -> None:
        """Check that the knowledge base was built for a language model's tokenizer.

        Args:
            fingerprint: of the tokenizer.
            name: of the language model, for the message.

        Raises:
            KBError: if it was built for another tokenizer.
        """
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
    return kb._with(added) if len(added) else kb


def size_problems(folder: Path, meta: KBMeta) -> list[str]:
    """Files that are missing, not in meta.json, or of another size."""
    problems = [f"{folder / META_FILE} does not list {name}" for name in DATA_FILES if name not in meta.files]
    for name in DATA_FILES:
        if (record := meta.files.get(name)) is None:
            continue
        try:
            size = (folder / name).stat().st_size
        except OSError:
            problems.append(f"{folder / name} is missing")
            continue
        if size != record.bytes:
            problems.append(f"{folder / name} has {size} bytes instead of {record.bytes}")
    return problems


def checksum_problems(folder: Path, meta: KBMeta) -> list[str]:
    """Files whose bytes do not match their checksum; reads everything."""
    problems = []
    for name in DATA_FILES:
        try:
            if name in meta.files and sha256_of(folder / name) != meta.files[name].sha256:
                problems.append(f"{folder / name} does not match its checksum: its bytes have changed")
        except OSError as error:
            problems.append(f"{folder / name} cannot be read: {error}")
    return problems
