"""A made-up Wikipedia in the tables that its dumps have: page, redirect, linktarget and pagelinks, packed.

Of every 17 pages 10 are articles, 5 redirects and 2 of another namespace. One redirect in 100 leads to another,
one in 1,000 to itself. An article has up to 20 links, the more to a page the smaller its number in linktarget; one
target in 13 does not exist. A redirect has one link.
"""

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROUND, ARTICLES, REDIRECTS = 17, 10, 5
LINKS = 20
ROWS_PER_INSERT = 20_000
SKEW = 3
_STRIDE = 1_000_003
_WORDS = ("Mercury", "Georgia", "São_Paulo", "東京", "O\\'Neill", "House_of_Representatives", "List_of_rivers", "AC/DC")

COLUMNS = {
    "page": "page_id int, page_namespace int, page_title varbinary(255), page_is_redirect tinyint, page_is_new int, "
    "page_random double, page_touched binary(14), page_links_updated varbinary(14), page_latest int, page_len int, "
    "page_content_model varbinary(32), page_lang varbinary(35)",
    "redirect": "rd_from int, rd_namespace int, rd_title varbinary(255), rd_interwiki varbinary(32), "
    "rd_fragment varbinary(255)",
    "linktarget": "lt_id bigint, lt_namespace int, lt_title varbinary(255)",
    "pagelinks": "pl_from int, pl_from_namespace int, pl_target_id bigint",
}
"""The columns of the tables as the dumps of 2024 have them."""


@dataclass(frozen=True, slots=True)
class MadeWiki:
    """What the dumps hold: how much of each, and how many links reach an article."""

    articles: int
    redirects: int
    circles: int
    links: int
    links_to_articles: int
    bytes_packed: int


def make_wiki(articles: int, folder: Path, seed: int = 1) -> MadeWiki:
    """Write the four dumps of a wiki with so many articles, a multiple of ten, into an empty folder."""
    if articles % ARTICLES:
        raise ValueError(f"articles must be a multiple of {ARTICLES}, not {articles}")
    rounds = articles // ARTICLES
    redirects = rounds * REDIRECTS
    _write(folder, "page", _pages(rounds))
    _write(folder, "redirect", (_redirect(number) for number in range(redirects)))
    targets = articles + redirects + articles // 8
    _write(folder, "linktarget", _targets(articles, redirects, targets))
    counted = [0, 0]
    _write(folder, "pagelinks", _links(articles, redirects, targets, np.random.default_rng(seed), counted))
    circles = len(range(0, redirects, 1000))
    size = sum(path.stat().st_size for path in folder.iterdir())
    return MadeWiki(articles, redirects, circles, counted[0], counted[1], size)


def article_title(number: int) -> str:
    """The title of an article, with underscores and as a literal has it."""
    return f"{_WORDS[number % len(_WORDS)]}_({number})"


def redirect_title(number: int) -> str:
    """The title of a redirect."""
    return f"{_WORDS[number % len(_WORDS)]}_no._{number}"


def page_of_article(number: int) -> int:
    """The number of an article's page."""
    return number // ARTICLES * ROUND + number % ARTICLES + 1


def page_of_redirect(number: int) -> int:
    """The number of a redirect's page."""
    return number // REDIRECTS * ROUND + ARTICLES + number % REDIRECTS + 1


def _pages(rounds: int) -> Iterator[str]:
    end = ",0,0.4711,'20240501000000','20240501000000',123456,2345,'wikitext',NULL)"
    for at in range(rounds):
        page = at * ROUND + 1
        for number in range(at * ARTICLES, (at + 1) * ARTICLES):
            yield f"({page},0,'{article_title(number)}',0{end}"
            page += 1
        for number in range(at * REDIRECTS, (at + 1) * REDIRECTS):
            yield f"({page},0,'{redirect_title(number)}',1{end}"
            page += 1
        for _ in range(ROUND - ARTICLES - REDIRECTS):
            yield f"({page},1,'Talk_of_{page}',0{end}"
            page += 1


def _redirect(number: int) -> str:
    if number % 1000 == 0:
        title = redirect_title(number)
    elif number % 100 == 1 and number % 1000 != 1:
        title = redirect_title(number + 1)
    else:
        title = article_title(number)
    return f"({page_of_redirect(number)},0,'{title}','','')"


def _targets(articles: int, redirects: int, targets: int) -> Iterator[str]:
    for at in range(targets):
        number = at * _STRIDE % targets
        if number < articles:
            title = article_title(number)
        elif number < articles + redirects:
            title = redirect_title(number - articles)
        else:
            title = f"Red_{number}"
        yield f"({at + 1},0,'{title}')"


def _links(
    articles: int, redirects: int, targets: int, random: np.random.Generator, counted: list[int]
) -> Iterator[str]:
    """Rows of pagelinks; counted: [all links, those that reach an article and come from one] as they are made."""
    for first in range(0, articles, ROWS_PER_INSERT):
        last = min(first + ROWS_PER_INSERT, articles)
        sources = np.repeat(np.arange(first, last), LINKS)
        pairs = np.unique(sources * targets + (targets * random.random(len(sources)) ** SKEW).astype(np.int64))
        sources, indices = pairs // targets, pairs % targets
        numbers = indices * _STRIDE % targets
        to_redirects = numbers[(numbers >= articles) & (numbers < articles + redirects)] - articles
        counted[0] += len(pairs)
        counted[1] += int(np.count_nonzero(numbers < articles) + np.count_nonzero(to_redirects % 1000))
        pages = sources // ARTICLES * ROUND + sources % ARTICLES + 1
        for page, index in zip(pages.tolist(), indices.tolist(), strict=True):
            yield f"({page},0,{index + 1})"
    for number in range(redirects):
        counted[0] += 1
        yield f"({page_of_redirect(number)},0,{number % targets + 1})"


def _write(folder: Path, table: str, rows: Iterable[str]) -> None:
    columns = ",\n".join("  `{}` {} NOT NULL".format(*column.split(" ")) for column in COLUMNS[table].split(", "))
    head = f"-- MySQL dump 10.19\n\nDROP TABLE IF EXISTS `{table}`;\nCREATE TABLE `{table}` (\n{columns}\n);\n"
    with gzip.open(folder / f"madewiki-latest-{table}.sql.gz", "wt", compresslevel=1, encoding="utf-8") as file:
        file.write(head)
        waiting: list[str] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == ROWS_PER_INSERT:
                file.write(f"INSERT INTO `{table}` VALUES {','.join(waiting)};\n")
                waiting.clear()
        if waiting:
            file.write(f"INSERT INTO `{table}` VALUES {','.join(waiting)};\n")
