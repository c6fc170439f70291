"""import-kb wikipedia, on small dumps of the tables."""

import gzip
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from spacy_gemel.data.knowledge_bases.importer import import_kb
from spacy_gemel.data.knowledge_bases.work import CutOffError, ImportOptions, ImportReport
from tests.data.knowledge_bases.dumps import dump, entities, page, redirect, write

PAGES = [
    page(10, "Mercury_(planet)"),
    page(11, "Jaguar"),
    page(12, "O'Brien_\"x\"_\\_),(1,0,'y'"),
    page(13, "Ünïcode_東京"),
    page(20, "Planet_Mercury", redirect=1),
    page(21, "Mercure_(planète)", redirect=1),
    page(22, "Old_Mercure", redirect=1),
    page(30, "Jaguar", namespace=14),
    page(31, "Jaguar", namespace=1),
]
REDIRECTS = [
    redirect(20, "Mercury_(planet)"),
    redirect(21, "Planet_Mercury"),
    redirect(22, "Mercure_(planète)", fragment="Orbit"),
]


def run(tmp_path: Path, *sources: Path, **options: Any) -> tuple[dict[str, dict[str, Any]], ImportReport]:
    keep_going = options.pop("keep_going", False)
    out = tmp_path / "out" / "entities.jsonl"
    report = import_kb("wikipedia", sources, out, ImportOptions(**options), keep_going=keep_going, progress=False)
    assert {path.name for path in out.parent.iterdir()} == {"entities.jsonl", "entities.jsonl.report.json"}
    return entities(out), report


def pages(tmp_path: Path) -> Path:
    return write(tmp_path, "page", PAGES)


def redirects(tmp_path: Path) -> Path:
    return write(tmp_path, "redirect", REDIRECTS)


@pytest.mark.parametrize("newlines", [False, True])
@pytest.mark.parametrize("per_insert", [1, 2, 1000])
def test_articles_with_redirects_as_aliases(tmp_path: Path, newlines: bool, per_insert: int) -> None:
    how: dict[str, Any] = {"newlines": newlines, "per_insert": per_insert}
    by_id, report = run(tmp_path, write(tmp_path, "page", PAGES, **how), write(tmp_path, "redirect", REDIRECTS, **how))
    assert by_id == {
        "Mercury (planet)": {
            "id": "Mercury (planet)",
            "name": "Mercury (planet)",
            "aliases": ["Planet Mercury", "Mercure (planète)", "Old Mercure"],
        },
        "Jaguar": {"id": "Jaguar", "name": "Jaguar"},
        "O'Brien \"x\" \\ ),(1,0,'y'": {"id": "O'Brien \"x\" \\ ),(1,0,'y'", "name": "O'Brien \"x\" \\ ),(1,0,'y'"},
        "Ünïcode 東京": {"id": "Ünïcode 東京", "name": "Ünïcode 東京"},
    }
    assert report.dropped == {}
    assert report.read["pages"] == 9
    assert report.read["of them of other namespaces"] == 2
    assert report.written["aliases"] == 3


def test_sections_may_be_left_out(tmp_path: Path) -> None:
    by_id, report = run(tmp_path, pages(tmp_path), redirects(tmp_path), sections=False)
    assert by_id["Mercury (planet)"]["aliases"] == ["Planet Mercury", "Mercure (planète)"]
    assert report.dropped == {"redirects to a section": 1, "redirects without a row in the redirect table": 1}


def test_redirects_that_lead_nowhere_are_counted(tmp_path: Path) -> None:
    rows = [page(1, "Real")] + [page(number, f"R{number}", redirect=1) for number in range(2, 12)]
    hops = [
        redirect(2, "R3"),
        redirect(3, "R2"),  # 2 and 3: a circle
        redirect(4, "R2"),  # into the circle
        redirect(5, "R5"),  # to itself
        redirect(6, "Gone"),
        redirect(7, "R6"),  # to a redirect that leads nowhere
        redirect(8, "Real", namespace=4),
        redirect(9, "Real", wiki="de"),
        redirect(10, "Real"),
        redirect(99, "Real"),  # of a page of another namespace
    ]
    by_id, report = run(tmp_path, write(tmp_path, "page", rows), write(tmp_path, "redirect", hops))
    assert by_id == {"Real": {"id": "Real", "name": "Real", "aliases": ["R10"]}}
    assert report.dropped == {
        "redirects in a circle": 4,
        "redirects to a page that does not exist": 1,
        "redirects to redirects that lead nowhere": 1,
        "redirects to another namespace": 1,
        "redirects to another wiki": 1,
        "redirects without a row in the redirect table": 3,  # 8 and 9 have none that counts, 11 has none
    }
    assert report.read["of them not of articles"] == 1
    assert report.dropped.examples["redirects to another wiki"][0].startswith("testwiki-latest-redirect.sql.gz:1")
    assert report.dropped.examples["redirects to a page that does not exist"] == ["page 6 'R6'"]


