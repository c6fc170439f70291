"""Retrievers against rank_bm25 and plain cosines."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi
from sentence_transformers import SentenceTransformer

from spacy_gemel.linking.retrievers import Query
from spacy_gemel.registry import (
    bm25_retriever,
    no_retriever,
    random_retriever,
    sentence_transformer_retriever,
)
from tests.calls import Calls

MENTIONS = ["Hawks", "Hawthorn", "Hawthorn FC", "the Hawks", "New York", "New York City", "Java", "Java"]

words = st.sampled_from(["new", "york", "city", "Java", "Hawks", "FC", "the"])
mentions = st.lists(words, min_size=1, max_size=4).map(" ".join)


@given(corpus=st.lists(mentions, min_size=1, max_size=30), query=mentions, n=st.integers(1, 40))
@settings(max_examples=100)
def test_bm25_is_rank_bm25(corpus: list[str], query: str, n: int) -> None:
    retriever = bm25_retriever()
    retriever.index(corpus)
    scores = BM25Okapi([mention.lower().split() for mention in corpus]).get_scores(query.lower().split())
    expected = sorted(range(len(corpus)), key=lambda index: (-scores[index], index))[:n]
    assert retriever.rank(Query(query, "any text"), n) == expected
    assert retriever.rank(Query(query, "any text"), 1) == expected[:1]


def test_dense_is_the_cosine_of_sentence_transformers(models: Path) -> None:
    folder = models / "sentence_encoder"
    retriever = sentence_transformer_retriever(str(folder))
    retriever.load("cpu")
    retriever.index(MENTIONS)
    reference = SentenceTransformer(str(folder), device="cpu")
    vectors = reference.encode(MENTIONS, normalize_embeddings=True)
    for query in ("Hawthorn F.C.", "York", "Java"):
        similarity = vectors @ reference.encode([query], normalize_embeddings=True)[0]
        ranked = retriever.rank(Query(query), len(MENTIONS))
        assert sorted(ranked) == list(range(len(MENTIONS)))
        assert all(np.diff(similarity[ranked]) <= 1e-6)
    assert retriever.rank(Query("Java"), 2) == [6, 7]  # equals in the order of the store


@pytest.mark.parametrize("pooling", ["pooler", "cls", "mean"])
def test_pooling_of_a_plain_transformer(models: Path, pooling: str) -> None:
    """SimCSE's pooler output where the model has no pooling of its own."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    plain = models / "sentence_encoder-plain"
    retriever = sentence_transformer_retriever(str(plain), pooling=pooling)
    retriever.load("cpu")
    model, tokenizer = AutoModel.from_pretrained(plain), AutoTokenizer.from_pretrained(plain)
    with torch.no_grad():
        output = model(**tokenizer("New York", return_tensors="pt"))
    expected = {
        "pooler": output.pooler_output[0],
        "cls": output.last_hidden_state[0, 0],
        "mean": output.last_hidden_state[0].mean(0),
    }[pooling]
    np.testing.assert_allclose(retriever._embed(["New York"])[0], expected.numpy(), atol=1e-5)
    if pooling == "pooler":  # the default where the model is no sentence transformer
        default = sentence_transformer_retriever(str(plain))
        default.load("cpu")
        np.testing.assert_allclose(default._embed(["New York"])[0], expected.numpy(), atol=1e-5)


def test_random_is_the_same_for_the_same_mention_and_text() -> None:
    first, second, other = random_retriever(1), random_retriever(1), random_retriever(2)
    for retriever in (first, second, other):
        retriever.index(MENTIONS * 20)
    ranks = [first.rank(Query(f"mention {index}", "text"), 8) for index in range(50)]
    assert ranks == [second.rank(Query(f"mention {index}", "text"), 8) for index in range(50)]
    assert ranks != [other.rank(Query(f"mention {index}", "text"), 8) for index in range(50)]
    assert first.rank(Query("a", "one text"), 8) != first.rank(Query("a", "another text"), 8)
    assert all(len(set(rank)) == 8 for rank in ranks)
    assert len({index for rank in ranks for index in rank}) > 100


