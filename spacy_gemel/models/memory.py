"""Prompts through the language model batch by batch, within a budget of tokens that is lowered if memory runs out."""

from collections.abc import Callable, Mapping, Sequence

import torch

from spacy_gemel.utils.messages import ModelWarning, first_line, warn

# From torch where it raises no class of its own: on a CPU, on Apple's GPUs, and from CUDA's own libraries.
_MESSAGES = ("out of memory", "not enough memory", "DefaultCPUAllocator", "_STATUS_ALLOC_FAILED")


class TokenBudget:
    """How many tokens, with padding, go through the language model at once; halved for good if memory runs out."""

    def __init__(self) -> None:
        self.limit: int | None = None

    def run(
        self, lengths: Mapping[int, int], allowed: int, work: Callable[[Sequence[int]], None]
    ) -> list[tuple[int, str]]:
        """Process all prompts, batched by length; returns those that do not fit even alone: (index, reason).

        `lengths` are their tokens by index, `allowed` the tokens per batch with padding (a longer prompt gets a batch
        of its own). `work` is called with the indices of a batch; after memory ran out, again with some of them.
        """
        remaining = sorted(lengths, key=lambda index: (-lengths[index], index))
        too_large: list[tuple[int, str]] = []
        while remaining:
            tokens = allowed if self.limit is None else min(allowed, self.limit)
            # All are padded to the first, the longest.
            batch = remaining[: max(1, tokens // max(1, lengths[remaining[0]]))]
            problem = _attempt(work, batch)
            if problem is None:
                remaining = remaining[len(batch) :]
            elif len(batch) == 1:
                too_large.append((batch[0], problem))
                remaining = remaining[1:]
            else:
                used = len(batch) * lengths[batch[0]]
                self.limit = used // 2
                warn(
                    f"gemel_linker: memory ran out with {used} tokens at once; continuing with at most {self.limit}. "
                    f"Set batch_tokens = {self.limit} in the config to start with that.",
                    ModelWarning,
                )
        return too_large


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or a CPU."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def _attempt(work: Callable[[Sequence[int]], None], batch: Sequence[int]) -> str | None:
    """Do the work; returns the error's first line if memory ran out. Other errors are raised."""
    try:
        work(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        problem = first_line(error)
    else:
        return None
    # Outside the except block the error is gone, and with it the frames that held the tensors.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return problem
