"""A frozen causal language model: embed, prefill, extend, and the loss of a name (paper sections 3.2 and 3.3)."""

import inspect
import math
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spacy_gemel.decoding.attention import attention_windows
from spacy_gemel.decoding.decoder import DecoderState, SequentialDecoder, SharedPrefixDecoder
from spacy_gemel.models.frozen import LoadedModel
from spacy_gemel.models.memory import is_out_of_memory
from spacy_gemel.models.tokenizer import NameTokenizer

UNLIMITED = 2**31 - 1
_AT_ONCE = 8192

# Frozen models are shared by pipes and threads; not one lock per model, as another process may get the model.
_CHECKING = threading.Lock()


class CausalLM(LoadedModel):
    """A Hugging Face causal language model that never changes (paper sections 3.2 and 3.3).

    name: what messages call it.
    branch_limit: the longest prompt with its name, in tokens, whose beams may be query tokens of one sequence. Longer
        ones are searched the slow way. Until windows are checked (see self_check) it ends at the shortest of them.
    longer_check: what finds out, when a prompt is first longer than branch_limit, whether longer ones may; None where
        there is nothing to find out. It returns what is wrong, or None.
    All calls but `name_loss` run without gradients; the parameters never have one.
    """

    def __init__(self, model: Any, tokenizer: NameTokenizer, *, bos: bool = False, name: str = "") -> None:
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.bos = bos
        self.name = name
        # Not hidden_size: OPT-350m's embeddings are narrower than its hidden states.
        self.embeddings = model.get_input_embeddings()
        self.width: int = self.embeddings.weight.shape[1]
        self.vocab_size: int = self.embeddings.weight.shape[0]
        # Then its layers' weights are no plain numbers; the embeddings' still are, and tell device and dtype.
        self.quantized: bool = bool(getattr(model, "is_quantized", False))
        arguments = inspect.signature(model.forward).parameters
        self._has_logits_to_keep = "logits_to_keep" in arguments
        # transformers 5.24 renamed it; models with code of their own may keep the old name.
        self.cache_argument = "cache" if "cache" in arguments else "past_key_values"
        self.config = model.config.get_text_config()
        self.reach = attention_windows(model)
        self.branch_limit: int = min(self.longest_shared_prefix, self.reach.shortest or UNLIMITED)
        self.longer_check: Callable[[], str | None] | None = None
        self._said_slow = False

    @property
    def device(self) -> torch.device:
        """Where the parameters lie; where the embeddings do, if others are quantized."""
        return self.embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' type, quantized ones left out."""
        return self.embeddings.weight.dtype

    @property
    def max_length(self) -> int:
        """Tokens that prompt and name may have together. A sliding window is no limit."""
        return getattr(self.config, "max_position_embeddings", None) or UNLIMITED

    @property
    def longest_shared_prefix(self) -> int:
        """What branch_limit can be at most: beyond it positions depend on the length of what is read."""
        return min(self.max_length, self.reach.same_positions or UNLIMITED)

    @property
    def embedding_size(self) -> float:
        """Root mean square of the elements of the token embeddings, as `embed` gives them.

        Not of their weights, which some models scale when they look them up (Gemma, by the root of the width).
        """
        total = 0.0
        for start in range(0, self.vocab_size, _AT_ONCE):
            ids = range(start, min(start + _AT_ONCE, self.vocab_size))
            total += float(self.embed(ids).float().square().sum())
        return math.sqrt(total / (self.vocab_size * self.width))

    def embed(self, ids: Sequence[int]) -> Tensor:
        """The embeddings of some token ids, (tokens, width)."""
        with torch.no_grad():
            return self.embeddings(torch.tensor(list(ids), dtype=torch.long, device=self.device))

    def can_share_prefix(self, prompt: int, tokens: int, beams: int) -> bool:
        """Whether a prompt of so many tokens need not be searched the slow way.

        beams, tokens: at most so many beams will be extended, by at most so many tokens each.
        Runs the check that was put off, if this is the first to need it; warns once of the slow way.
        """
        if self.reach.indices is not None and prompt + beams * tokens > self.reach.indices:
            self._warn_slow(f"prompts that take more than {self.reach.indices} places with their beams are")
            return False
        whole = prompt + tokens
        problem = None
        if whole > self.branch_limit and self.longer_check is not None:
            with _CHECKING:
                problem = self._check_longer()
        if whole <= self.branch_limit:
            return True
        self._warn_slow(f"prompts of more than {self.branch_limit} tokens with their names are", problem)
        return False

    def _check_longer(self) -> str | None:
        """Whether prompts beyond branch_limit may be searched the fast way too: None, or what is wrong."""
        check, self.longer_check = self.longer_check, None
        if check is None:  # another thread has run it
            return None
        try:
            problem = check()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            problem = "there is not enough memory to check the fast way"
        if problem is None:
            self.branch_limit = self.longest_shared_prefix
        return problem

    def never_shares_prefix(self, problem: str) -> None:
        """Search everything the slow way from now on, and say so in a warning."""
        self.branch_limit, self.longer_check = 0, None
        self._warn_slow("all prompts are", problem, "Llama, OPT, GPT-2, Mistral, Qwen and Gemma need no such passes")

    def _warn_slow(self, what: str, problem: str | None = None, remedy: str = "Show fewer demonstrations") -> None:
        if self._said_slow:
            return
        self._said_slow = True
        warnings.warn(
            f"The language model {self.name!r}: {what} searched the slow way, with a plain forward pass per beam and "
            f"step{f' ({problem})' if problem else ''}. The answers are the same. {remedy}.",
            stacklevel=4,
        )

    def prefill(self, prompts: Sequence[Tensor], *, beams: int, tokens: int) -> DecoderState:
        """Read embedded prompts, each (tokens, width), once; what follows is appended to the result.

        beams, tokens: at most so many beams will be extended, by at most so many tokens each.
        """
        if self.can_share_prefix(max(len(prompt) for prompt in prompts), tokens, beams):
            return SharedPrefixDecoder(self, prompts, room=beams * tokens)
        return SequentialDecoder(self, prompts)

    def name_loss(self, prompts: Sequence[Tensor], names: Sequence[Sequence[int]]) -> Tensor:
        """Teacher forcing: mean cross-entropy over each name's tokens and its end, (mentions,).

        prompts: embedded prompts, (tokens, width) each, that may require a gradient.
        names: token ids of each name, the end included. Nothing else carries a label (paper eq. 4).
        """
        sequences = [
            torch.cat([prompt.to(self.dtype), self.embed(name[:-1])])
            for prompt, name in zip(prompts, names, strict=True)
        ]
        padded = pad_sequence(sequences, batch_first=True)
        # The position before a token predicts it.
        rows = [torch.arange(len(p) - 1, len(p) - 1 + len(n)) for p, n in zip(prompts, names, strict=True)]
        keep = torch.unique(torch.cat(rows)).to(self.device)
        logits = self.forward(padded, keep, use_cache=False)
        losses = []
        for index, (row, name) in enumerate(zip(rows, names, strict=True)):
            picked = logits[index, torch.searchsorted(keep, row.to(self.device))]  # (name tokens, vocab)
            labels = torch.tensor(list(name), device=self.device)
            losses.append(torch.nn.functional.cross_entropy(picked.float(), labels))
        return torch.stack(losses)

    def forward(self, embeddings: Tensor, keep: Tensor, **options: Any) -> Tensor:
        """A plain forward pass; the logits at the positions `keep` alone, (sequences, len(keep), vocab)."""
        if self._has_logits_to_keep:
            return self.model(inputs_embeds=embeddings, logits_to_keep=keep, **options).logits
        return self.model(inputs_embeds=embeddings, **options).logits[:, keep]
