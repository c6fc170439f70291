"""Entities from Wikidata's JSON dump: one big list, an entity on each line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spacy_gemel.data.knowledge_bases.archive import Archive
from spacy_gemel.data.knowledge_bases.work import ImportOptions, ImportReport, Work
from spacy_gemel.kb.entity import Entity

_LONGEST_LINE = 2**26
_ALL_LANGUAGES = "mul"
_ID = re.compile(r"[A-Z][1-9]\d*(-[A-Z]\d+)?")


def read_wikidata(sources: Sequence[Path], options: ImportOptions, work: Work) -> Iterator[tuple[str, Entity]]:
    """Yield the items of some dumps: QID, label or title, aliases, description, and the number of sitelinks as count.

    Texts are those of the language, else those that Wikidata has for all languages. If the label is the name, the
    site's title is an alias, and the other way round, because golds come as both. Raises ValueError for other names.
    """
    if options.names not in (None, "label", "title"):
        raise ValueError(f"--names must be label or title, not {options.names!r}")
    for source in sources:
        with work.read(source) as archive:
            yield from _entities(archive, options, work.report)


def _entities(archive: Archive, options: ImportOptions, report: ImportReport) -> Iterator[tuple[str, Entity]]:
    opened = closed = False
    for number, line in archive.lines(_LONGEST_LINE):
        where = f"{archive.path.name}:{number}"
        content = line if line is None else line.strip().removeprefix(b"\xef\xbb\xbf")
        if content == b"":
            continue
        if content in (b"[", b"]"):
            opened, closed = opened or content == b"[", content == b"]"
            continue
        report.read["entities"] += 1
        if content is None:
            report.drop(f"lines of more than {_LONGEST_LINE} bytes", where)
            continue
        # a list may begin and end on the lines of its first and last entities
        opened, closed = opened or content.startswith(b"["), content.endswith(b"}]")
        content = content.removeprefix(b"[").rstrip(b",]" if closed else b",")
        if entity := _entity(content, where, options, report):
            yield where, entity
    if opened and not closed:
        raise archive.cut_off("the list of entities does not end")


def _entity(line: bytes, where: str, options: ImportOptions, report: ImportReport) -> Entity | None:
    """The entity of a line, or None after reporting why not."""
    languages = (options.language, _ALL_LANGUAGES)
    site = options.site or options.language.replace("-", "_") + "wiki"
    needs_site = options.with_sitelink or options.names == "title"
    no_page = f"entities without a page in {site}"
    if needs_site and json.dumps(site).encode() not in line:  # not worth parsing
        report.drop(no_page, where)
        return None
    beginning = f"{where}: {line[:80].decode('utf-8', 'backslashreplace')}"
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        report.drop("lines that are not UTF-8", beginning)
        return None
    except (ValueError, RecursionError) as error:
        report.drop("lines that are not JSON", f"{beginning} ({error})")
        return None
    kb_id = row.get("id") if isinstance(row, dict) else None
    if not isinstance(kb_id, str) or not _ID.fullmatch(kb_id):
        report.drop("lines that are not an entity", beginning)
        return None
    where = f"{where}: {kb_id}"
    if row.get("type", "item") != "item" and not (options.properties and row["type"] == "property"):
        report.drop("entities that are not an item", where)
        return None
    links = _object(row.get("sitelinks"))
    title, label = _text(links.get(site), "title"), _first(row.get("labels"), languages)
    if needs_site and not title:
        report.drop(no_page, where)
        return None
    name, alternative = (title, label) if options.names == "title" else (label, title)
    if not name:
        report.drop(f"entities without a label in {options.language}", where)
        return None
    by_language = _object(row.get("aliases"))
    lists = [by_language[language] for language in languages if isinstance(by_language.get(language), list)]
    aliases = [alias for items in lists for item in items if (alias := _text(item, "value"))]
    if alternative:
        aliases.insert(0, alternative)
    return Entity(kb_id, name, len(links), tuple(aliases), _first(row.get("descriptions"), languages))


def _first(texts: Any, languages: Sequence[str]) -> str | None:
    """The text of the first language that has one."""
    by_language = _object(texts)
    return next((text for name in languages if (text := _text(by_language.get(name), "value"))), None)


def _object(value: Any) -> dict[str, Any]:
    """An object; Wikibase writes an empty one as an empty list."""
    return value if isinstance(value, dict) else {}


def _text(value: Any, key: str) -> str | None:
    text = value.get(key) if isinstance(value, dict) else None
    return text if isinstance(text, str) else None