def test_long_chains_and_links_to_them_end_at_the_article(tmp_path: Path) -> None:
    n = 500
    order = list(range(2, n + 2))
    random.Random(3).shuffle(order)
    rows = [page(1, "End")] + [page(number, f"R{number}", redirect=1) for number in sorted(order)]
    hops = [redirect(order[0], "End")] + [redirect(source, f"R{target}") for target, source in pairwise(order)]
    by_id, report = run(tmp_path, write(tmp_path, "page", rows), write(tmp_path, "redirect", hops))
    assert sorted(by_id["End"]["aliases"]) == sorted(f"R{number}" for number in order)
    assert report.dropped == {}
    assert report.read["redirects to redirects"] == n - 1


TARGETS = [(1, 0, "Mercury_(planet)"), (2, 0, "Planet_Mercury"), (3, 0, "Jaguar"), (4, 14, "Jaguar"), (5, 0, "Red")]
LINKS = [
    (11, 0, 1), (12, 0, 1), (13, 0, 2),  # three articles link to the planet, one by a redirect
    (10, 0, 3), (10, 0, 5),
    (31, 1, 3),  # a talk page
    (20, 0, 1), (22, 0, 2),  # redirects themselves
    (10, 0, 4), (10, 0, 999),
]  # fmt: skip


@pytest.mark.parametrize("newlines", [False, True])
def test_counts_from_links_by_number(tmp_path: Path, newlines: bool) -> None:
    by_id, report = run(
        tmp_path,
        write(tmp_path, "linktarget", TARGETS),
        write(tmp_path, "pagelinks", LINKS, newlines=newlines),
        redirects(tmp_path),
        pages(tmp_path),
    )
    assert {title: row["count"] for title, row in by_id.items() if "count" in row} == {
        "Mercury (planet)": 3,
        "Jaguar": 1,
    }
    assert report.read["links"] == 10
    assert report.read["of them counted"] == 7


def test_counts_from_links_by_title(tmp_path: Path) -> None:
    titles = {number: (namespace, title) for number, namespace, title in TARGETS} | {999: (0, "Nowhere")}
    links = [(source, *titles[target], namespace) for source, namespace, target in LINKS]
    path = write(tmp_path, "pagelinks_2022", links)
    by_id, _ = run(tmp_path, path, redirects(tmp_path), pages(tmp_path))
    assert by_id["Mercury (planet)"]["count"] == 3
    assert by_id["Jaguar"]["count"] == 1


def test_a_pagelinks_table_that_is_changing_over(tmp_path: Path) -> None:
    columns = b"`pl_from` int,\n `pl_namespace` int,\n `pl_title` varbinary(255),\n `pl_from_namespace` int,\n"
    head = b"CREATE TABLE `pagelinks` (\n" + columns + b" `pl_target_id` bigint DEFAULT NULL\n) ENGINE=InnoDB;\n"
    rows = b"INSERT INTO `pagelinks` VALUES (11,0,'Jaguar',0,NULL),(10,0,'Jaguar',0,3),(12,0,'Jaguar',0,3);\n"
    path = tmp_path / "pagelinks.sql"
    path.write_bytes(head + rows)
    by_id, _ = run(tmp_path, path, pages(tmp_path))
    assert by_id["Jaguar"]["count"] == 3
    by_id, _ = run(tmp_path, path, pages(tmp_path), write(tmp_path, "linktarget", TARGETS))
    assert by_id["Jaguar"]["count"] == 3
    path.write_bytes(
        head + rows.replace(b"'Jaguar',0,3", b"'',0,3") + rows.replace(b"0,'Jaguar',0,3", b"NULL,NULL,0,5")
    )
    by_id, report = run(tmp_path, path, pages(tmp_path), write(tmp_path, "linktarget", TARGETS))
    assert by_id["Jaguar"]["count"] == 4
    assert report.read["of them counted"] == report.read["links"] == 6
    by_id, report = run(tmp_path, path, pages(tmp_path))
    assert by_id["Jaguar"]["count"] == report.read["of them counted"] == 2


def test_counts_of_many_links_are_those_of_a_plain_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spacy_gemel.data.knowledge_bases.wikipedia._MAX_COUNTS", 50)
    random_ = random.Random(1)
    n = 300
    links = [(random_.randint(1, n), 0, random_.randint(1, n)) for _ in range(5000)]
    expected: dict[str, int] = {}
    for _, _, target in links:
        expected[f"T{target}"] = expected.get(f"T{target}", 0) + 1
    by_id, _ = run(
        tmp_path,
        write(tmp_path, "page", [page(number, f"T{number}") for number in range(1, n + 1)]),
        write(tmp_path, "linktarget", [(number, 0, f"T{number}") for number in range(1, n + 1)]),
        write(tmp_path, "pagelinks", links, per_insert=700),
    )
    assert {title: row["count"] for title, row in by_id.items() if "count" in row} == expected


