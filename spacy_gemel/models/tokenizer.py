"""The tokenizer of a causal language model, as this package uses it: a document's text never gives special tokens."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

from spacy_gemel.models.frozen import NO_REMOTE_CODE, loading
from spacy_gemel.models.gguf import check_gguf, source_arguments

NameEnd = Literal["newline", "eos"]

# Strings whose ids tell tokenizers with one vocabulary and different rules apart.
_PROBES = ("Mercury (planet)", "São Tomé", "北京市", "A  b\n\tc", "'s-Hertogenbosch", "1,234.5%", "🌍", "</s>")


class NameTokenizer:
    """Turns texts and names into token ids with a Hugging Face tokenizer."""

    leading_space = False  # for the knowledge base: `encode` puts no space before a text

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.vocab_size: int = len(tokenizer)
        self.special_ids: frozenset[int] = frozenset(tokenizer.all_special_ids)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without BOS or EOS; "</s>" in a text is encoded as letters."""
        if not texts:
            return []
        # both are unused, and millions of names take a quarter less time without
        unused = {"return_attention_mask": False, "return_token_type_ids": False}
        encoded = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, **unused)
        return [list(ids) for ids in encoded["input_ids"]]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, without the one space that SentencePiece puts in front."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text.removeprefix(" ")

    def end_id(self, name_end: NameEnd) -> int:
        """EOS (the paper's), or the newline that ends a demonstration. Raises ValueError if it is no single token."""
        if name_end == "eos":
            if self.tokenizer.eos_token_id is None:
                message = 'tokenizer has no EOS token: set name_end = "newline" in the config.'
                raise ValueError(f"The language model's {message}")
            return int(self.tokenizer.eos_token_id)
        # After a name, because SentencePiece puts a "▁" before a lone newline.
        names = ("x", "x (y)", "x.", 'x"', "x 1")
        pairs = [self.encode([name + "\n", name]) for name in names]
        ends = {with_end[-1] for with_end, _ in pairs}
        if len(ends) > 1 or any(with_end[:-1] != without for with_end, without in pairs):
            merged = "tokenizer merges the newline after a name with the character before it"
            raise ValueError(f'The language model\'s {merged}: set name_end = "eos" in the config.')
        return ends.pop()

    @property
    def fingerprint(self) -> str:
        """A hash that two tokenizers share only if they give the same ids; the same in all transformers versions."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
        content = json.dumps([vocabulary, self.encode(_PROBES), self.leading_space], ensure_ascii=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()


def load_tokenizer(name: str, revision: str | None = None) -> NameTokenizer:
    """The tokenizer of a model on the Hugging Face hub, in a local folder or a GGUF file.

    Raises ValueError if there is none, or if a GGUF file cannot be read.
    """
    from transformers import AutoTokenizer

    check_gguf(name)
    with loading("tokenizer", name):
        tokenizer = AutoTokenizer.from_pretrained(**source_arguments(name), revision=revision, **NO_REMOTE_CODE)
    return NameTokenizer(tokenizer)
