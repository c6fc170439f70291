"""Entities on their way to entities.jsonl: what build-kb would refuse is left out here, and said."""

from __future__ import annotations

import json
from typing import BinaryIO

from spacy_gemel.data.knowledge_bases.work import Work
from spacy_gemel.kb.entity import Entity
from spacy_gemel.kb.jsonl import MAX_COUNT, MAX_TEXT

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class EntityWriter:
    """Writes entities as lines, once per id."""

    def __init__(self, file: BinaryIO, work: Work) -> None:
        self._file = file
        self._report = work.report
        self._store = work.store
        self._store.execute("CREATE TABLE written (id TEXT PRIMARY KEY) WITHOUT ROWID")

    def add(self, entity: Entity, where: str) -> None:
        """Write an entity, or report why not; where: its place in the source."""
        kb_id, name = entity.kb_id.strip(), entity.name.strip()
        if not kb_id or not name:
            self._report.drop("entities without " + ("a name" if kb_id else "an id"), where)
            return
        aliases = self._aliases(entity, name)
        row: dict[str, object] = {"id": kb_id, "name": name}
        if aliases:
            row["aliases"] = aliases
        if entity.description:
            row["description"] = entity.description
        if entity.count:
            row["count"] = min(entity.count, MAX_COUNT)
        try:
            line = _encode(row).encode("utf-8") + b"\n"
        except UnicodeEncodeError:
            self._report.drop("entities with half of a surrogate pair, which is no text", where)
            return
        if len(line) > MAX_TEXT // 8 and not (line := self._fitted(row, line, where)):
            return
        if not self._store.execute("INSERT OR IGNORE INTO written VALUES (?)", (kb_id,)).rowcount:
            self._report.drop("entities whose id stands above already", where)
            return
        self._file.write(line)
        kept = self._report.kept
        kept["entities"] += 1
        kept["aliases"] += len(aliases)
        kept["entities with a description"] += bool(entity.description)
        kept["entities with a count"] += bool(entity.count)

    def _aliases(self, entity: Entity, name: str) -> list[str]:
        if not entity.aliases:
            return []
        found = dict.fromkeys(alias.strip() for alias in entity.aliases)
        found.pop(name, None)
        found.pop("", None)
        return list(found)

    def _fitted(self, row: dict[str, object], line: bytes, where: str) -> bytes:
        """The line with as many aliases as build-kb takes; nothing where the other texts alone are too much."""
        aliases = row.get("aliases", [])
        assert isinstance(aliases, list)
        room = MAX_TEXT - sum(len(str(row.get(key, "")).encode()) for key in ("id", "name", "description"))
        if room < 0:
            self._report.drop(f"entities with more than {MAX_TEXT} bytes of text", where)
            return b""
        for kept, alias in enumerate(aliases):
            room -= len(alias.encode()) + 16
            if room < 0:
                self._report.drop(f"aliases beyond {MAX_TEXT} bytes of one entity", where, len(aliases) - kept)
                del aliases[kept:]
                return _encode(row).encode("utf-8") + b"\n"
        return line
