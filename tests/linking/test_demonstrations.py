"""Which of the demonstrations that are equally near are shown."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from spacy.language import Language

from spacy_gemel.linking.demonstrations import NO_IMAGE, Demonstration, DemonstrationStore, contrast
from spacy_gemel.linking.retrievers import Query

ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(NO_IMAGE, 5)), min_size=1, max_size=12)


def make_store(rows: list[tuple[str, int]], seed: int) -> DemonstrationStore:
    features = np.random.default_rng(seed).normal(size=(6, 4)).astype("f")
    return DemonstrationStore([Demonstration("", "bat", kb_id, kb_id, image) for kb_id, image in rows], features)


@given(rows=ROWS, seed=st.integers(0, 9), with_query=st.booleans())
def test_readings_stand_side_by_side_the_most_similar_picture_first(
    rows: list[tuple[str, int]], seed: int, with_query: bool
) -> None:
    store = make_store(rows, seed)
    query = np.random.default_rng(seed + 100).normal(size=4).astype("f")
    order = contrast(store, range(len(rows)), query if with_query else None)

    standardised = (store.features - store.features.mean(0)) / (store.features.std(0) + 1e-6)
    asked = (query - store.features.mean(0)) / (store.features.std(0) + 1e-6)

    def distance(index: int) -> float:
        if not with_query:
            return 0.0
        if rows[index][1] == NO_IMAGE:
            return 1.0
        row = standardised[rows[index][1]]
        return -float(np.round(row @ asked / np.linalg.norm(row) / np.linalg.norm(asked), 4))

    expected: list[int] = []
    while len(expected) < len(rows):  # a round: the nearest that is left of each entity, the nearest entity first
        nearest: dict[str, int] = {}
        for index in sorted(set(range(len(rows))) - {*expected}, key=lambda index: (distance(index), index)):
            nearest.setdefault(rows[index][0], index)
        expected += nearest.values()
    assert order == expected


def test_a_store_without_pictures() -> None:
    store = DemonstrationStore([Demonstration("", "bat", kb_id, kb_id) for kb_id in "aab"])
    assert contrast(store, [0, 1, 2], np.ones(4, "f")) == [0, 2, 1]


def test_the_mentions_own_readings_come_first(trained: Language) -> None:
    """Three readings of one mention have six demonstrations each: three that are shown are of three readings."""
    pipe = trained.get_pipe("gemel_linker")
    query = Query("Mercury", "A text.", features=pipe.store.features[7])
    ranked = [pipe.store[index] for index in pipe.linking_model.rank_demonstrations(query, pipe.settings)]
    assert len({demonstration.kb_id for demonstration in ranked}) == len(ranked) == 3
    assert ranked[0] == pipe.store[7]  # the query's own picture
