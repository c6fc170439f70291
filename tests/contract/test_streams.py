"""nlp.pipe in every form gives what one doc at a time gives."""

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from tests.mini_pipeline import LINKER, assert_same, captions, is_linked, make_doc, picture


@pytest.fixture(scope="module")
def expected(trained: Language) -> list[Doc]:
    """One at a time."""
    return [trained(doc) for doc in captions(trained, 7)]


@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_any_batch_size(trained: Language, expected: list[Doc], batch_size: int | None) -> None:
    assert_same(list(trained.pipe(captions(trained, 7), batch_size=batch_size)), expected)


def test_as_tuples_keeps_each_context_with_its_doc(trained: Language, expected: list[Doc]) -> None:
    pairs = ((doc, {"row": index}) for index, doc in enumerate(captions(trained, 7)))
    found = list(trained.pipe(pairs, as_tuples=True, batch_size=3))
    assert [context["row"] for _, context in found] == list(range(7))
    assert_same([doc for doc, _ in found], expected)


def test_a_generator_is_read_batch_by_batch(trained: Language) -> None:
    read = 0

    def endless() -> Iterator[Doc]:
        nonlocal read
        for index in itertools.count():
            read += 1
            yield make_doc(trained, f"Photo {index % 3} of Mercury.", "Mercury")

    stream = trained.pipe(endless(), batch_size=2)
    assert all(is_linked(doc) for doc in itertools.islice(stream, 5))
    assert read <= 6


def test_nothing_in_nothing_out(trained: Language) -> None:
    assert list(trained.pipe([])) == []
    assert list(trained.pipe(iter(()), as_tuples=True)) == []
    pipe: Any = trained.get_pipe(LINKER)
    assert list(pipe.pipe(iter(()), batch_size=1)) == []


def test_two_processes(trained: Language, expected: list[Doc]) -> None:
    """Also with contexts, an uneven number of batches, and one that is larger than all."""
    for batch_size in (2, 100):
        pairs = ((doc, index) for index, doc in enumerate(captions(trained, 7)))
        found = list(trained.pipe(pairs, as_tuples=True, n_process=2, batch_size=batch_size))
        assert [index for _, index in found] == list(range(7))
        assert_same([doc for doc, _ in found], expected)


def test_every_form_of_an_image_goes_to_two_processes(trained: Language, tmp_path: Path) -> None:
    """spaCy serialises docs before any pipe sees them, and cannot do so with a path object or a PIL image by itself."""
    Image.fromarray(picture("Mercury", 3)).save(tmp_path / "picture.png")

    def docs() -> list[Doc]:
        path = tmp_path / "picture.png"
        forms = [path, str(path), path.read_bytes(), Image.open(path), np.asarray(Image.open(path))]
        return [make_doc(trained, "A photo of Mercury.", "Mercury", image=form) for form in forms]

    alone = [trained(doc) for doc in docs()]
    found = list(trained.pipe(docs(), n_process=2, batch_size=2))
    assert_same(found, alone)
    assert_same(found, alone[:1] * 5)
    for one, other in zip(alone, found, strict=True):
        read = Doc(trained.vocab).from_bytes(one.to_bytes())
        assert type(read.user_data["image"]) is type(other.user_data["image"])
        assert isinstance(other.user_data["image"], str | bytes | np.ndarray)
    [stored] = DocBin(store_user_data=True, docs=docs()[3:4]).get_docs(trained.vocab)
    assert_same([trained(stored)], alone[:1])


def test_component_cfg(trained: Language, expected: list[Doc]) -> None:
    sizes: list[int] = []
    pipe: Any = trained.get_pipe(LINKER)
    predict = pipe.predict
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipe, "predict", lambda docs: sizes.append(len(docs)) or predict(docs))
        found = list(trained.pipe(captions(trained, 7), component_cfg={LINKER: {"batch_size": 3}}))
    assert sizes == [3, 3, 1]
    assert_same(found, expected)


def test_disabled_it_leaves_docs_as_they_are(trained: Language) -> None:
    for doc in trained.pipe(captions(trained), disable=[LINKER]):
        assert [ent.kb_id_ for ent in doc.ents] == [""]
        assert "gemel_candidates" not in doc.user_data
    with trained.select_pipes(disable=[LINKER]):
        assert trained.pipe_names == []
        assert trained(captions(trained)[0]).ents[0].kb_id_ == ""
    assert trained.pipe_names == [LINKER]
    with trained.select_pipes(enable=[LINKER]):
        assert is_linked(trained(captions(trained)[0]))


WORDS = st.sampled_from(
    ["Mercury", "Java", "北京市", "é", " ", "\n", "\t", "😀", "New York", "[Text]", "\u200b", "x" * 60]
)


@settings(max_examples=15)
@given(data=st.data())
def test_any_entities_of_any_text_get_an_answer(trained: Language, data: st.DataObject) -> None:
    """Blank entities, unknown scripts, the template's own words, entities next to each other: all are answered."""
    docs = []
    for words in data.draw(st.lists(st.lists(WORDS, max_size=8), min_size=1, max_size=4)):
        doc = Doc(trained.vocab, words=words)
        cuts = sorted(data.draw(st.sets(st.integers(0, len(words)), max_size=6)))
        keep = data.draw(st.lists(st.booleans(), min_size=len(cuts), max_size=len(cuts)))
        spans = [(start, end) for (start, end), kept in zip(itertools.pairwise(cuts), keep, strict=False) if kept]
        doc.set_ents([Span(doc, start, end, label="ENT") for start, end in spans])
        docs.append((doc, len(spans)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linked = list(trained.pipe((doc for doc, _ in docs), batch_size=2))
    for doc, (_, number) in zip(linked, docs, strict=True):
        assert len(doc.ents) == number
        assert all(ent.kb_id_ and ent._.gemel_candidates for ent in doc.ents)
        assert all(token.ent_kb_id_ == "" for token in doc if not token.ent_type_ and token.ent_iob_ in ("O", ""))
