"""import-kb spacy, on knowledge bases that spaCy itself wrote."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.kb import InMemoryLookupKB
from spacy.vocab import Vocab

from spacy_gemel.data.knowledge_bases.importer import import_kb
from spacy_gemel.data.knowledge_bases.work import CutOffError, ImportOptions, ImportReport
from tests.data.knowledge_bases.dumps import entities


def save(path: Path, frequencies: dict[str, float], aliases: dict[str, dict[str, float]]) -> Path:
    kb = InMemoryLookupKB(Vocab(), entity_vector_length=5)
    for number, (entity, frequency) in enumerate(frequencies.items()):
        kb.add_entity(entity=entity, freq=frequency, entity_vector=[number] * 5)
    for alias, targets in aliases.items():
        kb.add_alias(alias=alias, entities=list(targets), probabilities=list(targets.values()))
    kb.to_disk(path)
    return path


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    aliases = {
        "Mercury": {"Q308": 0.6, "Q925": 0.3},
        "planet Mercury": {"Q308": 1.0},
        "Hg": {"Q925": 0.9},
        "PERSON": {"Q308": 0.1},  # spaCy has a symbol of that name, which is not hashed
    }
    return save(tmp_path / "kb", {"Q308": 342, "Q925": 12.6, "DATE": 1}, aliases)


def run(source: Path, **options: Any) -> tuple[dict[str, dict[str, Any]], ImportReport]:
    out = source.parent / "out" / "entities.jsonl"
    report = import_kb("spacy", [source], out, ImportOptions(**options), progress=False)
    return entities(out), report


def test_ids_as_names(kb: Path) -> None:
    found, report = run(kb)
    assert found == {
        "Q308": {"id": "Q308", "name": "Q308", "aliases": ["planet Mercury", "Mercury", "PERSON"], "count": 342},
        "Q925": {"id": "Q925", "name": "Q925", "aliases": ["Hg", "Mercury"], "count": 13},
        "DATE": {"id": "DATE", "name": "DATE", "count": 1},
    }
    assert report.read == {"entities": 3, "aliases": 4}
    assert report.dropped == {}
    assert run(kb / "contents")[0] == found


def test_the_most_probable_alias_as_the_name(kb: Path) -> None:
    found, _ = run(kb, names="alias")
    assert {kb_id: row["name"] for kb_id, row in found.items()} == {
        "Q308": "planet Mercury",
        "Q925": "Hg",
        "DATE": "DATE",
    }
    assert found["Q925"]["aliases"] == ["Mercury"]


def test_a_string_that_is_not_text_takes_no_other_with_it(kb: Path, tmp_path: Path) -> None:
    strings = kb / "strings.json"
    strings.write_text(json.dumps(["half \ud800", 7, None, *json.loads(strings.read_text("utf-8"))]), encoding="utf-8")
    names = tmp_path / "names.jsonl"
    rows = [{"id": "Q308", "name": "Mercury \udc00"}, {"id": "Q925", "name": "Mercury (element)"}]
    names.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found, report = run(kb, names=str(names))
    assert (found["Q308"]["name"], found["Q925"]["name"]) == ("Q308", "Mercury (element)")
    assert report.dropped["lines of names that cannot be read"] == 1


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_names_from_a_file(kb: Path, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"names.{form}"
    if form == "csv":
        path.write_text("id,name\nQ308,Mercury (planet)\nQ925,Mercury (element)\n")
    else:
        rows = [{"id": "Q308", "name": "Mercury (planet)"}, {"id": "Q925", "name": "Mercury (element)"}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no json\n[1]\n")
    found, report = run(kb, names=str(path))
    assert [row["name"] for row in found.values()] == ["Mercury (planet)", "Mercury (element)", "DATE"]
    assert report.dropped[f"entities that {path} does not name (the id is the name)"] == 1
    assert report.dropped["lines of names that cannot be read"] == (0 if form == "csv" else 2)


def test_the_kb_of_a_saved_pipeline(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    linker = nlp.add_pipe("entity_linker")
    kb = InMemoryLookupKB(nlp.vocab, entity_vector_length=3)
    kb.add_entity(entity="Q1", freq=7, entity_vector=[1, 2, 3])
    kb.add_alias(alias="One", entities=["Q1"], probabilities=[0.5])
    linker.kb = kb  # type: ignore[attr-defined]
    kb.to_disk(tmp_path / "pipeline" / "entity_linker" / "kb")
    nlp.vocab.to_disk(tmp_path / "pipeline" / "vocab")
    expected = {"Q1": {"id": "Q1", "name": "Q1", "aliases": ["One"], "count": 7}}
    assert run(tmp_path / "pipeline" / "entity_linker")[0] == expected
    (tmp_path / "pipeline" / "entity_linker" / "kb" / "strings.json").unlink()
    assert run(tmp_path / "pipeline" / "entity_linker" / "kb")[0] == expected


def test_frequencies_that_are_probabilities_keep_their_order(tmp_path: Path) -> None:
    found, report = run(save(tmp_path / "kb", {"A": 0.5, "B": 0.25, "C": 0.0}, {}))
    assert [row.get("count") for row in found.values()] == [500_000_000, 250_000_000, None]
    assert report.notes == ["frequencies are fractions of 1: counts are in parts of a billion"]
    found, report = run(save(tmp_path / "logs", {"A": -0.5, "B": float("nan"), "C": 3}, {}))
    assert [row.get("count") for row in found.values()] == [None, None, 3]
    assert report.dropped == {"frequencies below 0 or none (the entity is kept)": 2}


def test_strings_that_are_missing(kb: Path) -> None:
    strings = json.loads((kb / "strings.json").read_text())
    (kb / "strings.json").write_text(json.dumps([string for string in strings if string not in ("Q925", "Mercury")]))
    found, report = run(kb)
    assert list(found) == ["Q308", "DATE"]
    assert report.dropped == {
        "aliases whose text is not in strings.json": 1,
        "entities whose id is not in strings.json": 1,
    }


def test_every_place_where_the_file_may_be_cut_off(kb: Path, tmp_path: Path) -> None:
    whole = (kb / "contents").read_bytes()
    for size in range(len(whole)):
        (kb / "contents").write_bytes(whole[:size])
        with pytest.raises(CutOffError, match="contents is cut off, or not what spaCy writes"):
            run(kb)
    (kb / "contents").write_bytes(b"\xff" * len(whole))
    with pytest.raises(CutOffError, match="cut off"):
        run(kb)
    assert not (tmp_path / "out" / "entities.jsonl").exists()


def test_what_is_no_knowledge_base(kb: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a spaCy knowledge base: give the folder that its to_disk wrote"):
        run(kb / "strings.json")
    with pytest.raises(ValueError, match="names must be id, alias or a file, and there is no file nowhere"):
        run(kb, names="nowhere")
    for content in ("7", "[" * 100_000):
        (kb / "strings.json").write_text(content)
        with pytest.raises(ValueError, match="is not a list of strings"):
            run(kb)
    (kb / "strings.json").unlink()
    with pytest.raises(ValueError, match=r"no strings\.json beside"):
        run(kb)
    shutil.rmtree(kb)
    with pytest.raises(ValueError, match="no such file"):
        run(kb)
