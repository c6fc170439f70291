"""Entities from Wikidata's JSON dump: one big list, an entity on each line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spacy_gemel.data.knowledge_bases.work import Archive, ImportOptions, ImportReport, Work
from spacy_gemel.kb.entity import Entity

_LONGEST_LINE = 2**26
_ID = re.compile(r"[A-Z][1-9]\d*(-[A-Z]\d+)?")


def read_wikidata(sources: Sequence[Path], options: ImportOptions, work: Work) -> Iterator[tuple[str, Entity]]:
    """Yield the items of some dumps: QID, label or title, aliases, description, and the number of sitelinks as count.

    Texts are those of the language, else those that Wikidata has for all languages. If the label is the name, the
    site's title is an alias, and the other way round, because gold ids come as both. Raises ValueError for other names.
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
            report.dropped.add(f"lines of more than {_LONGEST_LINE} bytes", where)
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
    languages = dict.fromkeys((options.language, "mul"))
    site = options.site or options.language.replace("-", "_") + "wiki"
    needs_site = options.with_sitelink or options.names == "title"
    no_page = f"entities without a page in {site}"
    if needs_site and json.dumps(site).encode() not in line:  # not worth parsing
        report.dropped.add(no_page, where)
        return None
    beginning = f"{where}: {line[:80].decode('utf-8', 'backslashreplace')}"
    try:
        row = json.loads(line)
        if not _ID.fullmatch(kb_id := row["id"]):
            raise KeyError(kb_id)
    except UnicodeDecodeError:
        report.dropped.add("lines that are not UTF-8", beginning)
        return None
    except (ValueError, RecursionError) as error:
        report.dropped.add("lines that are not JSON", f"{beginning} ({error})")
        return None
    except (LookupError, TypeError):
        report.dropped.add("lines that are not an entity", beginning)
        return None
    where = f"{where}: {kb_id}"
    keys = ("sitelinks", "labels", "descriptions", "aliases")
    links, labels, descriptions, by_language = (_get(row, key, dict) or {} for key in keys)
    title = _get(links.get(site), "title", str)
    label, description = (
        next((text for name in languages if (text := _get(texts.get(name), "value", str))), None)
        for texts in (labels, descriptions)
    )
    values = (alias for name in languages for alias in _get(by_language, name, list) or ())
    aliases = [text for alias in values if (text := _get(alias, "value", str))]
    name, alternative = (title, label) if options.names == "title" else (label, title)
    if row.get("type", "item") not in (("item", "property") if options.properties else ("item",)):
        report.dropped.add("entities that are not an item", where)
    elif needs_site and not title:
        report.dropped.add(no_page, where)
    elif not name:
        report.dropped.add(f"entities without a label in {options.language}", where)
    else:
        aliases = [alternative, *aliases] if alternative else aliases
        return Entity(kb_id, name, len(links), tuple(aliases), description)
    return None


def _get(value: Any, key: str, kind: type) -> Any:
    """The value of a key, None if it is not of this type: Wikibase writes an empty object as an empty list."""
    result = value.get(key) if isinstance(value, dict) else None
    return result if isinstance(result, kind) else None
