"""`convert parquet`: Parquet files, folders of them, and data sets that Hugging Face's `datasets` saved."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from spacy.tokens import Doc

from tests.commands import call, failed
from tests.data.datasets.conversion import ents, pictures, run

TEXT = "Mercury rises over Java."
PICTURE = b"\x89PNG picture"
MENTIONS = [
    {"start": 0, "end": 7, "kb_id": "Q308", "label": "PLANET"},
    {"start": 19, "end": 23, "kb_id": "NIL", "label": None},
]
EXPECTED = [("Mercury", "PLANET", "Q308"), ("Java", "ENTITY", "NIL")]
Rows = list[dict[str, Any]]


def write_parquet(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def save_to_disk(folder: Path, *files: Rows, **options: Any) -> Path:
    """As `Dataset.save_to_disk` does: streams of Arrow, and two JSON files."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05d}-of-{len(files):05d}.arrow" for number in range(len(files))]
    for name, rows in zip(names, files, strict=True):
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema, **options) as writer:
            writer.write_table(table, max_chunksize=1)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": name} for name in names], "_split": None})
    )
    (folder / "dataset_info.json").write_text("{}")
    return folder


def image_of(doc: Doc, source: Path) -> bytes:
    return (source.parent / "out" / doc.user_data["image"]).read_bytes()


def test_pictures_as_bytes_become_files_named_by_their_content(tmp_path: Path) -> None:
    rows = [{"id": number, "text": TEXT, "image": PICTURE, "mentions": MENTIONS} for number in (7, 8)]
    source = write_parquet(tmp_path / "train.parquet", rows)
    _, docs, written = run("parquet", source)
    assert [ents(doc) for doc in docs] == [EXPECTED] * 2
    assert [doc.user_data["id"] for doc in docs] == ["7", "8"]
    assert {doc.user_data["image"] for doc in docs} == {f"x.images/{hashlib.sha256(PICTURE).hexdigest()}"}
    assert image_of(docs[0], source) == PICTURE
    assert written["images"] == {"named": 2, "missing": 0}


def test_pictures_as_paths(tmp_path: Path) -> None:
    source = write_parquet(
        tmp_path / "train.parquet", [{"text": TEXT, "image": "pictures/1.png", "mentions": MENTIONS}]
    )
    pictures(tmp_path / "pictures", "1.png")
    _, (doc,), written = run("parquet", source)
    assert (image_of(doc, source), written["images"]["missing"]) == (b"picture", 0)
    pictures(tmp_path / "elsewhere" / "pictures", "1.png")
    _, (doc,), _ = run("parquet", source, images=tmp_path / "elsewhere")
    assert doc.user_data["image"] == "../elsewhere/pictures/1.png"


def test_a_data_set_saved_by_hugging_face_datasets(tmp_path: Path) -> None:
    lists = {name: [mention[name] for mention in MENTIONS] for name in MENTIONS[0]}
    (tmp_path / "2.png").write_bytes(b"second")
    first = {"text": TEXT, "image": {"bytes": PICTURE, "path": "1.png"}, "mentions": lists}
    second = {"text": TEXT, "image": {"bytes": None, "path": str(tmp_path / "2.png")}, "mentions": lists}
    source = save_to_disk(tmp_path / "saved", [first, second], [{**first, "image": None}])
    _, docs, written = run("parquet", source)
    assert [ents(doc) for doc in docs] == [EXPECTED] * 3
    assert [image_of(doc, source) for doc in docs[:2]] == [PICTURE, b"second"]
    assert "image" not in docs[2].user_data
    assert written["images"] == {"named": 2, "missing": 0}


def test_a_folder_of_parquet_files_and_a_mention_a_row(tmp_path: Path) -> None:
    rows: Rows = [
        {"text": TEXT, "mention": "Java", "start": None, "end": None, "kb_id": "Q3757"},
        {"text": TEXT, "mention": "Mercury", "start": 0.0, "end": 7.0, "kb_id": None},
        {"text": TEXT, "mention": "Venus", "start": None, "end": None, "kb_id": "Q313"},
    ]
    for number, row in enumerate(rows):
        write_parquet(tmp_path / "data" / f"train-{number}.parquet", [row])
    _, docs, written = run("parquet", tmp_path / "data")
    assert [ents(doc) for doc in docs] == [[("Java", "ENTITY", "Q3757")], [("Mercury", "ENTITY", "")], []]
    assert sum(written["mentions"]["dropped"].values()) == 1
    assert "train-2.parquet, row 1, mention 0" in written["problems"][0]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    def refused(source: Path, says: str) -> None:
        failed(call("convert", "parquet", source, tmp_path / "x.spacy", "-q"), says)

    (tmp_path / "no.parquet").write_bytes(b"no parquet")
    refused(tmp_path / "no.parquet", "no.parquet: not a .parquet file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "neither a .parquet file, nor a folder of them, nor one that save_to_disk wrote")
    (tmp_path / "x.csv").write_text("text\nMercury\n")
    refused(tmp_path / "x.csv", "x.csv: neither a .parquet file")
    save_to_disk(tmp_path / "splits" / "train", [{"text": TEXT}])
    refused(tmp_path / "splits", "several splits: give one of its folders, train")
    packed = save_to_disk(
        tmp_path / "packed", [{"text": TEXT * 99}], options=pa.ipc.IpcWriteOptions(compression="zstd")
    )
    refused(packed, "data-00000-of-00001.arrow: not an Arrow file that can be read (it holds compressed batches")
    cut = save_to_disk(tmp_path / "cut", [{"text": TEXT}] * 3)
    file = cut / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:-150])
    refused(cut, "not an Arrow file that can be read")
    (cut / "state.json").write_text("[]")
    refused(cut, "state.json: not what save_to_disk writes")


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.arrow"])
def test_state_json_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    folder = save_to_disk(tmp_path / "saved", [{"text": TEXT}])
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    failed(call("convert", "parquet", folder, tmp_path / "x.spacy", "-q"), str(folder / Path(name).name))
