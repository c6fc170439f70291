"""The drawings seen from outside: their tables, and made from small packages that a stand-in for npm gives."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import stat
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from drawings import generate as generating
from drawings.compare import main as compare
from drawings.generate import main as generate
from drawings.prepare import main as prepare
from drawings.tables import TABLES, Tables
from PIL import Image

from spacy_gemel.kb.jsonl import parse_row

NPM = """#!{python}
import pathlib, shutil, sys
pack, name, *options, option, folder = sys.argv[1:]
assert (pack, option) == ("pack", "--pack-destination") and "--ignore-scripts" in options
archive = pathlib.Path({index!r}) / (name.replace("/", "-") + ".tgz")
if not archive.exists():
    print("npm error code E404\\nnpm error 404 Not Found: " + name, file=sys.stderr)
    sys.exit(1)
shutil.copy(archive, folder)
"""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write_table(path: Path, *rows: str) -> None:
    path.write_text("".join(row.replace("|", "\t") + "\n" for row in rows))


def pack(archive: Path, files: dict[str, bytes]) -> str:
    """Write a package and return its checksum."""
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()


def icons(*names: str) -> bytes:
    """An icons.json with a red square in the middle of each, and an alias."""
    body = '<path fill="#f00" d="M8 8h16v16H8z"/>'
    content = {"prefix": "round", "icons": {name: {"body": body} for name in names}, "width": 32, "height": 32}
    return json.dumps({**content, "aliases": {"club": {"parent": names[0]}}}).encode()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with tables of six drawings, an index with their packages, and an npm that knows it."""
    monkeypatch.chdir(tmp_path)
    for name in ("index", "bin", "tables"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / "npm").write_text(NPM.format(python=sys.executable, index=str(tmp_path / "index")))
    (tmp_path / "bin" / "npm").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    blue = io.BytesIO()
    Image.new("RGBA", (40, 20), (0, 0, 255, 128)).save(blue, "WEBP", lossless=True)
    files = {"package/icons.json": icons("bat", "ball"), "package/index.js": b"raise Error"}
    first = pack(tmp_path / "index" / "@made-round@1.0.0.tgz", files)
    files = {f"package/assets/{name}.webp": blue.getvalue() for name in ("1f987", "1f3cf")}
    second = pack(tmp_path / "index" / "@made-flat@2.0.0.tgz", files)
    tables = tmp_path / "tables"
    write_table(
        tables / "sources.tsv",
        "source|split|package|version|integrity|licence|author",
        f"round|train|@made/round|1.0.0|{first}|MIT|us",
        f"flat|dev|@made/flat|2.0.0|{second}|MIT|us",
    )
    write_table(
        tables / "readings.tsv",
        "name|title|codepoints",
        "bat|Bat|1f987",
        "bat|Cricket bat|1f3cf",
        "cricket|Cricket bat|1f3cf",
    )
    write_table(
        tables / "drawings.tsv",
        "source|icon|name|title|sentence",
        "round|club|bat|Cricket bat|1",
        "flat|1f987|bat|Bat|2",
        "round|bat|bat|Bat|1",
        "flat|1f3cf|bat|Cricket bat|1",
        "flat|1f3cf|cricket|Cricket bat|2",
    )
    (tmp_path / "tables" / "sentences.txt").write_text("A drawing of a {}.\nThe {} again.\n")
    monkeypatch.setattr(generating, "TABLES", tmp_path / "tables")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], says: str) -> None:
    """One error, and nothing half-written left."""
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert says in line
    assert not Path("data").exists() or not [*Path("data").iterdir()]


def test_the_tables_of_the_repository() -> None:
    tables = Tables.read(TABLES)
    entities = {row["id"]: row for row in tables.entities()}
    assert len(entities) == 233
    assert len({reading.name for reading in tables.readings}) == 96
    captions = {split: tables.captions(split) for split in ("train", "dev")}
    assert {split: len(rows) for split, rows in captions.items()} == {"train": 1127, "dev": 257}
    assert len({row["id"] for rows in captions.values() for row in rows}) == 1127 + 257
    for row in (row for rows in captions.values() for row in rows):
        [mention] = row["mentions"]
        assert row["text"][mention["start"] : mention["end"]] in entities[mention["kb_id"]]["aliases"]
    assert {source.split for source in tables.sources} == {"train", "dev"}
    for source in tables.sources:
        assert source.integrity.startswith("sha512-") and len(base64.b64decode(source.integrity[7:])) == 64
        assert source.licence and source.author


