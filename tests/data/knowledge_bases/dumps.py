"""Writes the formats that import-kb reads, by their own descriptions and not by what the importer expects."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# the columns of the tables as Wikipedia's dumps had them in 2024, with their types
TABLES: dict[str, list[str]] = {
    "page": [
        "page_id int(8) unsigned NOT NULL AUTO_INCREMENT",
        "page_namespace int(11) NOT NULL DEFAULT 0",
        "page_title varbinary(255) NOT NULL DEFAULT ''",
        "page_is_redirect tinyint(1) unsigned NOT NULL DEFAULT 0",
        "page_is_new tinyint(1) unsigned NOT NULL DEFAULT 0",
        "page_random double unsigned NOT NULL DEFAULT 0",
        "page_touched binary(14) NOT NULL",
        "page_links_updated varbinary(14) DEFAULT NULL",
        "page_latest int(8) unsigned NOT NULL DEFAULT 0",
        "page_len int(8) unsigned NOT NULL DEFAULT 0",
        "page_content_model varbinary(32) DEFAULT NULL",
        "page_lang varbinary(35) DEFAULT NULL",
    ],
    "redirect": [
        "rd_from int(8) unsigned NOT NULL DEFAULT 0",
        "rd_namespace int(11) NOT NULL DEFAULT 0",
        "rd_title varbinary(255) NOT NULL DEFAULT ''",
        "rd_interwiki varbinary(32) DEFAULT NULL",
        "rd_fragment varbinary(255) DEFAULT NULL",
    ],
    "page_props": [
        "pp_page int(8) unsigned NOT NULL",
        "pp_propname varbinary(60) NOT NULL",
        "pp_value blob NOT NULL",
        "pp_sortkey float DEFAULT NULL",
    ],
    "linktarget": [
        "lt_id bigint(20) unsigned NOT NULL AUTO_INCREMENT",
        "lt_namespace int(11) NOT NULL",
        "lt_title varbinary(255) NOT NULL",
    ],
    "pagelinks": [
        "pl_from int(8) unsigned NOT NULL DEFAULT 0",
        "pl_from_namespace int(11) NOT NULL DEFAULT 0",
        "pl_target_id bigint(20) unsigned NOT NULL",
    ],
    "pagelinks_2022": [
        "pl_from int(8) unsigned NOT NULL DEFAULT 0",
        "pl_namespace int(11) NOT NULL DEFAULT 0",
        "pl_title varbinary(255) NOT NULL DEFAULT ''",
        "pl_from_namespace int(11) NOT NULL DEFAULT 0",
    ],
}


def literal(value: Any) -> bytes:
    """A MySQL literal as mysqldump writes it."""
    if value is None:
        return b"NULL"
    if isinstance(value, str):
        value = value.encode("utf-8")
    if isinstance(value, bytes):
        for plain, escaped in ((b"\\", b"\\\\"), (b"'", b"\\'"), (b'"', b'\\"'), (b"\n", b"\\n"), (b"\r", b"\\r")):
            value = value.replace(plain, escaped)
        return b"'" + value.replace(b"\0", b"\\0").replace(b"\x1a", b"\\Z") + b"'"
    return str(value).encode("ascii")


def create(table: str) -> bytes:
    """The head of a table's dump."""
    lines = [f"  `{column.split()[0]}` {column.split(' ', 1)[1]}" for column in TABLES[table]]
    first = TABLES[table][0].split()[0]
    keys = [f"  PRIMARY KEY (`{first}`)", f"  KEY `other` (`{first}`,`{TABLES[table][-1].split()[0]}`)"]
    name = table.split("_2")[0]
    return (
        "-- MySQL dump 10.19  Distrib 10.3.38-MariaDB, for debian-linux-gnu (x86_64)\n"
        "-- Host: db    Database: testwiki\n"
        "/*!40101 SET NAMES utf8mb4 */;\n\n"
        f"DROP TABLE IF EXISTS `{name}`;\n"
        "/*!40101 SET character_set_client = utf8 */;\n"
        f"CREATE TABLE `{name}` (\n" + ",\n".join(lines + keys) + "\n"
        ") ENGINE=InnoDB AUTO_INCREMENT=79 DEFAULT CHARSET=binary ROW_FORMAT=COMPRESSED;\n\n"
        f"/*!40000 ALTER TABLE `{name}` DISABLE KEYS */;\n"
    ).encode()


def dump(table: str, rows: Iterable[Sequence[Any]], *, per_insert: int = 1000, newlines: bool = False) -> bytes:
    """A dump of a table; newlines: each row on its own line, as newer servers have it."""
    name = table.split("_2")[0]
    written = [b"(" + b",".join(map(literal, row)) + b")" for row in rows]
    parts = [create(table)]
    for start in range(0, len(written), per_insert):
        between = b",\n" if newlines else b","
        head = f"INSERT INTO `{name}` VALUES{chr(10) if newlines else ' '}".encode()
        parts.append(head + between.join(written[start : start + per_insert]) + b";\n")
    parts.append(f"/*!40000 ALTER TABLE `{name}` ENABLE KEYS */;\n-- Dump completed on 2024-05-02  3:14:15\n".encode())
    return b"".join(parts)


def page(number: int, title: str | bytes | None, *, namespace: int = 0, redirect: int = 0) -> tuple[Any, ...]:
    """A row of the table page."""
    return (number, namespace, title, redirect, 0, 0.5, "20240501000000", None, number + 7, 42, "wikitext", None)


def redirect(source: int, title: str, *, namespace: int = 0, wiki: Any = "", fragment: Any = "") -> tuple[Any, ...]:
    """A row of the table redirect."""
    return (source, namespace, title, wiki, fragment)


def write(folder: Path, table: str, rows: Iterable[Sequence[Any]], **how: Any) -> Path:
    """A packed dump of a table."""
    path = folder / f"testwiki-latest-{table}.sql.gz"
    path.write_bytes(gzip.compress(dump(table, rows, **how)))
    return path


def entities(path: Path) -> dict[str, dict[str, Any]]:
    """What was imported, by id; ids must not repeat."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id
