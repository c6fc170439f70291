"""The text that is given to the language model with a mention."""

from dataclasses import replace
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_gemel.linking.mention import Mention
from spacy_gemel.linking.retrievers import Query
from spacy_gemel.linking.settings import LinkerSettings
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.pipeline.mentions import context_of
from tests.mini_pipeline import entity_id, make_config, make_doc, make_kb, make_pipeline

TEXT = "One is here. Two met Mercury Three. Four is there. Five left."
SETTINGS = LinkerSettings(n_demonstrations=4)


def doc_of(text: str = TEXT, *, sentences: bool = True) -> Doc:
    nlp = spacy.blank("en")
    if sentences:
        nlp.add_pipe("sentencizer")
    return nlp(text)


def entity(doc: Doc, words: str) -> Span:
    start = doc.text.index(words)
    span = doc.char_span(start, start + len(words), label="ENT")
    assert span is not None
    return span


@pytest.mark.parametrize(
    ("words", "n_sents", "expected"),
    [
        ("Mercury", 0, "Two met Mercury Three."),
        ("Mercury", 1, "One is here. Two met Mercury Three. Four is there."),
        ("Mercury", 9, TEXT),
        ("One", 0, "One is here."),
        ("One", 1, "One is here. Two met Mercury Three."),
        ("Five", 1, "Four is there. Five left."),
        ("Three. Four", 0, "Two met Mercury Three. Four is there."),  # it crosses a boundary
        ("Three. Four", 1, TEXT),
    ],
)
def test_sentences(words: str, n_sents: int, expected: str) -> None:
    settings = replace(SETTINGS, context="sentence", n_sents=n_sents)
    doc = doc_of()
    assert context_of(entity(doc, words), settings) == expected
    # where the doc itself has none, another of the same text may tell
    assert context_of(entity(doc_of(sentences=False), words), settings, doc) == expected


@pytest.mark.parametrize(
    ("words", "window", "expected"),
    [
        ("Mercury", 0, "Mercury"),
        ("Mercury", 2, "Two met Mercury Three."),
        ("One", 2, "One is here"),
        ("Mercury", 99, TEXT),
    ],
)
def test_a_window_needs_no_sentences(words: str, window: int, expected: str) -> None:
    settings = replace(SETTINGS, context="window", window=window)
    assert context_of(entity(doc_of(sentences=False), words), settings) == expected


def test_all_of_the_doc_is_the_default() -> None:
    assert context_of(entity(doc_of(sentences=False), "Mercury"), SETTINGS) == TEXT


def test_sentences_that_are_not_there() -> None:
    with pytest.raises(ValueError, match=r"needs sentence boundaries.*sentencizer.*annotating_components.*window"):
        context_of(entity(doc_of(sentences=False), "Mercury"), replace(SETTINGS, context="sentence"))


LONG = "The first one is a house. A photo of Mercury number {}. The last one is a tree."


def long_examples(nlp: Language) -> list[Example]:
    return [
        Example(make_doc(nlp, text, "Mercury"), make_doc(nlp, text, "Mercury", entity_id("Mercury (planet)")))
        for text in map(LONG.format, range(4))
    ]


def prompts_of(nlp: Language, doc: Doc) -> list[str]:
    pipe = nlp.get_pipe("gemel_linker")
    assert isinstance(pipe, GemelLinker)
    seen: list[str] = []
    build = pipe.linking_model.prompt_builder.build

    def spy(mention: Mention, *rest: object, **more: object) -> object:
        seen.append(mention.text)
        return build(mention, *rest, **more)  # type: ignore[arg-type]

    pipe.linking_model.prompt_builder.build = spy  # type: ignore[assignment]
    nlp(doc)
    return seen


def test_a_pipeline_with_sentences_trains_saves_and_links(models: Path, tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("gemel_linker", config=make_config(models, context="sentence"))
    nlp.config["initialize"]["components"]["gemel_linker"] = {
        "kb_loader": {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(make_kb(tmp_path, models))}
    }
    optimizer = nlp.initialize(lambda: long_examples(nlp))
    pipe = nlp.get_pipe("gemel_linker")
    assert isinstance(pipe, GemelLinker)
    assert {shown.text for shown in pipe.store} == {f"A photo of Mercury number {index}." for index in range(4)}
    losses = nlp.update(long_examples(nlp), sgd=optimizer, annotates=["sentencizer"])
    assert losses["gemel_linker"] > 0
    with pytest.raises(ValueError, match="annotating_components"):
        nlp.update(long_examples(nlp), sgd=optimizer)
    nlp.to_disk(tmp_path / "saved")
    loaded = spacy.load(tmp_path / "saved")
    assert prompts_of(loaded, make_doc(loaded, LONG.format(9), "Mercury")) == ["A photo of Mercury number 9."]


def test_a_training_item_is_never_its_own_demonstration(models: Path, tmp_path: Path) -> None:
    nlp = make_pipeline(models, make_kb(tmp_path, models), context="window", window=3)
    pipe = nlp.get_pipe("gemel_linker")
    assert isinstance(pipe, GemelLinker)
    shown = pipe.store[0]
    assert shown.text == "A photo of Mercury number 0."
    indices = pipe.linking_model.rank_demonstrations(Query(shown.mention, shown.text), pipe.settings, training=True)
    assert indices
    assert all(pipe.store[index].text != shown.text for index in indices)


def test_a_long_document_is_linked_with_a_window(models: Path, tmp_path: Path) -> None:
    kb = make_kb(tmp_path, models)
    text = "word " * 3000 + "Mercury " + "word " * 3000
    whole = make_pipeline(models, kb)
    with pytest.warns(UserWarning, match='too long for the language model.*context = "window"'):
        doc = whole(make_doc(whole, text, "Mercury"))
    assert doc.ents[0].kb_id_ == "NIL"
    window = make_pipeline(models, kb, context="window", window=10)
    assert window(make_doc(window, text, "Mercury")).ents[0].kb_id_ != "NIL"


def test_a_splitter_has_what_it_needs_when_demonstrations_are_cut(models: Path, tmp_path: Path) -> None:
    """A component that splits by what another one left in the doc, as a parser does with vectors."""

    @Language.component("marks", assigns=["doc.user_data"])
    def marks(doc: Doc) -> Doc:
        doc.user_data["breaks"] = [token.i + 1 for token in doc[:-1] if token.text == "."]
        doc.ents = []  # and a NER that knows nothing yet may find nothing
        return doc

    @Language.component("breaks", assigns=["token.is_sent_start"])
    def breaks(doc: Doc) -> Doc:
        for token in doc:
            token.is_sent_start = token.i in {0, *doc.user_data.get("breaks", ())}
        return doc

    nlp = spacy.blank("en")
    nlp.add_pipe("marks")
    nlp.add_pipe("breaks")
    nlp.add_pipe("gemel_linker", config=make_config(models, context="sentence"))
    nlp.config["initialize"]["components"]["gemel_linker"] = {
        "kb_loader": {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(make_kb(tmp_path, models))}
    }
    nlp.initialize(lambda: long_examples(nlp))
    pipe = nlp.get_pipe("gemel_linker")
    assert isinstance(pipe, GemelLinker)
    assert [shown.text for shown in pipe.store] == [f"A photo of Mercury number {index}." for index in range(4)]