def test_made_from_packages_and_only_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert generate(["data/real"]) == 0
    made = folder / "data" / "real"
    assert lines(made / "train.jsonl") == [
        {
            "id": "round:club:bat",
            "text": "A drawing of a bat.",
            "image": "images/round/club.png",
            "mentions": [{"start": 15, "end": 18, "kb_id": "Cricket bat"}],
        },
        {
            "id": "round:bat:bat",
            "text": "A drawing of a bat.",
            "image": "images/round/bat.png",
            "mentions": [{"start": 15, "end": 18, "kb_id": "Bat"}],
        },
    ]
    assert [row["id"] for row in lines(made / "dev.jsonl")] == [
        "flat:1f987:bat",
        "flat:1f3cf:bat",
        "flat:1f3cf:cricket",
    ]
    assert lines(made / "entities.jsonl") == [
        {"id": "Bat", "name": "Bat", "aliases": ["bat"]},
        {"id": "Cricket bat", "name": "Cricket bat", "aliases": ["bat", "cricket"]},
    ]
    square, wide = (Image.open(made / "images" / name) for name in ("round/club.png", "flat/1f987.png"))
    assert square.size == wide.size == (72, 72) and square.mode == wide.mode == "RGB"
    assert [square.getpixel(xy) for xy in ((2, 2), (36, 36))] == [(255, 255, 255), (255, 0, 0)]
    blue = wide.getpixel((36, 36))
    assert isinstance(blue, tuple) and blue[2] == 255 and 120 < blue[0] < 135, "half transparent, on white"
    assert wide.getpixel((36, 8)) == (255, 255, 255), "fitted, not stretched"
    assert json.loads((made / "sources.json").read_text())["sources"][0]["licence"] == "MIT"
    assert [path.name for path in made.parent.iterdir()] == ["real"]
    monkeypatch.setenv("PATH", "")
    assert generate(["data/real", "--existing", "data/real"]) == 0


def test_made_again_if_a_picture_or_the_tables_changed(folder: Path) -> None:
    assert generate(["data/real"]) == 0
    (folder / "data" / "real" / "images" / "round" / "bat.png").unlink()
    assert generate(["data/real"]) == 0
    assert (folder / "data" / "real" / "images" / "round" / "bat.png").is_file()
    (folder / "tables" / "sentences.txt").write_text("One {}.\nAnother {}.\n")
    assert generate(["data/real"]) == 0
    assert lines(folder / "data" / "real" / "train.jsonl")[0]["text"] == "One bat."


def test_another_file_than_the_known_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(folder / "index" / "@made-flat@2.0.0.tgz", {"package/icons.json": icons("1f987", "1f3cf")})
    assert generate(["data/real"]) == 1
    refused(capsys, "@made/flat@2.0.0: the index gave another file than the one known here")


def test_no_index(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "index" / "@made-round@1.0.0.tgz").unlink()
    assert generate(["data/real"]) == 1
    refused(capsys, "npm could not fetch @made/round@1.0.0 (code E404; 404 Not Found: @made/round@1.0.0)")


def test_no_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(folder / "index"))
    assert generate(["data/real"]) == 1
    refused(capsys, "npm is needed to fetch @made/round@1.0.0, and it is not installed")


