"""Batches under a budget of tokens, and what happens where memory runs out."""

import warnings
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spacy_gemel.models.memory import TokenBudget, is_out_of_memory

lengths_of = st.lists(st.integers(1, 50), max_size=20).map(lambda lengths: dict(enumerate(lengths)))


class Machine:
    """Does work on batches of at most `holds` tokens, padding counted."""

    def __init__(self, lengths: dict[int, int], holds: int) -> None:
        self.lengths = lengths
        self.holds = holds
        self.done: list[list[int]] = []

    def work(self, batch: Sequence[int]) -> None:
        if self.padded(batch) > self.holds:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
        self.done.append(list(batch))

    def padded(self, batch: Sequence[int]) -> int:
        return len(batch) * max(self.lengths[index] for index in batch)


@given(lengths_of, st.integers(1, 200))
def test_batches_of_like_length_within_the_budget(lengths: dict[int, int], allowed: int) -> None:
    machine = Machine(lengths, 10**9)
    assert TokenBudget().run(lengths, allowed, machine.work) == []
    order = [index for batch in machine.done for index in batch]
    assert sorted(order) == list(lengths)
    assert [lengths[index] for index in order] == sorted(lengths.values(), reverse=True)
    assert all(machine.padded(batch) <= allowed or len(batch) == 1 for batch in machine.done)


@given(lengths_of, st.integers(1, 200), st.integers(1, 60))
def test_whatever_fits_is_done_once_and_the_rest_is_named(lengths: dict[int, int], allowed: int, holds: int) -> None:
    machine = Machine(lengths, holds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        failed = TokenBudget().run(lengths, allowed, machine.work)
    assert sorted(index for batch in machine.done for index in batch) == [p for p in lengths if lengths[p] <= holds]
    assert sorted(index for index, _ in failed) == [index for index in lengths if lengths[index] > holds]
    assert all(problem == "CUDA out of memory. Tried to allocate 2 GiB" for _, problem in failed)


def test_the_budget_is_halved_for_good_and_said() -> None:
    budget = TokenBudget()
    machine = Machine(dict.fromkeys(range(8), 10), 45)
    with pytest.warns(UserWarning, match=r"ran out with 80 tokens at once; continuing with at most 40.*= 40"):
        budget.run(machine.lengths, 1000, machine.work)
    assert [len(batch) for batch in machine.done] == [4, 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        budget.run(machine.lengths, 1000, machine.work)
    machine.done.clear()
    budget.run(machine.lengths, 20, machine.work)  # the caller may ask for less
    assert [len(batch) for batch in machine.done] == [2, 2, 2, 2]


def test_what_says_that_memory_ran_out() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(10**15)
    assert is_out_of_memory(real.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("not enough memory"))


def test_another_error_is_raised() -> None:
    def work(batch: Sequence[int]) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        TokenBudget().run({0: 1}, 10, work)
