"""KBFromLookupKB: our knowledge base out of an InMemoryLookupKB, built once and kept."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy import registry
from spacy.kb import InMemoryLookupKB
from spacy.language import Language
from spacy.vocab import Vocab

from spacy_gemel.data.knowledge_bases import lookup_kb
from spacy_gemel.data.knowledge_bases.lookup_kb import SourceNote, open_lookup_kb
from spacy_gemel.kb import builder
from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.utils.files import files_in
from tests import tiny
from tests.calls import Calls
from tests.mini_pipeline import example, make_config, make_doc, make_kb, picture

ALIASES = {
    "Mercury": {"Q308": 0.5, "Q925": 0.3},
    "planet Mercury": {"Q308": 1.0},
    "Hg": {"Q925": 0.9},
    "Java": {"Q251": 0.7},
}
FREQUENCIES = {"Q308": 342, "Q925": 12, "Q251": 7}


def save(path: Path, frequencies: dict[str, float] = FREQUENCIES) -> Path:
    kb = InMemoryLookupKB(Vocab(), entity_vector_length=2)
    for number, (entity, frequency) in enumerate(frequencies.items()):
        kb.add_entity(entity=entity, freq=frequency, entity_vector=[number, 1])
    for alias, targets in ALIASES.items():
        kb.add_alias(alias=alias, entities=list(targets), probabilities=list(targets.values()))
    kb.to_disk(path)
    return path


@pytest.fixture
def lookup(tmp_path: Path) -> Path:
    return save(tmp_path / "lookup")


@pytest.fixture
def tokenizer(models: Path) -> str:
    return str(models / "language_model")


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was imported so far: empty where the knowledge base that was there has been taken."""
    return Calls(monkeypatch, lookup_kb, "import_kb").seen


def load(path: Path, folder: Path, tokenizer: str, **options: Any) -> KnowledgeBase:
    """As a config's kb_loader does, without the progress bars."""
    return open_lookup_kb(str(path), str(folder), tokenizer, **options, progress=False)


def named(kb: KnowledgeBase) -> dict[str, str]:
    return {kb.entity(row).kb_id: kb.entity(row).name for row in range(len(kb))}


def test_the_most_probable_alias_is_the_name(lookup: Path, tmp_path: Path, tokenizer: str) -> None:
    kb = load(lookup, tmp_path / "kb", tokenizer)
    assert named(kb) == {"Q308": "planet Mercury", "Q925": "Hg", "Q251": "Java"}
    assert kb.counts.tolist() == [342, 12, 7]
    assert kb.rows_by_surface("Mercury") == ([], [0, 1])  # the other aliases stay aliases
    assert KnowledgeBase.open(tmp_path / "kb", verify=True).meta == kb.meta  # a folder like any other


def test_ids_and_files_as_names(lookup: Path, tmp_path: Path, tokenizer: str) -> None:
    assert named(load(lookup, tmp_path / "ids", tokenizer, names="id"))["Q925"] == "Q925"
    table = tmp_path / "names.csv"
    table.write_text("id,name\nQ308,Mercury (planet)\nQ925,Mercury (element)\n")
    message = (
        r"the knowledge base does not have everything in .*lookup: "
        r"1 entities that .*names\.csv does not name \(the id is the name\)"
    )
    with pytest.warns(UserWarning, match=message):
        kb = load(lookup, tmp_path / "files", tokenizer, names=str(table))
    assert named(kb) == {"Q308": "Mercury (planet)", "Q925": "Mercury (element)", "Q251": "Q251"}


def test_it_is_built_once(lookup: Path, tmp_path: Path, tokenizer: str, builds: list[Any]) -> None:
    first = load(lookup, tmp_path / "kb", tokenizer)
    again = load(lookup, tmp_path / "kb", tokenizer)
    moved = lookup.rename(tmp_path / "moved")  # its content decides, not its place
    assert load(moved, tmp_path / "kb", tokenizer).meta == again.meta == first.meta
    assert builds == ["spacy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kb", "kb.source.json", "moved"]


