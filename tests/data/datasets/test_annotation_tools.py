"""`convert prodigy` and `convert label-studio`: what the tools export, as their documentation gives it."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.data.datasets.conversion import ents, pictures, run, write

TEXT = "Mercury rises over Java."
SPAN = {"start": 0, "end": 7, "token_start": 0, "token_end": 0, "label": "PLANET"}


def test_prodigy_has_the_entity_in_the_span_or_in_the_chosen_option(tmp_path: Path) -> None:
    data_uri = "data:image/png;base64," + base64.b64encode(b"picture").decode()
    options = [{"id": "Q308", "text": "planet"}, {"id": "NIL_otherLink", "text": "another"}]
    choice = {"text": TEXT, "spans": [SPAN], "options": options, "_view_id": "choice", "answer": "accept"}
    rows = [
        {
            "text": TEXT,
            "spans": [{**SPAN, "kb_id": "Q308"}, {"start": 19, "end": 23, "kb_id": "NIL"}],
            "image": data_uri,
            "_input_hash": -5,
        },
        {**choice, "accept": ["Q308"], "image": "1.png"},
        {**choice, "accept": ["NIL_otherLink"]},
        {"text": TEXT, "spans": [SPAN, {**SPAN, "start": 19, "end": 23}], "accept": ["Q308"]},
        {"text": TEXT, "answer": "accept"},
        {**choice, "accept": [], "answer": "reject"},
        {"text": TEXT, "image": "data:image/png,%00"},
        ["no task"],
    ]
    source = write(tmp_path / "db.jsonl", rows, lines=True)
    (tmp_path / "1.png").write_bytes(b"one")
    _, docs, written = run("prodigy", source)
    mercury = ("Mercury", "PLANET", "Q308")
    assert [ents(doc) for doc in docs] == [
        [mercury, ("Java", "ENTITY", "NIL")],
        [mercury],
        [("Mercury", "PLANET", "")],
        [("Mercury", "PLANET", ""), ("Java", "PLANET", "")],
        [],
    ]
    assert docs[0].user_data["id"] == "-5"
    files = [tmp_path / "out" / doc.user_data["image"] for doc in docs[:2]]
    assert [file.read_bytes() for file in files] == [b"picture", b"one"]
    assert written["docs_not_annotated"] == 1
    assert written["rows"]["dropped"] == {
        "image is no data URI in base64": 1,
        "not accepted": 1,
        "not an object": 1,
    }


def region(name: str, kind: str, **value: Any) -> dict[str, Any]:
    return {"id": name, "type": kind, "from_name": kind, "to_name": "text", "value": {"start": 0, "end": 7, **value}}


@pytest.mark.parametrize(
    "entity",
    [
        region("a", "textarea", text=["Q308"]),
        region("a", "choices", choices=["Q308"]),
        region("a", "taxonomy", taxonomy=[["planets", "Q308"]]),
    ],
    ids=lambda each: each["type"],
)
def test_label_studio_has_the_entity_in_a_result_of_the_region(tmp_path: Path, entity: dict[str, Any]) -> None:
    label = region("a", "labels", text="Mercury", labels=["PLANET"])
    other = {**region("b", "labels", text="Java", labels=["PLACE"])}
    other["value"] |= {"start": 19, "end": 23}
    whole = {"id": "c", "type": "choices", "value": {"choices": ["good"]}}
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    data = {"text": TEXT, "image": "/data/upload/1/1a2b3c4d-x.png"}
    annotations = [{"was_cancelled": True, "result": []}, {"result": [entity, label, other, whole, relation]}]
    tasks = [
        {"id": 3, "data": data, "annotations": annotations},
        {"id": 4, "data": {"text": TEXT}, "annotations": []},
        {"id": 5},
    ]
    source = write(tmp_path / "export.json", tasks)
    _, docs, written = run("label-studio", source, images=pictures(tmp_path / "pictures", "x.png"))
    assert [ents(doc) for doc in docs] == [[("Mercury", "PLANET", "Q308"), ("Java", "PLACE", "")], []]
    assert docs[0].user_data == {"id": "3", "image": "../pictures/x.png"}
    assert (written["docs_not_annotated"], written["rows"]["dropped"]) == (1, {"no task of Label Studio": 1})


def test_label_studio_counts_units_of_javascript(tmp_path: Path) -> None:
    result = [{"id": "a", "type": "labels", "value": {"start": 3, "end": 10, "text": "Mercury", "labels": ["P"]}}]
    source = write(
        tmp_path / "export.json",
        [{"id": 1, "data": {"text": "\U0001f680 Mercury"}, "annotations": [{"result": result}]}],
    )
    _, (doc,), _ = run("label-studio", source)
    assert ents(doc) == [("Mercury", "P", "")]


def test_a_broken_export_is_one_error(tmp_path: Path) -> None:
    source = write(tmp_path / "export.json", [])
    source.write_text(json.dumps([{"id": 1}])[:-1])
    with pytest.raises(ValueError, match=r"export.json:1:\d+: not JSON"):
        run("label-studio", source)
