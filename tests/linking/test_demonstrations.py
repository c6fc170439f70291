"""Which of the demonstrations that are equally near are shown."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from spacy.language import Language

from spacy_gemel.linking.demonstrations import NO_IMAGE, Demonstration, DemonstrationStore, order_by_picture
from spacy_gemel.linking.retrievers import Query

ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(NO_IMAGE, 5)), min_size=1, max_size=12)


def make_store(rows: list[tuple[str, int]], seed: int) -> DemonstrationStore:
    features = np.random.default_rng(seed).normal(size=(6, 4)).astype("f")
    return DemonstrationStore([Demonstration("", "bat", kb_id, kb_id, image) for kb_id, image in rows], features)


@given(rows=ROWS, seed=st.integers(0, 9))
def test_the_most_similar_picture_comes_first(rows: list[tuple[str, int]], seed: int) -> None:
    store = make_store(rows, seed)
    query = np.random.default_rng(seed + 100).normal(size=4).astype("f")
    order = order_by_picture(store, range(len(rows)), query)
    assert sorted(order) == [*range(len(rows))]
    deviation = store.features.std(0) + 1e-6
    asked = (query - store.features.mean(0)) / deviation

    def key(index: int) -> tuple[bool, float, int]:
        row = (store.features[rows[index][1]] - store.features.mean(0)) / deviation
        cosine = float(row @ asked / np.linalg.norm(row) / np.linalg.norm(asked))
        return rows[index][1] == NO_IMAGE, 0.0 if rows[index][1] == NO_IMAGE else -round(cosine, 4), index

    assert order == sorted(order, key=key)


def test_a_store_without_pictures() -> None:
    store = DemonstrationStore([Demonstration("", "bat", kb_id, kb_id) for kb_id in "aab"])
    assert order_by_picture(store, [0, 1, 2], np.ones(4, "f")) == [0, 1, 2]


def test_a_linker_orders_the_demonstrations_of_one_mention(trained: Language) -> None:
    pipe = trained.get_pipe("gemel_linker")
    index = next(index for index, row in enumerate(pipe.store) if row.mention == "Mercury" and row.image != NO_IMAGE)
    query = Query("Mercury", "A text.", features=pipe.store.features_of(pipe.store[index]))

    def ranked(ties: str) -> list[int]:
        return pipe.linking_model.rank_demonstrations(query, pipe.settings.replace(ties=ties))

    assert np.array_equal(pipe.store.features_of(pipe.store[ranked("picture")[0]]), query.features)
    assert {pipe.store[index].mention for index in ranked("picture")} == {"Mercury"}
    assert ranked("order") == [index for index, row in enumerate(pipe.store) if row.mention == "Mercury"][:3]
