"""The vector of a span out of trf_data, of either form: against loops over the wordpieces; and what is kept of it."""

from typing import Any

import numpy as np
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from spacy.tokens import Doc
from thinc.api import Ragged

from spacy_gemel.linking.demonstrations import Demonstration, DemonstrationStore
from spacy_gemel.linking.retrievers import Query, TransformerRetriever
from spacy_gemel.pipeline.trf_vectors import NoVector, TokenRows
from tests.trf import LikeCurated, LikeSpacyTransformers

VOCAB = spacy.blank("en").vocab
WIDTH = 3

if not Doc.has_extension("trf_data"):
    Doc.set_extension("trf_data", default=None)


def doc_with(data: Any, tokens: int) -> Doc:
    doc = Doc(VOCAB, words=["word"] * tokens)
    doc._.trf_data = data
    return doc


class OnAGpu:
    """Behaves like CuPy's array: it has `get`, a shape and arithmetic of its own, and refuses to be converted."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.shape = array.shape

    def __len__(self) -> int:
        return len(self._array)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def get(self) -> np.ndarray:
        return self._array


class RaggedOnAGpu:
    def __init__(self, data: np.ndarray, lengths: np.ndarray) -> None:
        self.dataXd, self.lengths = OnAGpu(data), OnAGpu(lengths)


@st.composite
def transformed(draw: st.DrawFn) -> tuple[list[list[int]], np.ndarray]:
    """For each token the rows of its wordpieces, which may be none and may be in several spans; and the states."""
    spans, longest = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    rows = st.lists(st.integers(0, spans * longest - 1), max_size=5)
    numbers = st.floats(-100, 100, width=32)
    states = draw(arrays(np.float32, (spans, longest, WIDTH), elements=numbers))
    return draw(st.lists(rows, min_size=1, max_size=12)), states


@given(made=transformed(), data=st.data(), gpu=st.booleans(), half=st.booleans())
@settings(max_examples=200)
def test_the_mean_is_over_all_wordpieces_of_all_tokens(
    made: tuple[list[list[int]], np.ndarray], data: st.DataObject, gpu: bool, half: bool
) -> None:
    tokens, states = made
    states = states.astype("float16" if half else "float32")
    start = data.draw(st.integers(0, len(tokens) - 1))
    end = data.draw(st.integers(start + 1, len(tokens)))
    flat = np.array([row for rows in tokens for row in rows], dtype="i")
    lengths = np.array([len(rows) for rows in tokens], dtype="i")
    width = states.shape[1]
    expected = [states[row // width, row % width] for rows in tokens[start:end] for row in rows]
    ragged: Any = RaggedOnAGpu if gpu else Ragged
    state: Any = OnAGpu(states) if gpu else states
    curated = states.reshape(-1, WIDTH)[flat]
    forms: list[Any] = [
        LikeSpacyTransformers({"last_hidden_state": state}, ragged(flat, lengths)),
        LikeSpacyTransformers({"last_hidden_state": state}, ragged(flat[:, None], lengths)),
        LikeCurated(ragged(curated, lengths)),
    ]
    for form in forms:
        rows = TokenRows.of(doc_with(form, len(tokens)))
        if not expected:
            with pytest.raises(NoVector, match="no wordpiece"):
                rows.mean(start, end)
            continue
        found = rows.mean(start, end)
        assert found.dtype == np.float32
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, np.mean(np.array(expected, dtype="d"), axis=0), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"no doc\._\.trf_data"),
        ({"__transformerdata__": {}}, "of type dict"),
        (LikeSpacyTransformers({}, Ragged(np.zeros(0, "i"), np.zeros(0, "i"))), "no last_hidden_state"),
        (LikeCurated(Ragged(np.zeros((3, 2), "f"), np.ones(3, "i"))), "stands for 3 tokens and the doc has 2"),
    ],
)
def test_no_vector_says_why(data: Any, message: str) -> None:
    with pytest.raises(NoVector, match=message):
        TokenRows.of(doc_with(data, 2))


# no numbers next to nothing: a vector shorter than 1e-12 counts as none
finite = st.integers(-1000, 1000).map(lambda number: float(np.float32(number / 100)))
vectors = st.integers(1, 5).flatmap(
    lambda width: st.integers(0, 30).flatmap(
        lambda size: arrays(np.float32, (size, width), elements=finite | st.just(np.nan))
    )
)


def store_of(matrix: np.ndarray | None, size: int = 0) -> DemonstrationStore:
    size = size if matrix is None else len(matrix)
    return DemonstrationStore([Demonstration(f"text {n}", "Java", "Java", "J", -1) for n in range(size)], None, matrix)


@given(matrix=vectors)
@settings(max_examples=60)
def test_a_store_comes_back_with_its_vectors(matrix: np.ndarray) -> None:
    again = DemonstrationStore.from_dict(store_of(matrix).to_dict())
    assert again.vectors is not None
    assert again.vectors.dtype == np.float32
    assert np.array_equal(again.vectors, matrix, equal_nan=True)


def test_a_store_of_before_there_were_vectors() -> None:
    plain = store_of(None, 3).to_dict()
    assert set(plain) == {"columns", "shape", "features"}
    assert DemonstrationStore.from_dict(plain).vectors is None
    with pytest.raises(ValueError, match="2 vectors were given for 3 demonstrations"):
        DemonstrationStore(list(store_of(None, 3)), None, np.zeros((2, 4), "f"))


@given(matrix=vectors, data=st.data(), n=st.integers(1, 40), company=st.integers(0, 100))
@settings(max_examples=150)
def test_ranks_are_cosines_in_order(matrix: np.ndarray, data: st.DataObject, n: int, company: int) -> None:
    query = data.draw(arrays(np.float32, matrix.shape[1], elements=finite))
    retriever = TransformerRetriever()
    retriever.index(["Java"] * len(matrix), matrix)
    others = np.random.default_rng(company).normal(size=(company, matrix.shape[1])).astype("f")
    retriever.prepare([Query("Java", "", vector) for vector in (*others, query)], n)
    ranked = retriever.rank(Query("Java", "any", query), n)
    usable = [index for index, row in enumerate(matrix) if np.isfinite(row).all()]
    assert len(ranked) == len(set(ranked)) == min(n, len(usable))
    assert set(ranked) <= set(usable)

    def cosine(index: int) -> float:
        one, other = matrix[index].astype("d"), query.astype("d")
        return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-30))

    best = sorted((cosine(index) for index in usable), reverse=True)[:n]
    np.testing.assert_allclose([cosine(index) for index in ranked], best, atol=3e-6)
    alone = TransformerRetriever()
    alone.index(["Java"] * len(matrix), matrix)
    np.testing.assert_allclose([cosine(index) for index in alone.rank(Query("Java", "", query), n)], best, atol=3e-6)


def test_equals_stand_in_the_order_of_the_store() -> None:
    matrix = np.tile(np.random.default_rng(0).normal(size=(3, 24)).astype("f"), (40, 1))
    retriever = TransformerRetriever()
    retriever.index(["Java"] * 120, matrix)
    for row in range(3):
        ranked = retriever.rank(Query("Java", "", matrix[row] * 3), 40)
        assert ranked == list(range(row, 120, 3))


def test_without_a_vector_nothing_is_ranked() -> None:
    retriever = TransformerRetriever()
    for size, matrix in ((0, None), (0, np.zeros((0, 0), "f")), (3, None), (3, np.full((3, 2), np.nan, "f"))):
        retriever.index(["Java"] * size, matrix)
        retriever.prepare([Query("Java", "", np.ones(2, "f"))], 4)
        assert retriever.rank(Query("Java", "", np.ones(2, "f")), 4) == []
    retriever.index(["Java"], np.ones((1, 2), "f"))
    retriever.prepare([Query("Java")], 4)
    assert retriever.rank(Query("Java"), 4) == []
    assert retriever.rank(Query("Java", "", np.ones(2, "f")), 4) == [0]


def test_another_width_is_an_error_that_names_both() -> None:
    retriever = TransformerRetriever()
    retriever.index(["Java"], np.ones((1, 2), "f"))
    query = Query("Jaguar", "", np.ones(3, "f"))
    for ask in (lambda: retriever.prepare([query], 1), lambda: retriever.rank(query, 1)):
        with pytest.raises(ValueError, match="'Jaguar' a vector of width 3, the demonstrations' are of width 2"):
            ask()