VIEWS = {
    "complete": "en.wikipedia Jaguar 11 desktop 30 A10B20\nen.wikipedia Jaguar 11 mobile-web 5 A5\n"
    "en.wikipedia Planet_Mercury 20 desktop 2 A2\n"
    "de.wikipedia Jaguar 7 desktop 99 A99\nen.wikipedia Red null desktop 1 A1\n",
    "hourly": "en Jaguar 30 0\nen.m Jaguar 5 0\n"
    "en Planet%5FMercury 2 0\nde Jaguar 99 0\nen.b Jaguar 99 0\nen Red 1 0\n",
    "own": "Jaguar\t30\nJaguar\t5\nPlanet Mercury\t2\nRed\t1\n",
}


@pytest.mark.parametrize("form", sorted(VIEWS))
def test_counts_from_page_views(tmp_path: Path, form: str) -> None:
    path = tmp_path / "pageviews-202405-user"
    path.write_text(VIEWS[form])
    by_id, report = run(tmp_path, pages(tmp_path), redirects(tmp_path), path)
    assert by_id["Jaguar"]["count"] == 35
    assert by_id["Mercury (planet)"]["count"] == 2
    assert report.dropped == {}


def test_page_views_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "views"
    path.write_bytes(b"en Jaguar 30 0\nen Jaguar many 0\nen Jag uar 3 0\nen J\xe4guar 3 0\nen Jaguar -3 0\n")
    by_id, report = run(tmp_path, pages(tmp_path), path)
    assert by_id["Jaguar"]["count"] == 30
    assert report.dropped == {"lines of page views of another form": 3, "lines of page views that are not UTF-8": 1}
    assert report.dropped.examples["lines of page views that are not UTF-8"] == ["views:4: en J\\xe4guar 3 0"]


PROPS = [
    (10, "wikibase_item", "Q308", None),
    (10, "wikibase-shortdesc", "First planet\nfrom the Sun", None),
    (10, "defaultsort", b"\xff\xfe", None),
    (11, "wikibase_item", "Q35694", 1.5),
    (11, "disambiguation", "", None),
    (12, "wikibase_item", "not one", None),
    (13, "wikibase_item", "Q308", None),
]


def test_ids_may_be_wikidata_items(tmp_path: Path) -> None:
    props = write(tmp_path, "page_props", PROPS)
    by_id, report = run(tmp_path, pages(tmp_path), redirects(tmp_path), props, id="qid")
    assert list(by_id) == ["Q308", "Q35694"]
    assert by_id["Q308"]["name"] == "Mercury (planet)"
    assert by_id["Q308"]["description"] == "First planet\nfrom the Sun"
    assert report.dropped == {
        "entities with the id of an earlier one": 1,
        "page_props rows that are not UTF-8": 1,
        "pages without a Wikidata item, so without a QID": 1,
        "wikibase items that are not a QID": 1,
    }


def test_titles_have_their_item_as_an_alias_and_disambiguation_pages_may_go(tmp_path: Path) -> None:
    props = write(tmp_path, "page_props", PROPS)
    by_id, report = run(tmp_path, pages(tmp_path), props, disambiguation=False)
    assert by_id["Mercury (planet)"]["aliases"] == ["Q308"]
    assert "Jaguar" not in by_id
    assert report.dropped["disambiguation pages"] == 1


def test_pages_that_repeat_a_number_or_a_title(tmp_path: Path) -> None:
    rows = [page(1, "A", redirect=1), page(2, "B"), page(2, "C"), page(3, "A"), page(4, "B")]
    by_id, report = run(tmp_path, write(tmp_path, "page", rows))
    assert list(by_id) == ["B", "A"]
    assert report.dropped == {"entities with the id of an earlier one": 1}


def test_malformed_rows_take_no_other_with_them(tmp_path: Path) -> None:
    content = dump("page", [page(number, f"T{number}") for number in range(1, 8)])
    for title, damaged in [
        (b"'T2'", b"'J\xe4ger'"),  # latin-1
        (b"'T4'", b"'T4"),  # a string that is not closed
        (b"'T6',0,", b"'T6',"),  # a column too few
    ]:
        assert content.count(title) == 1
        content = content.replace(title, damaged)
    path = tmp_path / "page.sql"
    path.write_bytes(content)
    by_id, report = run(tmp_path, path)
    assert list(by_id) == ["T1", "T3", "T5", "T7"]
    assert report.dropped == {"malformed page rows": 2, "page rows that are not UTF-8": 1}
    line = content[: content.index(b"INSERT")].count(b"\n") + 1
    examples = report.dropped.examples
    assert examples["page rows that are not UTF-8"][0].startswith(f"page.sql:{line}: (2,0,'J\\xe4ger',0,")
    assert examples["malformed page rows"][0].startswith(f"page.sql:{line}: (4,0,'T4,0,")


