"""Which of the demonstrations that are equally near are shown."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from spacy.language import Language

from spacy_gemel.linking.demonstrations import NO_IMAGE, Demonstration, DemonstrationStore, order_ties
from spacy_gemel.linking.retrievers import Query

ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(NO_IMAGE, 5)), min_size=1, max_size=12)


def make_store(rows: list[tuple[str, int]], seed: int) -> DemonstrationStore:
    features = np.random.default_rng(seed).normal(size=(6, 4)).astype("f")
    return DemonstrationStore([Demonstration("", "bat", kb_id, kb_id, image) for kb_id, image in rows], features)


@given(rows=ROWS, seed=st.integers(0, 9))
def test_the_most_similar_picture_comes_first(rows: list[tuple[str, int]], seed: int) -> None:
    store = make_store(rows, seed)
    query = np.random.default_rng(seed + 100).normal(size=4).astype("f")
    order = order_ties(store, range(len(rows)), "picture", query)
    assert sorted(order) == [*range(len(rows))]
    deviation = store.features.std(0) + 1e-6
    asked = (query - store.features.mean(0)) / deviation

    def key(index: int) -> tuple[bool, float, int]:
        row = (store.features[rows[index][1]] - store.features.mean(0)) / deviation
        cosine = float(row @ asked / np.linalg.norm(row) / np.linalg.norm(asked))
        return rows[index][1] == NO_IMAGE, 0.0 if rows[index][1] == NO_IMAGE else -round(cosine, 4), index

    assert order == sorted(order, key=key)


@given(rows=ROWS)
def test_the_readings_stand_side_by_side(rows: list[tuple[str, int]]) -> None:
    order = order_ties(make_store(rows, 0), range(len(rows)), "contrast", None)
    left, expected = [*range(len(rows))], []
    while left:  # a round: the first that is left of each entity
        first = {rows[index][0]: index for index in reversed(left)}
        expected += sorted(first.values())
        left = [index for index in left if index not in first.values()]
    assert order == expected


def test_a_store_without_pictures() -> None:
    store = DemonstrationStore([Demonstration("", "bat", kb_id, kb_id) for kb_id in "aab"])
    assert order_ties(store, [0, 1, 2], "picture", np.ones(4, "f")) == [0, 1, 2]
    assert order_ties(store, [0, 1, 2], "contrast", np.ones(4, "f")) == [0, 2, 1]


def test_a_linker_orders_the_demonstrations_of_one_mention(trained: Language) -> None:
    """Three readings of one mention have six demonstrations each, of which three are shown."""
    pipe = trained.get_pipe("gemel_linker")
    index = next(index for index, row in enumerate(pipe.store) if row.mention == "Mercury" and row.image != NO_IMAGE)
    query = Query("Mercury", "A text.", features=pipe.store.features_of(pipe.store[index]))

    def ranked(ties: str) -> list[int]:
        return pipe.linking_model.rank_demonstrations(query, pipe.settings.replace(ties=ties))

    assert np.array_equal(pipe.store.features_of(pipe.store[ranked("picture")[0]]), query.features)
    assert len({pipe.store[index].kb_id for index in ranked("contrast")}) == 3
    assert ranked("order") == [index for index, row in enumerate(pipe.store) if row.mention == "Mercury"][:3]
