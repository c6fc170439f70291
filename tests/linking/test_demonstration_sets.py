"""Fixed sets of demonstrations: which ones they are, and that what is shown is linked as ever."""

from pathlib import Path

import numpy as np
import pytest
import spacy
from spacy.language import Language

from spacy_gemel.linking.demonstration_sets import DemonstrationSets
from spacy_gemel.linking.demonstrations import Demonstration, DemonstrationStore
from spacy_gemel.linking.retrievers import Query
from spacy_gemel.registry import transformer_retriever
from tests.calls import Calls
from tests.mini_pipeline import add_linker, linker, make_doc, picture

VECTORS = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1], [0, 0]], dtype=np.float32)
ENTITIES = ["A", "A", "B", "C", "D", "E"]


def make_sets(count: int, size: int) -> DemonstrationSets:
    demonstrations = [Demonstration("text", "mention", entity, entity) for entity in ENTITIES]
    vectors = np.where(VECTORS.any(axis=1, keepdims=True), VECTORS, np.nan)  # the last has none
    retriever = transformer_retriever()
    retriever.index(["mention"] * len(ENTITIES), vectors)
    return DemonstrationSets(DemonstrationStore(demonstrations, vectors=vectors), retriever, count, size)


def rank(sets: DemonstrationSets, *vector: float) -> list[int]:
    return sets.rank(Query("mention", vector=np.array(vector, dtype=np.float32)))


def test_a_query_gets_the_set_of_its_cluster_each_entity_once() -> None:
    sets = make_sets(2, 2)
    assert sorted(sorted(each) for each in sets.sets) == [[1, 2], [3, 4]]  # 1 is nearer to the middle than 0
    assert rank(sets, 5, 1) == rank(sets, 1, 0.3) == [1, 2]
    assert sorted(rank(sets, 0, 2)) == [3, 4]
    assert sets.rank(Query("mention")) == []  # no vector
    assert all(5 not in each for each in make_sets(2, 6).sets)


def test_one_set_is_one_prompt_and_more_than_there_are_are_fewer() -> None:
    assert rank(make_sets(1, 3), 1, 0) == rank(make_sets(1, 3), 0, 1)
    assert len(make_sets(1, 3).sets) == 1
    assert len(make_sets(100, 1).sets) == 5
    assert make_sets(2, 2).sets == make_sets(2, 2).sets  # no chance in it


def test_docs_are_linked_as_if_each_prompt_were_read_whole(trained: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{start} of Mercury, seen {seed} times." for seed in range(2) for start in ("A photo", "Some words")]
    docs = [make_doc(trained, text, "Mercury", image=picture("Mercury", len(text))) for text in texts]
    docs.append(make_doc(trained, texts[0], "photo"))
    pipe, settings = linker(trained), linker(trained).settings
    try:
        pipe.configure(demonstration_sets=2)
        shown = [pipe.demonstrations_for(doc, doc.ents[0]) for doc in docs]
        assert shown[0] == shown[1] == shown[2]
        model = pipe.linking_model
        prefill = model.decoder.prefill
        results = []
        for share in (True, False):
            forward = Calls(monkeypatch, model.language_model, "forward")
            if not share:
                monkeypatch.setitem(
                    vars(model.decoder), "prefill", lambda *args, sharing, **options: prefill(*args, **options)
                )
            candidates = [each.answer.candidates for of_doc in pipe.predict(docs) for each in of_doc]
            results.append((candidates, sum(each.shape[0] * each.shape[1] for each in forward.seen)))
            monkeypatch.undo()
        (shared, tokens), (whole, all_tokens) = results
        assert tokens < all_tokens / 2
        for candidates, expected in zip(shared, whole, strict=True):
            assert [each.kb_id for each in candidates] == [each.kb_id for each in expected]
            assert [each.score for each in candidates] == pytest.approx([each.score for each in expected], abs=1e-4)
    finally:
        pipe.configure(demonstration_sets=settings.demonstration_sets)


@pytest.mark.parametrize("retriever", ["NoRetriever", "RandomRetriever", "BM25Retriever"])
def test_a_retriever_without_vectors_is_refused(models: Path, kb: Path, retriever: str) -> None:
    block = {"@misc": f"spacy_gemel.{retriever}.v1"}
    with pytest.raises(ValueError, match=r"demonstration_sets = 2 needs a retriever that compares vectors"):
        add_linker(spacy.blank("en"), models, kb, retriever=block, demonstration_sets=2)
    nlp = add_linker(spacy.blank("en"), models, kb, retriever=block)
    with pytest.raises(ValueError, match="needs a retriever that compares vectors"):
        linker(nlp).configure(demonstration_sets=2)
