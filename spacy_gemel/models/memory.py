"""Prompts through the language model batch by batch, under a budget of tokens that memory may lower."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import torch

# What torch says where it raises no class of its own: on a CPU, on Apple's GPUs, and of the GPU memory that CUDA's own
# libraries want.
_MESSAGES = ("out of memory", "not enough memory", "DefaultCPUAllocator", "_STATUS_ALLOC_FAILED")


class TokenBudget:
    """How many tokens, padding counted, go through the language model at once.

    It starts at what the caller allows and is halved, for good, where memory runs out.
    """

    def __init__(self) -> None:
        self.most: int | None = None

    def run(
        self, lengths: Mapping[int, int], allowed: int, work: Callable[[Sequence[int]], None]
    ) -> list[tuple[int, str]]:
        """Do the work on all prompts, those of like length together; those that do not fit even alone, with why not.

        lengths: tokens that each prompt holds, by its place. allowed: tokens of a batch, padding counted; a longer one
        goes alone. work: gets the places of a batch, and may be called again with some of them after memory ran out.
        """
        waiting = sorted(lengths, key=lambda index: (-lengths[index], index))
        too_large: list[tuple[int, str]] = []
        while waiting:
            # All are padded to the first, the longest.
            fitting = max(1, self._tokens(allowed) // max(1, lengths[waiting[0]]))
            batch = waiting[:fitting]
            problem = _attempt(work, batch)
            if problem is None:
                waiting = waiting[len(batch) :]
            elif len(batch) == 1:
                too_large.append((batch[0], problem))
                waiting = waiting[1:]
            else:
                self.most = len(batch) * lengths[batch[0]] // 2
                warnings.warn(
                    f"gemel_linker: memory ran out with {len(batch) * lengths[batch[0]]} tokens at once; going "
                    f"on with at most {self.most}. Set batch_tokens = {self.most} in the config to start so.",
                    stacklevel=3,
                )
        return too_large

    def _tokens(self, allowed: int) -> int:
        return allowed if self.most is None else min(allowed, self.most)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or not."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def _attempt(work: Callable[[Sequence[int]], None], batch: Sequence[int]) -> str | None:
    """None if the work was done; what was said where memory ran out. Other errors are raised."""
    try:
        work(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        problem = (str(error).strip() or type(error).__name__).splitlines()[0]
    else:
        return None
    # Only here is the error gone, and with it the frames that held the tensors.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return problem
