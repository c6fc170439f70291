"""Demonstrations by the vectors of the pipeline's own transformer: of both packages, and made by hand after them."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import srsly
from spacy.cli.init_config import fill_config
from spacy.cli.train import train
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from thinc.api import Config

from spacy_gemel.linking.retrievers import Query
from tests.calls import Calls
from tests.mini_pipeline import (
    LINKER,
    add_linker,
    assert_same,
    linker,
    make_config,
    make_doc,
    make_pipeline,
    picture,
    reseal,
)
from tests.trf import (
    KINDS,
    MADE,
    PACKAGES,
    RETRIEVER,
    MadeTransformer,
    learn,
    make_trf_pipeline,
    mean_of,
    texts,
    trf_docs,
    trf_examples,
    vector_of,
)

DOCS = Path(__file__).parents[2] / "docs"
Make = Callable[..., Language]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def nlp(kind: str, models: Path, kb: Path, tmp_path_factory: pytest.TempPathFactory) -> Language:
    """A pipeline whose linker has learned for a few steps; not changed by the tests."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*gemel_linker")
        nlp = make_trf_pipeline(kind, models, kb, tmp_path_factory.mktemp("trf"))
        losses = learn(nlp)
    assert losses[-1] < losses[0]
    return nlp


@pytest.fixture
def made(models: Path, kb: Path, tmp_path: Path) -> Make:
    """Makes a pipeline of a hand-made transformer, the test's own."""

    def make(kind: str = MADE[0], **changes: Any) -> Language:
        return make_trf_pipeline(kind, models, kb, tmp_path, **changes)

    return make


def said(caught: "list[warnings.WarningMessage]") -> list[str]:
    return [str(warning.message) for warning in caught if LINKER in str(warning.message)]


# What is retrieved


def test_the_vectors_are_means_over_the_wordpieces(nlp: Language) -> None:
    store = linker(nlp).store
    assert store.vectors is not None
    assert [shown.text for shown in store] == [text for text, _, _ in texts()]
    expected = np.stack([vector_of(nlp, shown.text, shown.mention) for shown in store])
    np.testing.assert_allclose(store.vectors, expected, atol=1e-4)
    assert len(np.unique(np.round(expected, 4), axis=0)) >= 7  # the same mention in other texts has other vectors


def test_demonstrations_are_those_of_the_nearest_vectors(nlp: Language) -> None:
    pipe = linker(nlp)
    vectors = np.stack([vector_of(nlp, shown.text, shown.mention) for shown in pipe.store])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lists = set()
    for doc in nlp.pipe(trf_docs(nlp)):
        for ent in doc.ents:
            query = mean_of(doc, ent.start, ent.end)
            similarity = vectors @ query / np.linalg.norm(query)
            [mention] = pipe.mentions_of(pipe.entities_to_link([doc]))
            ranked = pipe.linking_model.rank_demonstrations(Query(ent.text, doc.text, mention.vector), pipe.settings)
            assert len(ranked) == 3
            np.testing.assert_allclose(similarity[ranked], np.sort(similarity)[::-1][:3], atol=2e-5)
            assert [pipe.store[index] for index in reversed(ranked)] == pipe.demonstrations_for(doc, ent)
            lists.add(tuple(ranked))
    assert len(lists) > 2


def test_while_learning_a_mention_is_never_shown_itself(nlp: Language) -> None:
    pipe = linker(nlp)
    assert pipe.store.vectors is not None
    for index, shown in enumerate(pipe.store):
        query = Query(shown.mention, shown.text, pipe.store.vectors[index])
        assert index in pipe.linking_model.rank_demonstrations(query, pipe.settings)
        learned = pipe.linking_model.rank_demonstrations(query, pipe.settings, training=True)
        assert len(learned) == 3
        assert all(pipe.store[other].text != shown.text for other in learned)


def test_behind_the_ner_of_the_pipeline(nlp: Language, kind: str) -> None:
    if kind not in PACKAGES:
        pytest.skip("a hand-made transformer has no NER that listens")
    found = 0
    for text, _, _ in texts():
        doc = nlp(text)
        for ent in doc.ents:
            assert ent.kb_id_
            assert len(linker(nlp).demonstrations_for(doc, ent)) == 3
            found += 1
    assert found > 5