def test_it_is_built_again_when_something_changed(
    lookup: Path, tmp_path: Path, tokenizer: str, builds: list[Any]
) -> None:
    table = tmp_path / "names.csv"
    folder = tmp_path / "kb"
    load(lookup, folder, tokenizer)
    save(lookup, {**FREQUENCIES, "Q111": 5})  # the source
    assert len(load(lookup, folder, tokenizer)) == 4
    table.write_text("id,name\nQ308,First\nQ925,B\nQ251,C\nQ111,D\n")
    assert named(load(lookup, folder, tokenizer, names=str(table)))["Q308"] == "First"  # the choice of names
    table.write_text(table.read_text().replace("First", "Second"))
    assert named(load(lookup, folder, tokenizer, names=str(table)))["Q308"] == "Second"  # the file's content
    kb = load(lookup, folder, tokenizer, names=str(table), max_name_tokens=20)
    assert kb.meta.max_name_tokens == 20
    tiny.make_tokenizer(tmp_path / "other")  # the tokenizer
    from transformers import AutoTokenizer

    other = AutoTokenizer.from_pretrained(tmp_path / "other")
    other.add_tokens(["Second one"])
    other.save_pretrained(tmp_path / "other")
    again = load(lookup, folder, str(tmp_path / "other"), names=str(table), max_name_tokens=20)
    assert again.meta.tokenizer_fingerprint != kb.meta.tokenizer_fingerprint
    assert len(builds) == 6


def test_a_folder_that_was_damaged_is_built_again(
    lookup: Path, tmp_path: Path, tokenizer: str, builds: list[Any]
) -> None:
    whole = load(lookup, tmp_path / "kb", tokenizer)
    (tmp_path / "kb" / "counts.npy").write_bytes(b"")
    assert load(lookup, tmp_path / "kb", tokenizer).meta == whole.meta
    (tmp_path / "kb.source.json").write_text('{"made_')
    assert load(lookup, tmp_path / "kb", tokenizer).meta == whole.meta
    shutil.rmtree(tmp_path / "kb")
    assert load(lookup, tmp_path / "kb", tokenizer).meta == whole.meta
    assert len(builds) == 4


