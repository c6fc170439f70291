"""The reader keeps the image, and gold spans where it is asked to."""

import os
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
import spacy
import srsly
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from spacy_gemel.data.reader import MultimodalCorpus, multimodal_corpus, read_docs


def corpus(path: Path, *texts: str, **user_data: object) -> Path:
    nlp = spacy.blank("en")
    docs = DocBin(store_user_data=True)
    for text in texts:
        doc = nlp(text)
        if len(doc):
            doc.set_ents([Span(doc, 0, 1, label="ENT", kb_id="gold")])
        doc.user_data.update(user_data)
        docs.add(doc)
    path.parent.mkdir(parents=True, exist_ok=True)
    docs.to_disk(path)
    return path


def test_the_image_is_on_predicted_and_reference(tmp_path: Path) -> None:
    path = corpus(tmp_path / "data" / "train.spacy", "Java coffee", image="../images/1.jpg", id="a", image_url="u")
    (example,) = multimodal_corpus(str(path))(spacy.blank("en"))
    image = str(tmp_path / "images" / "1.jpg")
    assert example.predicted.user_data == {"id": "a", "image": image, "image_url": "u"}
    assert example.reference.user_data["image"] == image
    assert not example.predicted.ents


@pytest.mark.parametrize("key", ["image", "image_features"])
def test_arrays_go_through(tmp_path: Path, key: str) -> None:
    array = np.arange(12, dtype=np.uint8 if key == "image" else np.float32).reshape(2, 2, 3)
    path = corpus(tmp_path / "x.spacy", "Java", **{key: array})
    (example,) = MultimodalCorpus(path)(spacy.blank("en"))
    assert np.array_equal(example.predicted.user_data[key], array)
    assert example.predicted.user_data[key].dtype == array.dtype


def test_bytes_go_through(tmp_path: Path) -> None:
    (doc,) = read_docs(corpus(tmp_path / "x.spacy", "Java", image=b"\xff\xd8"), spacy.blank("en").vocab)
    assert doc.user_data["image"] == b"\xff\xd8"


def test_gold_ents_come_without_their_ids(tmp_path: Path) -> None:
    path = corpus(tmp_path / "x.spacy", "Java coffee")
    (example,) = multimodal_corpus(path, gold_ents=True)(spacy.blank("en"))
    assert [(e.text, e.label_, e.kb_id_) for e in example.predicted.ents] == [("Java", "ENT", "")]
    assert example.reference.ents[0].kb_id_ == "gold"


def test_gold_ents_survive_another_tokeniser(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    doc = Doc(nlp.vocab, words=["Java", "-", "made"], spaces=[False, False, False])
    doc.set_ents([Span(doc, 0, 1, label="ENT", kb_id="gold")])
    DocBin(store_user_data=True, docs=[doc]).to_disk(tmp_path / "x.spacy")
    other = spacy.blank("en")
    other.tokenizer = lambda text: Doc(other.vocab, words=[text], spaces=[False])  # type: ignore[assignment]
    (example,) = MultimodalCorpus(tmp_path / "x.spacy", gold_ents=True)(other)
    assert [e.text for e in example.predicted.ents] == ["Java"]
    assert example.predicted.text == "Java-made"


def test_order_is_the_files_and_is_repeated(tmp_path: Path) -> None:
    texts = [f"doc {n}" for n in range(20)]
    read = MultimodalCorpus(corpus(tmp_path / "x.spacy", *texts))
    random.seed(1)
    nlp = spacy.blank("en")
    assert [e.reference.text for e in read(nlp)] == texts == [e.reference.text for e in read(nlp)]


def test_a_folder_is_read_in_the_order_of_names_each_with_its_own_images(tmp_path: Path) -> None:
    corpus(tmp_path / "b.spacy", "second", image="i.jpg")
    corpus(tmp_path / "a" / "a.spacy", "first", image="i.jpg")
    docs = list(read_docs(tmp_path, spacy.blank("en").vocab))
    assert [d.text for d in docs] == ["first", "second"]
    assert [d.user_data["image"] for d in docs] == [str(tmp_path / "a" / "i.jpg"), str(tmp_path / "i.jpg")]


def test_what_is_hidden_or_no_file_is_no_data(tmp_path: Path) -> None:
    corpus(tmp_path / "a.spacy", "one")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    corpus(tmp_path / ".ipynb_checkpoints" / "a-checkpoint.spacy", "twice")
    (tmp_path / "._a.spacy").write_bytes(b"what a Mac puts on a stick")
    (tmp_path / "folder.spacy").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "b.spacy")
    assert [doc.text for doc in read_docs(tmp_path, spacy.blank("en").vocab)] == ["one"]


def test_a_text_over_the_limit_of_the_tokenizer_takes_nothing_along(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.max_length = 10
    read = MultimodalCorpus(corpus(tmp_path / "x.spacy", "one", "a text that is too long", "two"))
    assert [e.predicted.text for e in read(nlp)] == ["one", "a text that is too long", "two"]


def test_limit_and_max_length(tmp_path: Path) -> None:
    path = corpus(tmp_path / "x.spacy", "one", "", "one two three", "four", "five")
    nlp = spacy.blank("en")
    read = multimodal_corpus(path, max_length=2, limit=2)
    assert [e.reference.text for e in read(nlp)] == ["one", "four"]


def test_one_clear_error(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.spacy").write_bytes(b"not a DocBin")
    (tmp_path / "x.txt").write_text("text")
    cases = {
        tmp_path / "gone.spacy": "no such file or folder; make it with",
        tmp_path / "empty": "no .spacy file in this folder",
        tmp_path / "bad.spacy": "it cannot be read as a DocBin",
        tmp_path / "x.txt": "not a .spacy file",
        corpus(tmp_path / "none.spacy"): "it holds no docs",
        corpus(tmp_path / "blank.spacy", ""): "it holds no docs",
    }
    for path, message in cases.items():
        with pytest.raises(ValueError, match=message) as raised:
            list(MultimodalCorpus(path)(nlp))
        assert str(path) in str(raised.value)
    with pytest.raises(ValueError, match="needs a path"):
        multimodal_corpus(None)
    with pytest.raises(ValueError, match="more than max_length = 1"):
        list(MultimodalCorpus(corpus(tmp_path / "long.spacy", "one two"), max_length=1)(nlp))


def test_a_docbin_that_is_damaged_further_on(tmp_path: Path) -> None:
    content = srsly.msgpack_loads(zlib.decompress(corpus(tmp_path / "sound.spacy", "one two").read_bytes()))
    changes = {"user_data": [srsly.msgpack_dumps([7])], "strings": [], "tokens": b"", "span_groups": [b"\x07"]}
    for key, value in changes.items():
        path = tmp_path / f"{key}.spacy"
        path.write_bytes(zlib.compress(srsly.msgpack_dumps({**content, key: value})))
        with pytest.raises(ValueError, match=rf"{key}\.spacy: it cannot be read as a DocBin; write it again"):
            list(read_docs(path, Vocab()))


def test_a_file_that_unpacks_to_more_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bomb.spacy").write_bytes(zlib.compress(bytes(2**26)))
    monkeypatch.setattr("spacy_gemel.data.reader.unpacked_limit", lambda size: 100 * size)
    with pytest.raises(ValueError, match=r"bomb\.spacy: it cannot be read as a DocBin.*unpack to more than"):
        list(read_docs(tmp_path / "bomb.spacy", spacy.blank("en").vocab))