def test_an_archive_that_is_cut_off(tmp_path: Path) -> None:
    rows = [page(number, f"Title_{random.Random(number).random()}") for number in range(1, 5001)]
    whole = write(tmp_path, "page", rows)
    cut = tmp_path / "cut.sql.gz"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    out = tmp_path / "out" / "entities.jsonl"
    out.parent.mkdir()
    out.write_text("what was there before")
    with pytest.raises(CutOffError, match=r"cut\.sql\.gz is cut off .* read [\d,]+ of its [\d,]+ bytes.*--keep-going"):
        run(tmp_path, cut)
    assert [path.name for path in out.parent.iterdir()] == ["entities.jsonl"]
    assert out.read_text() == "what was there before"
    by_id, report = run(tmp_path, cut, keep_going=True)
    assert 1500 < len(by_id) < 3500
    assert len(report.notes) == 1
    assert "cut.sql.gz is cut off" in report.notes[0]


def test_a_dump_that_ends_within_a_statement(tmp_path: Path) -> None:
    content = dump("page", [page(number, f"T{number}") for number in range(1, 9)])
    path = tmp_path / "page.sql"
    for end in (content.index(b"(5,0"), content.index(b"T5") + 1, content.index(b"(8,0") - 1):
        path.write_bytes(content[:end])
        with pytest.raises(CutOffError, match=r"page\.sql is cut off"):
            run(tmp_path, path)
    by_id, report = run(tmp_path, path, keep_going=True)
    assert list(by_id) == [f"T{number}" for number in range(1, 8)]
    assert len(report.notes) == 1


def test_several_streams_in_one_archive(tmp_path: Path) -> None:
    content = dump("page", PAGES)
    path = tmp_path / "page.sql.gz"
    path.write_bytes(gzip.compress(content[:700]) + gzip.compress(content[700:]) + bytes(512))
    by_id, _ = run(tmp_path, path)
    assert len(by_id) == 4


@pytest.mark.parametrize(
    ("sources", "options", "says"),
    [
        (["redirect"], {}, "none of .* has the table page: give page.sql.gz"),
        (["page", "pagelinks"], {}, "give linktarget.sql.gz as well"),
        (["page"], {"id": "qid"}, "page_props.sql.gz: give it as well"),
        (["page"], {"id": "number"}, "--id must be title or qid"),
        (
            ["page"],
            {"names": "label"},
            "--names is not an option of wikipedia, which has --disambiguation, --id, --language",
        ),
        (["page", "pagelinks", "linktarget", "views"], {}, "not from both"),
        (["page", "user"], {}, "has the table user, which is not used"),
        (["empty"], {}, "no entity in .*empty.sql.gz, so nothing was written"),
    ],
)
def test_sources_that_do_not_go_together(tmp_path: Path, sources: list[str], options: Any, says: str) -> None:
    files = {
        "page": pages(tmp_path),
        "redirect": redirects(tmp_path),
        "linktarget": write(tmp_path, "linktarget", TARGETS),
        "pagelinks": write(tmp_path, "pagelinks", LINKS),
        "views": tmp_path / "views",
        "user": tmp_path / "user.sql",
        "empty": tmp_path / "empty.sql.gz",
    }
    files["views"].write_text("Jaguar\t3\n")
    files["user"].write_text("CREATE TABLE `user` (\n `user_id` int\n);\nINSERT INTO `user` VALUES (1);\n")
    files["empty"].write_bytes(gzip.compress(dump("page", [])))
    with pytest.raises(ValueError, match=says):
        run(tmp_path, *(files[source] for source in sources), **options)


def test_a_table_without_a_column_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "page.sql"
    path.write_text(
        "CREATE TABLE `page` (\n `page_id` int,\n `page_name` text\n);\nINSERT INTO `page` VALUES (1,'A');\n"
    )
    with pytest.raises(
        ValueError, match=r"page.sql:5: the table page has no column page_namespace, but page_id, page_n"
    ):
        run(tmp_path, path)
    path.write_text("INSERT INTO `page` VALUES (1,0,'A',0);\n")
    with pytest.raises(ValueError, match=r"page\.sql:1: no CREATE TABLE page before its rows"):
        run(tmp_path, path)