def test_spacy_train_with_the_others_frozen(nlp: Language, kind: str, models: Path, kb: Path, tmp_path: Path) -> None:
    """As docs/transformer.md tells it: transformer and NER come from a pipeline that has learned already."""
    before = [name for name in nlp.pipe_names if name != LINKER]
    nlp.to_disk(tmp_path / "ner")
    DocBin(docs=[example.reference for example in trf_examples(nlp)], store_user_data=True).to_disk(
        tmp_path / "c.spacy"
    )
    page = (DOCS / "transformer.md").read_text(encoding="utf8")
    [block] = re.findall(r"```ini\n(.*?)```", page, re.S)
    config = Config().from_str(block.replace("training/ner/model-best", str(tmp_path / "ner")))
    if kind in MADE:
        del config["components"]["ner"]
        config["nlp"]["pipeline"].remove("ner")
        config["training"]["frozen_components"].remove("ner")
    reader = {"@readers": "spacy_gemel.MultimodalCorpus.v1", "path": str(tmp_path / "c.spacy"), "gold_ents": True}
    loader = {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(kb)}
    linker_block = make_config(models) | config["components"][LINKER]
    config = config.merge(
        {
            "components": {LINKER: {"factory": LINKER, **linker_block}},
            "corpora": {"train": reader, "dev": reader},
            "training": {"max_steps": 4, "eval_frequency": 2},
            "initialize": {"components": {LINKER: {"kb_loader": loader}}},
        }
    )
    config.to_disk(tmp_path / "train.cfg")
    fill_config(tmp_path / "filled.cfg", tmp_path / "train.cfg", silent=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*gemel_linker")
        train(tmp_path / "filled.cfg", tmp_path / "trained")
    best = spacy.load(tmp_path / "trained" / "model-best")
    assert best.pipe_names == [*before, LINKER]
    kept, expected = linker(best).store.vectors, linker(nlp).store.vectors
    assert kept is not None
    np.testing.assert_allclose(np.sort(kept, axis=0), np.sort(expected, axis=0), atol=1e-4)  # type: ignore[call-overload]
    doc = best(trf_docs(best)[0])
    assert len(linker(best).demonstrations_for(doc, doc.ents[0])) == 3


# Saved and sent


def shown_for(nlp: Language) -> list[list[Any]]:
    return [linker(nlp).demonstrations_for(doc, ent) for doc in nlp.pipe(trf_docs(nlp)) for ent in doc.ents]


def test_saved_and_loaded_it_shows_and_links_the_same(nlp: Language, tmp_path: Path) -> None:
    expected, docs = shown_for(nlp), list(nlp.pipe(trf_docs(nlp)))
    nlp.to_disk(tmp_path / "saved")
    loaded = spacy.load(tmp_path / "saved")
    loaded.to_disk(tmp_path / "again")
    from_bytes = spacy.util.load_model_from_config(nlp.config).from_bytes(nlp.to_bytes())
    kept = linker(nlp).store.vectors
    assert kept is not None
    for other in (loaded, spacy.load(tmp_path / "again"), from_bytes):
        vectors = linker(other).store.vectors
        assert vectors is not None
        assert np.array_equal(vectors, kept)
        assert shown_for(other) == expected
        assert_same(list(other.pipe(trf_docs(other))), docs)


def test_in_two_processes(nlp: Language, kind: str) -> None:
    docs = list(nlp.pipe(trf_docs(nlp)))
    if kind in MADE:  # what these leave cannot be sent from one process to another
        nlp.add_pipe("doc_cleaner", config={"attrs": {"_.trf_data": None}})
    try:
        assert_same(list(nlp.pipe(trf_docs(nlp), n_process=2, batch_size=4)), docs)
    finally:
        if kind in MADE:
            nlp.remove_pipe("doc_cleaner")


def test_loading_asks_no_transformer(made: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = made()
    nlp.to_disk(tmp_path / "saved")
    asked = Calls(monkeypatch, MadeTransformer, "__call__")
    loaded = spacy.load(tmp_path / "saved")
    assert asked.seen == []
    assert linker(loaded).store.vectors is not None


def test_a_pipe_that_was_saved_without_vectors_loads(models: Path, kb: Path, tmp_path: Path) -> None:
    old = make_pipeline(models, kb, retriever={"@misc": "spacy_gemel.BM25Retriever.v1"})
    assert "vectors" not in linker(old).store.to_dict()
    old.to_disk(tmp_path / "old")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert linker(spacy.load(tmp_path / "old")).store.vectors is None
    block = f"components.{LINKER}.retriever"
    with pytest.warns(UserWarning, match="no demonstrations are shown: the pipe was trained with another retriever"):
        nlp = spacy.load(tmp_path / "old", config={block: RETRIEVER})
    nlp.add_pipe("made_transformer", "transformer", before=LINKER, config={"kind": MADE[0]})
    doc = nlp(make_doc(nlp, "A photo of Mercury.", "Mercury"))
    assert doc.ents[0].kb_id_
    assert linker(nlp).demonstrations_for(doc, doc.ents[0]) == []
    # what it lacks can be given
    new = [example.reference for example in trf_examples(nlp)]
    transformer = nlp.get_pipe("transformer")
    assert linker(nlp).add_demonstrations([transformer(doc) for doc in new]) == len(new)  # type: ignore[operator]
    assert len(linker(nlp).demonstrations_for(doc, doc.ents[0])) == 3


def test_a_pipe_with_vectors_loads_with_another_retriever(made: Make, tmp_path: Path) -> None:
    nlp = made()
    nlp.to_disk(tmp_path / "saved")
    block = f"components.{LINKER}.retriever"
    other = spacy.load(tmp_path / "saved", config={block: {"@misc": "spacy_gemel.BM25Retriever.v1"}})
    assert other(trf_docs(other)[0]).ents[0].kb_id_
    doc = make_doc(other, "A new text about Java.", "Java", "Java")
    assert linker(other).add_demonstrations([doc]) == 1
    vectors = linker(other).store.vectors
    assert vectors is not None
    assert np.isnan(vectors[-1]).all()
    assert np.isfinite(vectors[:-1]).all()


# Without trf_data


def test_a_doc_without_trf_data_is_said_once_and_linked_without_demonstrations(made: Make, tmp_path: Path) -> None:
    nlp = made()
    expected = list(nlp.pipe(trf_docs(nlp)))
    docs = [nlp.get_pipe("transformer")(doc) for doc in trf_docs(nlp)]  # type: ignore[operator]
    for index in (2, 5):
        docs[index]._.trf_data = None
    docs[2].user_data["id"] = "the third"
    with nlp.select_pipes(disable="transformer"), pytest.warns(UserWarning) as caught:
        linked = list(nlp.pipe(docs))
    [message] = said(caught.list)
    for part in ("'Mercury' in doc 'the third'", "no doc._.trf_data", "select_pipes", "annotating_components"):
        assert part in message
    assert all(doc.ents[0].kb_id_ for doc in linked)
    others = [index for index in range(len(docs)) if index not in (2, 5)]
    assert_same([linked[index] for index in others], [expected[index] for index in others])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [linker(nlp).demonstrations_for(linked[index], linked[index].ents[0]) for index in (2, 5)] == [[], []]


def merged(doc: Doc) -> None:
    with doc.retokenize() as retokenizer:
        retokenizer.merge(doc[0:2])


def unknown(doc: Doc) -> None:
    doc._.trf_data = {"what": "ever"}


def empty(doc: Doc) -> None:
    doc._.trf_data.model_output = {}


def infinite(doc: Doc) -> None:
    doc._.trf_data.model_output["last_hidden_state"][:] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (merged, "stands for 8 tokens and the doc has 7"),
        (unknown, "of type dict, is that of no transformer"),
        (empty, "no last_hidden_state"),
        (infinite, "not finite"),
    ],
)
def test_trf_data_of_no_use_is_said(made: Make, change: Callable[[Doc], None], message: str) -> None:
    nlp = made()
    doc = make_doc(nlp, "Here is a photo of Mercury today.", "Mercury")
    doc = nlp.get_pipe("transformer")(doc)  # type: ignore[operator]
    change(doc)
    with pytest.warns(UserWarning, match=message) as caught:
        linker(nlp)(doc)
    assert len(said(caught.list)) == 1
    assert doc.ents[0].kb_id_
    assert linker(nlp).demonstrations_for(doc, doc.ents[0]) == []