def test_an_interrupted_build_is_made_good(
    lookup: Path, tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = load(lookup, tmp_path / "kb", tokenizer)
    save(lookup, {**FREQUENCIES, "Q111": 5})

    with monkeypatch.context() as patch:
        patch.setattr("spacy_gemel.kb.builder.build_trie", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load(lookup, tmp_path / "kb", tokenizer)
    assert KnowledgeBase.open(tmp_path / "kb", verify=True).meta == old.meta  # as it was
    assert len(load(lookup, tmp_path / "kb", tokenizer)) == 4
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_another_knowledge_base_is_never_replaced(lookup: Path, models: Path, tmp_path: Path, tokenizer: str) -> None:
    own = make_kb(tmp_path, models)
    before = {name: (own / name).read_bytes() for name in files_in(own)}
    with pytest.raises(KBError, match=r"holds a knowledge base that was not built from an InMemoryLookupKB"):
        load(lookup, own, tokenizer)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.png").write_bytes(b"cat")
    with pytest.raises(KBError, match=r"cat\.png, which is no part of a KB"):
        load(lookup, tmp_path / "pictures", tokenizer)
    assert {name: (own / name).read_bytes() for name in files_in(own)} == before
    assert (tmp_path / "pictures" / "cat.png").read_bytes() == b"cat"


def test_entities_that_share_their_name_are_told(lookup: Path, tmp_path: Path, tokenizer: str) -> None:
    table = tmp_path / "names.jsonl"
    rows = [{"id": "Q308", "name": "Mercury"}, {"id": "Q925", "name": "Mercury"}, {"id": "Q251", "name": "Java"}]
    table.write_text("\n".join(map(json.dumps, rows)))
    with pytest.warns(UserWarning, match="3 entities of .* have only 2 different names"):
        load(lookup, tmp_path / "kb", tokenizer, names=str(table))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said when it is built, not each time
        load(lookup, tmp_path / "kb", tokenizer, names=str(table))


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_in(folder)}


def fail(*_: object, **__: object) -> None:
    raise OSError("the disk is full")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_what_was_built_by_hand_after_a_build_that_failed(
    lookup: Path, models: Path, tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("spacy_gemel.kb.builder.build_trie", fail)
        with pytest.raises(KBError, match="the disk is full"):
            load(lookup, tmp_path / "kb", tokenizer)
    own = make_kb(tmp_path, models)
    before = content(own)
    with pytest.raises(KBError, match="holds a knowledge base that was not built from an InMemoryLookupKB"):
        load(lookup, own, tokenizer)
    assert content(own) == before


def test_what_was_built_by_hand_in_its_place(
    lookup: Path, models: Path, tmp_path: Path, tokenizer: str, builds: list[Any]
) -> None:
    load(lookup, tmp_path / "kb", tokenizer)
    own = make_kb(tmp_path, models)
    before = content(own)
    for frequencies in (FREQUENCIES, {**FREQUENCIES, "Q111": 5}):  # whether the source has changed as well or not
        save(lookup, frequencies)
        with pytest.raises(KBError, match=r"is not the one in kb\.source\.json"):
            load(lookup, own, tokenizer)
    (own / "meta.json").write_text("{")  # one that says nothing, if only it is there
    with pytest.raises(KBError, match=r"is not the one in kb\.source\.json"):
        load(lookup, own, tokenizer)
    assert {**content(own), "meta.json": b""} == {**before, "meta.json": b""}
    assert len(builds) == 1  # said before the long work


def test_what_came_while_it_was_built(
    lookup: Path, models: Path, tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    other = make_kb(tmp_path / "other", models)
    build_trie = builder.build_trie

    def late(*args: Any, **kwargs: Any) -> Any:
        if not (tmp_path / "kb").exists():
            shutil.copytree(other, tmp_path / "kb")
        return build_trie(*args, **kwargs)

    monkeypatch.setattr(builder, "build_trie", late)
    with pytest.raises(KBError, match="was not built from an InMemoryLookupKB"):
        load(lookup, tmp_path / "kb", tokenizer)
    assert content(tmp_path / "kb") == content(other)


@pytest.mark.parametrize("moment", ["before it is in place", "in place, not yet noted"])
@pytest.mark.parametrize("old", [False, True], ids=["the first", "in place of an older one"])
def test_an_interrupt_at_the_last_moment(
    lookup: Path, tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch, moment: str, old: bool
) -> None:
    if old:
        load(lookup, tmp_path / "kb", tokenizer)
        save(lookup, {**FREQUENCIES, "Q111": 5})
    with monkeypatch.context() as patch:
        if moment == "before it is in place":
            patch.setattr("spacy_gemel.kb.folder._sync", interrupt)
        else:
            write = SourceNote.write
            patch.setattr(SourceNote, "write", lambda *args, **state: write(*args, **state) if state else interrupt())
        with pytest.raises(KeyboardInterrupt):
            load(lookup, tmp_path / "kb", tokenizer)
    assert (tmp_path / "kb").exists() == (old or moment != "before it is in place")
    kb = load(lookup, tmp_path / "kb", tokenizer)
    assert len(kb) == (4 if old else 3)
    assert KnowledgeBase.open(tmp_path / "kb", verify=True).meta == kb.meta
    save(lookup, {**FREQUENCIES, "Q111": 5, "Q222": 6})  # and it goes on being ours
    assert len(load(lookup, tmp_path / "kb", tokenizer)) == 5


def test_a_part_of_a_folder_is_made_good(lookup: Path, tmp_path: Path, tokenizer: str) -> None:
    whole = load(lookup, tmp_path / "kb", tokenizer)
    (tmp_path / "kb" / "meta.json").unlink()
    assert load(lookup, tmp_path / "kb", tokenizer).meta == whole.meta


def test_one_of_an_older_format_is_built_again(lookup: Path, tmp_path: Path, tokenizer: str) -> None:
    whole = load(lookup, tmp_path / "kb", tokenizer)
    meta = json.loads((tmp_path / "kb" / "meta.json").read_text())
    (tmp_path / "kb" / "meta.json").write_text(json.dumps({**meta, "version": meta["version"] - 1}))
    assert load(lookup, tmp_path / "kb", tokenizer).meta == whole.meta


def test_a_wrong_header_of_names_is_told_without_options_of_another_command(
    lookup: Path, tmp_path: Path, tokenizer: str
) -> None:
    table = tmp_path / "names.csv"
    table.write_text("qid,title\nQ308,Mercury (planet)\n")
    with pytest.raises(ValueError, match=r"names\.csv:1: no column 'id' in the header, but qid, title") as raised:
        load(lookup, tmp_path / "kb", tokenizer, names=str(table))
    assert "begins with id,name" in str(raised.value)
    assert "--" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "nowhere"}, "there is no .*nowhere: path is the folder that InMemoryLookupKB.to_disk wrote"),
        ({"path": "empty"}, "is not a spaCy knowledge base: give the folder that its to_disk wrote"),
        ({"names": "titles"}, 'names must be "alias", "id" or a file, and there is no file .*titles'),
        ({"tokenizer": "./nowhere"}, "The tokenizer './nowhere' could not be loaded"),
        ({"max_name_tokens": 0}, "max_name_tokens must be from 1"),
        ({"folder": "lookup/contents"}, "is a file: give a folder"),
        ({"folder": "lookup/contents/kb"}, "kb cannot be built"),
    ],
)
def test_what_is_wrong_is_said(
    lookup: Path, tmp_path: Path, tokenizer: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    given = {"path": "lookup", "folder": "kb", "tokenizer": tokenizer, **options}
    with pytest.raises(ValueError, match=message):
        load(given.pop("path"), given.pop("folder"), **given)


def test_two_processes_do_not_build_one_folder(lookup: Path, tmp_path: Path, tokenizer: str) -> None:
    from spacy_gemel.kb.folder import work_folder

    with work_folder(tmp_path / "kb"), pytest.raises(KBError, match="Another build is writing"):
        load(lookup, tmp_path / "kb", tokenizer)
    assert len(load(lookup, tmp_path / "kb", tokenizer)) == 3


def linker_of(lookup: Path, models: Path, tmp_path: Path) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("gemel_linker", config=make_config(models))
    names = tmp_path / "names.csv"
    names.write_text("id,name\nQ308,Mercury (planet)\nQ925,Mercury (element)\nQ251,Java\n")
    nlp.config["initialize"]["components"]["gemel_linker"] = {
        "kb_loader": {
            "@misc": "spacy_gemel.KBFromLookupKB.v1",
            "path": str(lookup),
            "folder": str(tmp_path / "kb"),
            "tokenizer": str(models / "language_model"),
            "names": str(names),
        }
    }
    return nlp


def test_from_add_pipe_to_linked_docs(lookup: Path, models: Path, tmp_path: Path) -> None:
    nlp = linker_of(lookup, models, tmp_path)
    data = [
        example(nlp, "A photo of Mercury.", "Mercury", gold, picture(name))
        for gold, name in (("Q308", "Mercury (planet)"), ("Q925", "Mercury (element)"))
    ]
    optimizer = nlp.initialize(lambda: data)
    assert nlp.update(data, sgd=optimizer)["gemel_linker"] > 0
    doc = nlp(make_doc(nlp, "A photo of Mercury.", "Mercury", image=picture("Mercury (planet)")))
    assert doc.ents[0].kb_id_ in FREQUENCIES
    assert {found.kb_id for found in doc.ents[0]._.gemel_candidates} == set(FREQUENCIES)
    nlp.to_disk(tmp_path / "saved")
    shutil.rmtree(tmp_path / "kb")
    shutil.rmtree(lookup)  # a trained pipeline needs neither
    again = spacy.load(tmp_path / "saved")
    assert again(make_doc(again, "Java.", "Java")).ents[0].kb_id_ in FREQUENCIES


def test_an_entity_linker_of_a_saved_pipeline(models: Path, tmp_path: Path) -> None:
    old = spacy.blank("en")
    pipe = old.add_pipe("entity_linker")

    def make(vocab: Vocab) -> InMemoryLookupKB:
        kb = InMemoryLookupKB(vocab, entity_vector_length=1)
        kb.add_entity(entity="Q308", freq=3, entity_vector=[1])
        kb.add_alias(alias="Mercury", entities=["Q308"], probabilities=[0.5])
        return kb

    pipe.set_kb(make)  # type: ignore[attr-defined]
    old.to_disk(tmp_path / "old")
    loader = registry.misc.get("spacy_gemel.KBFromLookupKB.v1")(
        path=str(tmp_path / "old" / "entity_linker"),
        folder=str(tmp_path / "kb"),
        tokenizer=str(models / "language_model"),
    )
    assert named(loader(Vocab())) == {"Q308": "Mercury"}
