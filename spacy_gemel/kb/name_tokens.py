"""Names to tokens: what the trie takes, and why it does not take the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.errors import KBError
from spacy_gemel.kb.jsonl import RowProblem, shown
from spacy_gemel.kb.trie import TokenArray, token_dtype


class NameTokenizer(Protocol):
    """What the builder needs of a tokenizer; ``spacy_gemel.models.tokenizer`` has the real one."""

    @property
    def fingerprint(self) -> str:
        """The same for two tokenizers only if they give every name the same tokens."""

    @property
    def vocab_size(self) -> int:
        """Every token id lies below."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Special tokens and the unknown token: none may stand in a name."""

    @property
    def leading_space(self) -> bool:
        """Whether ``encode`` puts a space before each name."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each name just as the language model is to write it, without special tokens."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""


@dataclass(frozen=True, slots=True)
class TokenisedNames:
    """The names of a batch of entities as tokens; n of them can enter the trie.

    tokens    (sum of lengths,) uint16 or uint32, as ``token_dtype`` says: the names' tokens, one after the other
    lengths   (n,) uint8
    places    (n,) int32: which entity of the batch each name belongs to, ascending
    problems  place and problem of every other name
    """

    tokens: TokenArray
    lengths: NDArray[np.uint8]
    indices: NDArray[np.int32]
    problems: tuple[tuple[int, RowProblem], ...]


def tokenise_names(names: Sequence[str], tokenizer: NameTokenizer, max_tokens: int) -> TokenisedNames:
    """Token ids of each name, or why the name cannot enter the trie.

    Raises KBError if the tokenizer does not answer for each name.
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
        problem = _problem(name, ids, special, vocab_size, max_tokens)
        if problem is None and not _same(decoded := tokenizer.decode(ids), name):
            problem = RowProblem("not_reversible", f"name {shown(name)} comes back as {shown(decoded)}")
        if problem is not None:
            problems.append((index, problem))
            continue
        tokens.extend(ids)
        lengths.append(len(ids))
        indices.append(index)
    return TokenisedNames(
        np.array(tokens, dtype=token_dtype(vocab_size)),
        np.array(lengths, dtype=np.uint8),
        np.array(indices, dtype=np.int32),
        tuple(problems),
    )


def _problem(
    name: str, ids: Sequence[int], special: frozenset[int], vocab_size: int, max_tokens: int
) -> RowProblem | None:
    if not name:
        return RowProblem("empty_name", "the name is empty")
    if len(name.splitlines()) > 1:
        # a newline may be what ends a name
        return RowProblem("line_break", f"name {shown(name)} has a line break")
    if not ids:
        return RowProblem("not_reversible", f"name {shown(name)} has no tokens")
    if not special.isdisjoint(ids) or min(ids) < 0 or max(ids) >= vocab_size:
        return RowProblem("special_token", f"name {shown(name)} has a special or unknown token")
    if len(ids) > max_tokens:
        return RowProblem("too_long", f"name {shown(name)} has {len(ids)} tokens, the limit is {max_tokens}")
    return None


def _same(decoded: str, name: str) -> bool:
    """Whether decoding gave the name back; one leading space is the tokenizer's own."""
    return decoded == name or decoded.removeprefix(" ") == name
