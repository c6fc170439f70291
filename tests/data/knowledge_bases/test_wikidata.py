"""import-kb wikidata, on small dumps."""

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from spacy_gemel.data.knowledge_bases import wikidata
from spacy_gemel.data.knowledge_bases.importer import import_kb
from spacy_gemel.data.knowledge_bases.work import CutOffError, ImportOptions, ImportReport
from tests.data.knowledge_bases.dumps import entities


def texts(**values: str) -> dict[str, Any]:
    return {language: {"language": language, "value": value} for language, value in values.items()}


def item(number: int, **fields: Any) -> dict[str, Any]:
    """An item as Wikibase writes it; what is empty is a list in place of an object."""
    sites = fields.pop("sitelinks", {})
    row = {
        "type": "item",
        "id": f"Q{number}",
        "labels": texts(**fields.pop("labels", {})) or [],
        "descriptions": texts(**fields.pop("descriptions", {})) or [],
        "aliases": {
            language: [{"language": language, "value": value} for value in values]
            for language, values in fields.pop("aliases", {}).items()
        }
        or [],
        "claims": {"P31": [{"mainsnak": {"snaktype": "value"}, "type": "statement"}]},
        "sitelinks": {site: {"site": site, "title": title, "badges": []} for site, title in sites.items()} or [],
        "lastrevid": 7,
    }
    return {**row, **fields}


ITEMS = [
    item(
        308,
        labels={"en": "Mercury", "de": "Merkur"},
        descriptions={"en": "innermost planet", "de": "Planet"},
        aliases={"en": ["planet Mercury", "Mercury", "☿"], "de": ["Planet Merkur"]},
        sitelinks={"enwiki": "Mercury (planet)", "dewiki": "Merkur (Planet)", "frwiki": "Mercure (planète)"},
    ),
    item(5, labels={"mul": "Douglas Adams"}, aliases={"mul": ["D. N. Adams"], "en": ["Adams"]}),
    item(6, labels={"de": "Nur deutsch"}, sitelinks={"dewiki": "Nur deutsch"}),
    item(31, labels={"en": "instance of"}, type="property", id="P31"),
    item(7),
]


def write(path: Path, rows: list[Any], *, end: bytes = b"\n]\n") -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    content = b"[\n" + b",\n".join(lines) + end
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(content))
    return path


def run(source: Path, **options: Any) -> tuple[dict[str, dict[str, Any]], ImportReport]:
    keep_going = options.pop("keep_going", False)
    out = source.parent / "out" / "entities.jsonl"
    report = import_kb("wikidata", [source], out, ImportOptions(**options), keep_going=keep_going, progress=False)
    return entities(out), report


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz"])
def test_items_with_all_that_is_known(tmp_path: Path, suffix: str) -> None:
    by_id, report = run(write(tmp_path / f"all.json{suffix}", ITEMS))
    assert by_id == {
        "Q308": {
            "id": "Q308",
            "name": "Mercury",
            "aliases": ["Mercury (planet)", "planet Mercury", "☿"],
            "description": "innermost planet",
            "count": 3,
        },
        "Q5": {"id": "Q5", "name": "Douglas Adams", "aliases": ["Adams", "D. N. Adams"]},
    }
    assert report.read == {"entities": 5}
    assert report.dropped == {"entities that are not an item": 1, "entities without a label in en": 2}
    assert report.dropped.examples["entities that are not an item"] == [f"all.json{suffix}:5: P31"]


def test_another_language(tmp_path: Path) -> None:
    by_id, _ = run(write(tmp_path / "all.json", ITEMS), language="de")
    assert by_id["Q308"]["name"] == "Merkur"
    assert by_id["Q308"]["aliases"] == ["Merkur (Planet)", "Planet Merkur"]
    assert by_id["Q308"]["description"] == "Planet"
    assert by_id["Q6"] == {"id": "Q6", "name": "Nur deutsch", "count": 1}


def test_titles_as_names(tmp_path: Path) -> None:
    by_id, report = run(write(tmp_path / "all.json", ITEMS), names="title")
    assert by_id["Q308"]["name"] == "Mercury (planet)"
    assert by_id["Q308"]["aliases"] == ["Mercury", "planet Mercury", "☿"]
    assert list(by_id) == ["Q308"]
    assert report.dropped == {"entities without a page in enwiki": 4}
    assert list(run(tmp_path / "all.json", names="title", site="dewiki")[0]) == ["Q308", "Q6"]


