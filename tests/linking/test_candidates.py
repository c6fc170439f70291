"""From names to candidates, and from candidates to the answer."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_gemel.linking.candidates import Answer, Candidate, Options, ScoredName, answer_id, to_candidates
from spacy_gemel.linking.mention import Mention
from tests.names import scored


def test_ties_are_decided_by_order_alone() -> None:
    """Equal scores: the name that the search gave first; in a name: the entity that the knowledge base has first."""
    candidates = to_candidates([scored("n", -1.0, ("a", 3), ("b", 3)), scored("m", -1.0, ("c", 5), ("d", 1))])
    assert [(c.kb_id, c.probability) for c in candidates] == [
        ("a", 0.25),
        ("b", 0.25),
        ("c", pytest.approx(5 / 12)),
        ("d", pytest.approx(1 / 12)),
    ]
    assert answer_id(Answer(candidates), None) == answer_id(Answer(candidates), 0.25) == "a"
    assert answer_id(Answer(candidates), 0.2500001) == "NIL", "the best candidate decides, likelier ones below or not"


def test_nil_where_it_is_more_probable() -> None:
    [best] = [Candidate("a", "A", -1.0, 0.4)]
    assert answer_id(Answer([best], nil=0.4), None) == "a", "of equals the entity"
    assert answer_id(Answer([best], nil=0.4000001), None) == "NIL"
    assert answer_id(Answer([best], nil=0.1), 0.5) == "NIL", "the threshold counts beside it"
    assert answer_id(Answer((), nil=0.0), None) == "NIL"


def test_bearers_are_ranked_by_their_share() -> None:
    def last_first(name: ScoredName) -> Sequence[float]:
        return [0.1, 0.2, 0.7]

    found = [scored("n", -1.0, ("a", 9), ("b", 3), ("c", 1)), scored("only", -1.0, ("d", 0))]
    candidates = to_candidates(found, last_first)
    assert [c.kb_id for c in candidates] == ["c", "b", "a", "d"]
    assert [c.probability for c in candidates] == pytest.approx([0.35, 0.1, 0.05, 0.5])


@given(
    st.lists(st.tuples(st.floats(-20, 0), st.lists(st.integers(0, 50), min_size=1, max_size=3)), min_size=1, max_size=5)
)
def test_probabilities_add_up_by_name_and_over_all(drawn: list[tuple[float, list[int]]]) -> None:
    names = [
        scored(f"n{index}", score, *((f"n{index}e{n}", count) for n, count in enumerate(counts)))
        for index, (score, counts) in enumerate(drawn)
    ]
    candidates = to_candidates(names)
    assert sum(c.probability for c in candidates) == pytest.approx(1)
    shares = {name.name: sum(c.probability for c in candidates if c.name == name.name) for name in names}
    for one in names:
        for other in names:  # the softmax: only the difference of two scores counts
            if shares[one.name] > 1e-6 and shares[other.name] > 1e-6:
                ratio = shares[one.name] / shares[other.name]
                assert ratio == pytest.approx(2.718281828459045 ** (one.score - other.score))


def test_the_distinct_names_of_options() -> None:
    first, second = scored("n", -1.0, ("a", 3), ("b", 3)), scored("m", -2.0, ("c", 5))
    mention = Mention(0, 0, 1, "n", "n", None)
    options = Options(mention, [*first.entities, *second.entities], [0, 1, 2], [first, first, second])
    assert options.distinct_names == [first, second]
