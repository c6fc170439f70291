"""Names as tokens: which names the trie takes, and a store of tokenised batches for interrupted builds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.batch_store import BatchStore
from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.jsonl import RowProblem, short_repr
from spacy_gemel.kb.trie import TokenArray, token_dtype

_STORE_VERSION = 4


class TokenizerLike(Protocol):
    """What a build needs of a tokenizer; ``spacy_gemel.models.tokenizer`` has the real one."""

    @property
    def fingerprint(self) -> str:
        """Equal for two tokenizers only if they give every name the same tokens."""

    @property
    def vocab_size(self) -> int:
        """Greater than every token id."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Special tokens and the unknown token: no name may contain them."""

    @property
    def leading_space(self) -> bool:
        """Whether ``encode`` puts a space before each name."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each name as the language model writes it, without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""


@dataclass(frozen=True, slots=True)
class TokenisedNames:
    """The names of a batch of entities as tokens; n of them can enter the trie.

    Attributes:
        tokens: (sum of lengths,) uint16 or uint32, see ``token_dtype``: the tokens of all names in a row.
        lengths: (n,) uint8, tokens per name.
        indices: (n,) int32, the entity in the batch that each name belongs to, ascending.
        problems: index and problem of every other name.
    """

    tokens: TokenArray
    lengths: NDArray[np.uint8]
    indices: NDArray[np.int32]
    problems: tuple[tuple[int, RowProblem], ...]


def tokenise_names(names: Sequence[str], tokenizer: TokenizerLike, max_tokens: int) -> TokenisedNames:
    """Tokenise names; a name that cannot enter the trie becomes a problem.

    Raises:
        KBError: if the tokenizer does not give one result per name.
    """
    encoded = tokenizer.encode(names) if names else []
    if len(encoded) != len(names):
        raise KBError(f"The tokenizer gave {len(encoded)} results for {len(names)} names")
    special, vocab_size = tokenizer.special_ids, tokenizer.vocab_size
    tokens: list[int] = []
    lengths: list[int] = []
    indices: list[int] = []
    problems: list[tuple[int, RowProblem]] = []
    for index, (name, ids) in enumerate(zip(names, encoded, strict=True)):
        if not name:
            problem = RowProblem("empty_name", "the name is empty")
        elif len(name.splitlines()) > 1:  # a newline may be what ends a name
            problem = RowProblem("line_break", f"name {short_repr(name)} has a line break")
        elif not ids:
            problem = RowProblem("not_reversible", f"name {short_repr(name)} has no tokens")
        elif not special.isdisjoint(ids) or min(ids) < 0 or max(ids) >= vocab_size:
            problem = RowProblem("special_token", f"name {short_repr(name)} has a special or unknown token")
        elif len(ids) > max_tokens:
            message = f"name {short_repr(name)} has {len(ids)} tokens, the limit is {max_tokens}"
            problem = RowProblem("too_long", message)
        # the tokenizer itself may add one leading space
        elif name not in ((decoded := tokenizer.decode(ids)), decoded.removeprefix(" ")):
            message = f"name {short_repr(name)} comes back as {short_repr(decoded)}"
            problem = RowProblem("not_reversible", message)
        else:
            tokens.extend(ids)
            lengths.append(len(ids))
            indices.append(index)
            continue
        problems.append((index, problem))
    flat = np.array(tokens, dtype=token_dtype(vocab_size))
    return TokenisedNames(flat, np.array(lengths, np.uint8), np.array(indices, np.int32), tuple(problems))


class TokenStore:
    """Tokenised batches on disk, so that a build can resume. Raises OSError."""

    def __init__(self, work: Path, input_sha256: str, tokenizer: TokenizerLike, max_tokens: int, rows: int) -> None:
        settings = [_STORE_VERSION, input_sha256, tokenizer.fingerprint, tokenizer.vocab_size, tokenizer.leading_space]
        settings += [sorted(tokenizer.special_ids), max_tokens, rows]
        self._store = BatchStore(work, "tokens", settings)
        self._dtype = token_dtype(tokenizer.vocab_size)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._store)

    def write(self, index: int, names: Sequence[str], batch: TokenisedNames) -> None:
        """Store the tokens of `names`, whole or not at all. Raises OSError."""
        problems = [[number, problem.reason, problem.message] for number, problem in batch.problems]
        text = np.frombuffer(json.dumps(problems).encode("ascii"), dtype=np.uint8)
        arrays = {"tokens": batch.tokens, "lengths": batch.lengths, "indices": batch.indices, "problems": text}
        self._store.write(index, names, arrays)

    def read(self, index: int, names: Sequence[str]) -> TokenisedNames | None:
        """The tokens of `names`; None if they are missing, of other names, or damaged."""
        arrays = self._store.read(index, names)
        if arrays is None:
            return None
        rows = json.loads(arrays["problems"].tobytes())
        problems = tuple((row, RowProblem(*problem)) for row, *problem in rows)
        batch = TokenisedNames(arrays["tokens"], arrays["lengths"], arrays["indices"], problems)
        n_names = len(names) - len(batch.problems)
        sizes = (len(batch.lengths), len(batch.indices), int(batch.lengths.sum()))
        return batch if (batch.tokens.dtype, *sizes) == (self._dtype, n_names, n_names, len(batch.tokens)) else None
