"""Finished batches of tokenised names on disk, so that a build that was interrupted need not tokenise them again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spacy_gemel.kb.jsonl import RowProblem
from spacy_gemel.kb.name_tokens import NameTokenizer, TokenisedNames
from spacy_gemel.kb.trie import token_dtype
from spacy_gemel.utils.files import write_whole

_FORMAT = 2


class TokenStore:
    """One .npz file per batch, in a folder of ``work`` named after all that decides the batches' content.

    Each file also names the texts it was made from: the input may have been another for a while, and be itself again.
    Opening removes what builds of another input, tokenizer or settings have left in ``work``; raises OSError.
    """

    def __init__(self, work: Path, input_sha256: str, tokenizer: NameTokenizer, max_tokens: int, rows: int) -> None:
        decides = [_FORMAT, input_sha256, tokenizer.fingerprint, tokenizer.vocab_size, tokenizer.leading_space]
        decides += [sorted(tokenizer.special_ids), max_tokens, rows]
        key = hashlib.sha256(json.dumps(decides).encode("ascii")).hexdigest()
        self.folder = work / f"tokens-{key[:32]}"
        self._dtype = token_dtype(tokenizer.vocab_size)
        for other in work.glob("tokens-*"):
            if other != self.folder:
                shutil.rmtree(other)

    def found(self) -> int:
        """Number of batches that are there."""
        return sum(1 for _ in self.folder.glob("*.npz"))

    def write(self, index: int, names: Sequence[str], batch: TokenisedNames) -> None:
        """Keep what ``names`` became, whole or not at all. Raises OSError."""
        problems = [[place, problem.reason, problem.message] for place, problem in batch.problems]
        text = np.frombuffer(json.dumps(problems).encode("ascii"), dtype=np.uint8)
        of = _digest(names)
        with write_whole(self._path(index)) as partial, partial.open("wb") as file:
            np.savez(file, names=of, tokens=batch.tokens, lengths=batch.lengths, indices=batch.indices, problems=text)

    def read(self, index: int, names: Sequence[str]) -> TokenisedNames | None:
        """What ``names`` became; None where it is missing, of other names, or damaged, which zip's checksums tell."""
        try:
            with np.load(self._path(index), allow_pickle=False) as file:
                if not np.array_equal(file["names"], _digest(names)):
                    return None
                batch = TokenisedNames(
                    file["tokens"],
                    file["lengths"],
                    file["places"],
                    tuple(
                        (place, RowProblem(reason, message))
                        for place, reason, message in json.loads(file["problems"].tobytes())
                    ),
                )
        except Exception:  # damaged bytes make zip's and numpy's parsers raise this and that
            return None
        fits = (
            batch.tokens.dtype == self._dtype
            and len(batch.lengths) == len(batch.indices) == len(names) - len(batch.problems)
            and int(batch.lengths.sum()) == len(batch.tokens)
        )
        return batch if fits else None

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:08d}.npz"


def _digest(names: Sequence[str]) -> NDArray[np.uint8]:
    """A digest (32,) of some texts, their order and where each ends."""
    texts = [name.encode("utf-8") for name in names]
    lengths = np.array([len(text) for text in texts], dtype="<i8")
    return np.frombuffer(hashlib.sha256(lengths.tobytes() + b"".join(texts)).digest(), dtype=np.uint8)