def test_no_renderer(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert generate(["data/real"]) == 1
    refused(capsys, "pip install -e .[real]")


@pytest.mark.parametrize(("icon", "kind"), [("bird", "round"), ("1f99c", "flat")])
def test_a_package_without_a_drawing(folder: Path, capsys: pytest.CaptureFixture[str], icon: str, kind: str) -> None:
    with (folder / "tables" / "drawings.tsv").open("a") as table:
        table.write(f"{kind}\t{icon}\tbat\tBat\t1\n")
    assert generate(["data/real"]) == 1
    refused(capsys, f"@made/{kind}@")


def test_what_else_a_folder_holds_is_not_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("mine")
    assert generate(["mine"]) == 1
    refused(capsys, "mine holds thesis.txt")
    assert (folder / "mine" / "thesis.txt").read_text() == "mine"


def test_a_given_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(["other"]) == 0
    monkeypatch.setenv("PATH", "")
    assert generate(["data/real", "--existing", "other"]) == 0
    assert not Path("data").exists()
    (folder / "other" / "images" / "flat" / "1f987.png").unlink()
    assert generate(["data/real", "--existing", "other"]) == 1
    refused(capsys, "does not hold the drawings (the picture images/flat/1f987.png of other/dev.jsonl:1 is missing)")
    assert generate(["data/real", "--existing", "nowhere"]) == 1
    refused(capsys, "nowhere does not hold the drawings (train.jsonl is missing)")


def test_compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(["one"]) == generate(["two"]) == compare(["one", "two"]) == 0
    report = json.loads(capsys.readouterr().out.partition("{")[2].join(("{", "")))
    assert (report["rows"], report["pictures"], report["mean"]) == ({"train": 2, "dev": 3}, 4, 0)
    Image.new("RGB", (72, 72), "white").save("two/images/round/bat.png")
    assert compare(["one", "two"]) == 0
    report = json.loads(capsys.readouterr().out)
    worst, difference = next(iter(report["worst"].items()))
    # two channels of three of a quarter of the picture
    assert worst == "images/round/bat.png" and abs(difference - 255 / 6) < 3
    Path("two/dev.jsonl").write_text(Path("two/dev.jsonl").read_text().replace("again", "anew"))
    assert compare(["one", "two"]) == 1
    assert "error: dev.jsonl:1 differs" in capsys.readouterr().err


def test_prepare(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(["data/real"]) == 0
    row = lines(Path("data/real/train.jsonl"))[0]
    images = [f"images/round/{number}.png" for number in range(240)]
    rows = [{**row, "id": f"{image}-{name}", "image": image} for image in images for name in ("a", "b")]
    Path("data/real/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = [{"id": "Q1", "name": "Bat"}, {"id": "Q2", "name": "Vampire"}, {"id": "Q3", "name": "Vampire"}]
    Path("mine.jsonl").write_text("\n".join(json.dumps(row) for row in table) + "\n\n")
    assert prepare(["data/real", "corpus/real", "--table", "mine.jsonl"]) == 0
    splits = {name: lines(Path(f"corpus/real/{name}.jsonl")) for name in ("train", "dev", "test")}
    assert sorted(row["id"] for name in ("train", "dev") for row in splits[name]) == sorted(row["id"] for row in rows)
    assert 240 / 24 < len(splits["dev"]) / 2 < 240 / 6
    assert not {row["image"] for row in splits["train"]} & {row["image"] for row in splits["dev"]}
    assert len(splits["test"]) == 3
    assert splits["test"][0]["image"] == "../../data/real/images/flat/1f987.png"
    entities = [parse_row(line) for line in Path("corpus/real/entities.jsonl").read_bytes().splitlines()]
    assert [entity.kb_id for entity in entities] == ["Bat", "Cricket bat", "Q2", "Q3"]  # type: ignore[union-attr]
    assert prepare(["data/real", "corpus/real", "--table", ""]) == 0
    assert len(lines(Path("corpus/real/entities.jsonl"))) == 2
    Path("mine.jsonl").write_text('{"id": "Q1", "name": "Owl"}\n{"id": "Q2"}\n')
    assert prepare(["data/real", "corpus/real", "--table", "mine.jsonl"]) == 1
    assert "error: mine.jsonl:2: " in capsys.readouterr().err
    assert prepare(["data/real", "corpus/real", "--table", "yours.jsonl"]) == 1
    assert "error: yours.jsonl: no such file" in capsys.readouterr().err
    assert len(lines(Path("corpus/real/entities.jsonl"))) == 2


def test_prepare_with_a_training_set_held_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(["data/real"]) == 0
    rows = [{**row, "id": f"{set_}:{row['id']}"} for row in lines(Path("data/real/train.jsonl")) for set_ in ("a", "b")]
    Path("data/real/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert prepare(["data/real", "out", "--hold-out", "a"]) == 0
    ids = {name: [row["id"] for row in lines(Path(f"out/{name}.jsonl"))] for name in ("train", "dev", "test")}
    assert ids["test"] == [row["id"] for row in rows if row["id"].startswith("a:")]
    assert sorted(ids["train"] + ids["dev"]) == sorted(row["id"] for row in rows if row["id"].startswith("b:"))
    assert prepare(["data/real", "out", "--hold-out", "c"]) == 1
    assert "is of the set 'c'" in capsys.readouterr().err
