"""Entities from Wikidata's JSON dump: one big list, an entity on each line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spacy_gemel.data.knowledge_bases.archive import Archive
from spacy_gemel.data.knowledge_bases.options import ImportOptions
from spacy_gemel.data.knowledge_bases.work import Work
from spacy_gemel.kb.entity import Entity

_LONGEST_LINE = 2**26
_ALL_LANGUAGES = "mul"
_ID = re.compile(r"[A-Z][1-9]\d*(-[A-Z]\d+)?")


def read_wikidata(sources: Sequence[Path], options: ImportOptions, work: Work) -> Iterator[tuple[str, Entity]]:
    """The items of some dumps, in their order: QID, label or title, aliases, description, and sitelinks as the count.

    Labels, aliases and descriptions are those of the language, else those that Wikidata keeps for all languages. The
    site's title is an alias where the label is the name, and the other way round: golds come as both.
    Raises ValueError for names that are neither.
    """
    if options.names not in (None, "label", "title"):
        raise ValueError(f"--names must be label or title, not {options.names!r}")
    for source in sources:
        with work.read(source) as archive:
            yield from _Dump(archive, options, work).entities()


class _Dump:
    def __init__(self, archive: Archive, options: ImportOptions, work: Work) -> None:
        self.archive = archive
        self.name = archive.path.name
        self.report = work.report
        self.languages = (options.language, _ALL_LANGUAGES)
        self.by_title = options.names == "title"
        self.site = options.site or options.language.replace("-", "_") + "wiki"
        # the line of an item without the site is not worth parsing
        self.mark = json.dumps(self.site).encode() if options.with_sitelink or self.by_title else b""
        self.properties = options.properties

    def entities(self) -> Iterator[tuple[str, Entity]]:
        opened = closed = False
        for number, line in self.archive.lines(_LONGEST_LINE):
            where = f"{self.name}:{number}"
            content = line if line is None else line.strip().removeprefix(b"\xef\xbb\xbf")
            if content == b"":
                continue
            if content == b"[" or content == b"]":
                opened, closed = opened or content == b"[", content == b"]"
                continue
            self.report.read["entities"] += 1
            if content is None:
                self.report.drop(f"lines of more than {_LONGEST_LINE} bytes", where)
                continue
            # a list may begin and end on the lines of its first and last entities
            opened = opened or content.startswith(b"[")
            closed = content.endswith(b"}]")
            if entity := self._entity(content.removeprefix(b"[").rstrip(b",]" if closed else b","), where):
                yield where, entity
        if opened and not closed:
            raise self.archive.cut_off("the list of entities does not end")

    def _entity(self, line: bytes, where: str) -> Entity | None:
        if self.mark and self.mark not in line:
            self.report.drop(f"entities without a page in {self.site}", where)
            return None
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = "that are no UTF-8" if isinstance(error, UnicodeDecodeError) else "that are no JSON"
            shown = line[:80].decode("utf-8", "backslashreplace")
            self.report.drop(f"lines {what}", f"{where}: {error}: {shown}")
            return None
        if not isinstance(row, dict) or not isinstance(kb_id := row.get("id"), str) or not _ID.fullmatch(kb_id):
            self.report.drop("lines that are no entity", f"{where}: {line[:80].decode('utf-8', 'backslashreplace')}")
            return None
        if row.get("type", "item") != "item" and not (self.properties and row["type"] == "property"):
            self.report.drop("entities that are no item", f"{where}: {kb_id}")
            return None
        return self._made(kb_id, row, where)

    def _made(self, kb_id: str, row: dict[str, Any], where: str) -> Entity | None:
        links = _object(row.get("sitelinks"))
        title = _text(links.get(self.site), "title")
        if self.mark and not title:
            self.report.drop(f"entities without a page in {self.site}", f"{where}: {kb_id}")
            return None
        label = self._first(row.get("labels"))
        name, other = (title, label) if self.by_title else (label, title)
        if not name:
            self.report.drop(f"entities without a label in {self.languages[0]}", f"{where}: {kb_id}")
            return None
        given = _object(row.get("aliases"))
        lists = [given[language] for language in self.languages if isinstance(given.get(language), list)]
        aliases = [alias for items in lists for item in items if (alias := _text(item, "value"))]
        if other:
            aliases.insert(0, other)
        return Entity(kb_id, name, len(links), tuple(aliases), self._first(row.get("descriptions")))

    def _first(self, texts: Any) -> str | None:
        """The text of the first language that has one."""
        given = _object(texts)
        return next((text for language in self.languages if (text := _text(given.get(language), "value"))), None)


def _object(value: Any) -> dict[str, Any]:
    """An object; Wikibase writes an empty one as an empty list."""
    return value if isinstance(value, dict) else {}


def _text(value: Any, key: str) -> str | None:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