def test_only_items_with_a_page(tmp_path: Path) -> None:
    decoy = item(9, labels={"en": 'says "enwiki" somewhere'}, aliases={"en": ["enwiki"]})
    by_id, report = run(write(tmp_path / "all.json", [*ITEMS, decoy]), with_sitelink=True)
    assert list(by_id) == ["Q308"]
    assert report.dropped == {"entities without a page in enwiki": 5}


def test_properties_when_asked_for(tmp_path: Path) -> None:
    by_id, _ = run(write(tmp_path / "all.json", ITEMS), properties=True)
    assert by_id["P31"]["name"] == "instance of"


def test_a_list_on_few_lines_and_one_without_brackets(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_bytes(b"[" + b",\r\n".join(json.dumps(row).encode() for row in ITEMS) + b"]")
    assert list(run(path)[0]) == ["Q308", "Q5"]
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(json.dumps(row).encode() for row in ITEMS))
    assert list(run(path)[0]) == ["Q308", "Q5"]


def test_damaged_lines_take_no_other_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikidata, "_LONGEST_LINE", 3_000_000)
    latin = json.dumps(item(11, labels={"en": "Jäger"}), ensure_ascii=False).encode("latin-1")
    rows = [
        ITEMS[0],
        latin,
        b'{"id": "Q12", "labels": {"en"',
        b'"just a text"',
        item(13, id="X"),
        item(14, labels={"en": "x" * 4_000_000}),
        item(15, labels={"en": "half \ud800"}) and b'{"id":"Q15","labels":{"en":{"value":"half \\ud800"}}}',
        {**item(16, labels={"en": "odd"}), "aliases": {"en": [1, {"value": 2}, None]}, "descriptions": 3},
        {**item(19, labels={"mul": "good"}, aliases={"en": ["fine"]}), "sitelinks": {"enwiki": {"title": 7}}},
        {**item(20), "labels": {"en": {"value": ["odd"]}}},
        ITEMS[0],
        b"[" * 100_000,
        item(17, labels={"en": "  "}),
        item(18, labels={"en": "last"}),
    ]
    by_id, report = run(write(tmp_path / "all.json.gz", rows))
    assert list(by_id) == ["Q308", "Q16", "Q19", "Q18"]
    assert by_id["Q16"] == {"id": "Q16", "name": "odd"}
    assert by_id["Q19"] == {"id": "Q19", "name": "good", "aliases": ["fine"], "count": 1}
    assert report.dropped == {
        "lines that are not UTF-8": 1,
        "lines that are not JSON": 2,
        "lines that are not an entity": 2,
        "entities without a label in en": 1,
        "lines of more than 3000000 bytes": 1,
        "entities with half of a surrogate pair, which is not text": 1,
        "entities with the id of an earlier one": 1,
        "entities without a name": 1,
    }
    assert report.read["entities"] == sum(report.dropped.values()) + 4
    assert report.dropped.examples["lines that are not UTF-8"][0].startswith("all.json.gz:3: ")
    assert report.dropped.examples["entities with the id of an earlier one"] == ["all.json.gz:12"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2"])
def test_a_dump_that_is_cut_off(tmp_path: Path, suffix: str) -> None:
    rows = [item(number, labels={"en": f"Item {number} {hash(number)}"}) for number in range(1, 8_001)]
    whole = write(tmp_path / f"whole.json{suffix}", rows).read_bytes()
    path = tmp_path / f"all.json{suffix}"
    path.write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(CutOffError, match=r"all\.json.* is cut off"):
        run(path)
    assert not (tmp_path / "out" / "entities.jsonl").exists()
    by_id, report = run(path, keep_going=True)
    assert 2_000 < len(by_id) < 8_000
    assert "cut off" in report.notes[0]


def test_more_aliases_than_a_knowledge_base_takes(tmp_path: Path) -> None:
    from spacy_gemel.kb.jsonl import parse_row

    many = item(1, labels={"en": "Many"}, aliases={"en": [f"alias number {number}" for number in range(20_000)]})
    long = item(2, labels={"en": "x" * 70_000})
    by_id, report = run(write(tmp_path / "all.json", [many, long]))
    aliases = by_id["Q1"]["aliases"]
    assert 1000 < len(aliases) < 20_000
    assert sum(len(alias) + 16 for alias in aliases) < 2**16
    assert report.dropped == {
        "aliases beyond 65536 bytes of one entity": 20_000 - len(aliases),
        "entities with more than 65536 bytes of text": 1,
    }
    parsed = parse_row((tmp_path / "out" / "entities.jsonl").read_bytes())
    assert parsed.kb_id == "Q1"  # type: ignore[union-attr]


def test_names_must_be_label_or_title(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names must be label or title, not 'alias'"):
        run(write(tmp_path / "all.json", ITEMS), names="alias")