def test_nothing_to_retrieve(models: Path) -> None:
    dense = sentence_transformer_retriever(str(models / "sentence_encoder"))
    dense.load("cpu")
    for retriever in (no_retriever(), random_retriever(), bm25_retriever(), dense):
        retriever.index([])
        assert retriever.rank(Query("Java", "text"), 4) == []
    none = no_retriever()
    none.index(MENTIONS)
    assert none.rank(Query("Java", "text"), 4) == []


def test_an_unknown_pooling_is_refused(models: Path) -> None:
    with pytest.raises(ValueError, match="pooling = 'max' is not known"):
        sentence_transformer_retriever(str(models / "sentence_encoder"), pooling="max").load("cpu")


def test_mentions_that_are_prepared_are_embedded_together(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together, alone = (sentence_transformer_retriever(str(models / "sentence_encoder")) for _ in range(2))
    for retriever in (together, alone):
        retriever.load("cpu")
        retriever.index(MENTIONS)
    embedded = Calls(monkeypatch, together, "_embed")
    queries = [f"{mention} {index}" for index in range(50) for mention in ("Java", "Hawthorn F.C.")]
    together.prepare([Query(mention) for mention in (*queries, *queries)], 4)
    assert [len(mentions) for mentions in embedded.seen] == [64, 36]
    for query in queries:
        assert together.rank(Query(query), 4) == alone.rank(Query(query), 4)
    together.prepare([Query(mention) for mention in queries], 8)
    assert len(embedded.seen) == 2


@pytest.mark.parametrize("later", [[*MENTIONS, "Nile", "Java"], ["Nile", *MENTIONS[3:]], ["Nile"], [], MENTIONS])
def test_an_index_that_changes_embeds_what_is_new_alone(
    models: Path, monkeypatch: pytest.MonkeyPatch, later: list[str]
) -> None:
    changed, fresh = (sentence_transformer_retriever(str(models / "sentence_encoder")) for _ in range(2))
    for retriever in (changed, fresh):
        retriever.load("cpu")
    changed.index(MENTIONS)
    changed.rank(Query("Hawthorn F.C."), 8)
    encoded = Calls(monkeypatch, changed._embed.model, "encode")
    changed.index(later)
    assert encoded.seen == ([["Nile"]] if "Nile" in later else [])
    fresh.index(later)
    for query in ("Hawthorn F.C.", "Java", "York"):
        assert changed.rank(Query(query), 10) == fresh.rank(Query(query), 10)


def test_another_model_counts_from_the_next_index_on(models: Path) -> None:
    retriever, other = (
        sentence_transformer_retriever(str(models / f"sentence_encoder{end}")) for end in ("", "-plain")
    )
    for one in (retriever, other):
        one.load("cpu")
        one.index(MENTIONS)
    queries = [Query(mention) for mention in ("Hawthorn F.C.", "York", "Hawk")]
    before, expected = ([one.scores([query.mention]) for query in queries] for one in (retriever, other))
    assert not np.allclose(before, expected, atol=1e-3)
    retriever.load("cpu", models / "sentence_encoder-plain")
    np.testing.assert_allclose([retriever.scores([query.mention]) for query in queries], before, atol=1e-5)
    retriever.index(MENTIONS)
    np.testing.assert_allclose([retriever.scores([query.mention]) for query in queries], expected, atol=1e-5)


@pytest.mark.parametrize("pooling", [None, "pooler", "cls", "mean"])
def test_a_mention_without_a_token_is_ranked_like_any(models: Path, pooling: str | None) -> None:
    """A blank entity, where the encoder's tokenizer adds no tokens of its own: alone, in company, and in the store."""
    plain = pooling is not None
    retriever = sentence_transformer_retriever(str(models / f"sentence_encoder{'-plain' * plain}"), pooling=pooling)
    retriever.load("cpu")
    retriever.index([*MENTIONS, " "])
    retriever.prepare([Query("\n"), Query("Java")], 2)
    for mention in ("", "\t", "\n"):
        assert len(retriever.rank(Query(mention, "text"), 3)) == 3
        assert retriever.scores([mention])[0, -1] == pytest.approx(1)  # as similar as can be to the blank in the store
    assert np.isfinite(retriever.scores([" ", "Java"])).all()