def test_a_mention_of_white_space_is_shown_nothing(made: Make) -> None:
    nlp = made()
    doc = nlp.make_doc("A photo of   Mercury.")
    doc.set_ents([Span(doc, index, index + 1, label="ENT") for index in (3, 4)])
    with pytest.warns(UserWarning, match="reads no wordpiece there"):
        doc = nlp(doc)
    assert [len(linker(nlp).demonstrations_for(doc, ent)) for ent in doc.ents] == [0, 3]


def test_training_without_annotating_components_says_so_and_goes_on(made: Make) -> None:
    nlp = made()
    losses: dict[str, float] = {}
    with pytest.warns(UserWarning, match=r"annotating_components and frozen_components") as caught:
        for _ in range(2):
            nlp.update(trf_examples(nlp), losses=losses)
    assert len(said(caught.list)) == 1
    assert losses[LINKER] > 0


def test_no_transformer_is_an_error_before_long_work(models: Path, kb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spacy_gemel.pipeline.gemel_linker import GemelLinker

    loaded = Calls(monkeypatch, GemelLinker, "_load_models")
    with pytest.raises(ValueError, match="no component before the linker makes any") as raised:
        make_pipeline(models, kb, retriever=RETRIEVER)
    assert "put the transformer before the linker" in str(raised.value)
    assert loaded.seen == []


def test_a_transformer_behind_the_linker_is_no_use(models: Path, kb: Path) -> None:
    nlp = add_linker(spacy.blank("en"), models, kb, retriever=RETRIEVER)
    nlp.add_pipe("made_transformer", config={"kind": MADE[0]})
    with pytest.raises(ValueError, match="no component before the linker"):
        nlp.initialize(lambda: trf_examples(nlp))


# The same transformer ever after


def test_another_width_is_one_error(made: Make, tmp_path: Path) -> None:
    nlp = made()
    nlp.remove_pipe("transformer")
    nlp.add_pipe("made_transformer", "transformer", before=LINKER, config={"kind": MADE[1], "width": 12})
    message = "a vector of width 12, the demonstrations' are of width 8"
    with pytest.raises(ValueError, match=message):
        list(nlp.pipe(trf_docs(nlp)))
    with pytest.raises(ValueError, match=message):
        nlp.update(trf_examples(nlp), annotates=["transformer"])
    docs = [nlp.get_pipe("transformer")(example.reference) for example in trf_examples(nlp)]  # type: ignore[operator]
    docs.append(nlp.get_pipe("transformer")(make_doc(nlp, "A new text of Java.", "Java", "Java")))  # type: ignore[operator]
    store = linker(nlp).store
    with pytest.raises(ValueError, match="vectors are of width 12"):
        linker(nlp).add_demonstrations(docs)
    assert linker(nlp).store is store


def test_a_transformer_that_changes_is_said_once_while_learning(made: Make) -> None:
    nlp = made()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*gemel_linker")
        learn(nlp, 1)
    transformer: Any = nlp.get_pipe("transformer")
    transformer.seed += 1
    with pytest.warns(UserWarning, match="transformer has changed since the demonstrations were collected") as caught:
        learn(nlp, 2)
    assert len(said(caught.list)) == 1


def test_a_frozen_transformer_counts_while_training_starts(made: Make) -> None:
    """`spacy train` switches frozen components off while it initializes: `made` does so too."""
    nlp = made()
    assert linker(nlp).store.vectors is not None
    assert nlp.pipe_names == ["transformer", LINKER]
    with nlp.select_pipes(disable="transformer"):
        nlp.initialize(lambda: trf_examples(nlp))
    np.testing.assert_allclose(
        linker(nlp).store.vectors, [vector_of(nlp, text, mention) for text, mention, _ in texts()], rtol=1e-5
    )


def test_golds_of_other_tokens_are_aligned(made: Make) -> None:
    from spacy.training import Example

    nlp = made()
    text = "A photo of New York City."
    words, spaces = ["A", "photo", "of", "New York", "City", "."], [True] * 4 + [False, False]
    reference = Doc(nlp.vocab, words=words, spaces=spaces)
    reference.set_ents([reference.char_span(11, 24, label="ENT", kb_id="New_York_City")])
    example = Example(nlp.make_doc(text), reference)
    with nlp.select_pipes(disable="transformer"):
        nlp.initialize(lambda: [example, *trf_examples(nlp)])
    vectors = linker(nlp).store.vectors
    assert vectors is not None
    np.testing.assert_allclose(vectors[0], vector_of(nlp, text, "New York City"), rtol=1e-5)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*gemel_linker")
        nlp.update([example], annotates=["transformer"])


# Added without training


def test_added_demonstrations_bring_their_vectors(nlp: Language, kind: str, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path)
    nlp = spacy.load(tmp_path)
    pipe = linker(nlp)
    before = pipe.store
    docs = [
        make_doc(nlp, "A new text about the island of Java, and no other.", "Java", "Java", picture("Java")),
        make_doc(nlp, "Seldom does one see Jaguar here.", "Jaguar", "Jaguar"),
    ]
    with pytest.raises(ValueError, match=r"'Java' in doc 0 of the batch.*select_pipes\(enable=\"transformer\"\)"):
        pipe.add_demonstrations(docs)
    assert pipe.store is before
    with nlp.select_pipes(enable="transformer"):
        docs[0] = nlp(docs[0])
    with pytest.warns(UserWarning, match="1 of 2 entities are not added, .*'Jaguar' in doc 1"):
        assert pipe.add_demonstrations(docs) == 1
    assert pipe.add_demonstrations(docs[:1]) == 0
    assert pipe.store.vectors is not None
    np.testing.assert_allclose(pipe.store.vectors[-1], vector_of(nlp, docs[0].text, "Java"), atol=1e-4)
    doc = nlp(make_doc(nlp, docs[0].text, "Java"))
    [ent] = [ent for ent in doc.ents if ent.text == "Java"]  # the NER may see others
    assert pipe.demonstrations_for(doc, ent)[-1] == pipe.store[len(before)]
    nlp.to_disk(tmp_path / "more")
    again = linker(spacy.load(tmp_path / "more")).store.vectors
    assert again is not None
    assert np.array_equal(again, pipe.store.vectors)


def test_a_picture_that_comes_later_keeps_the_vector(made: Make) -> None:
    nlp = made()
    pipe, transformer = linker(nlp), nlp.get_pipe("transformer")
    size = len(pipe.store)
    docs = [
        transformer(make_doc(nlp, text, "Java", "Java", image))  # type: ignore[operator]
        for text in ("A new text about Java.", "Another text about Java.")
        for image in (None, picture("Java"))
    ]
    assert [pipe.add_demonstrations([doc]) for doc in docs] == [1, 1, 1, 1]
    assert len(pipe.store) == size + 2
    assert pipe.store.vectors is not None
    for index, doc in ((size, docs[1]), (size + 1, docs[3])):
        assert pipe.store[index].text == doc.text
        assert pipe.store[index].image != -1
        np.testing.assert_allclose(pipe.store.vectors[index], vector_of(nlp, doc.text, "Java"), atol=1e-4)


def test_damaged_vectors_are_named(made: Make, tmp_path: Path) -> None:
    nlp = made()
    nlp.to_disk(tmp_path)
    path = tmp_path / LINKER / "demonstrations"
    plain = srsly.msgpack_loads(path.read_bytes())
    plain["vectors"] = plain["vectors"][:-4]
    path.write_bytes(srsly.msgpack_dumps(plain))
    reseal(path.parent)
    with pytest.raises(ValueError, match="'demonstrations' of the saved pipe cannot be read"):
        spacy.load(tmp_path)
