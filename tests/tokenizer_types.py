"""Tokenizers of every type that causal language models come with, trained from nothing and saved as theirs are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.tiny import NAMES

# Names in brackets at a line's end, so that ")" and the newline become one token wherever a type lets them.
TEXTS = [
    *NAMES * 4,
    *[f"[Text]{name}\n[Question]What does {name} mentioned in the text refer to?\n[Answer]{name}\n" for name in NAMES],
    *["Georgia (country)\nMercury (planet)\nJava (island)\n"] * 20,
]
SIZE = 420
# How tiktoken's vocabularies cut a text: a letter takes what stands before it along, punctuation the newline after it.
TIKTOKEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(folder: Path, kind: str, first: list[str], last: list[str], **how: Any) -> None:
    """Byte-level BPE. kind: the class that its repositories name; first, last: special tokens by their place."""
    tokenizer = Tokenizer(models.BPE())
    if how.get("nfc"):
        tokenizer.normalizer = normalizers.NFC()
    if how.get("tiktoken"):
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(TIKTOKEN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    elif how.get("digits"):
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=SIZE, special_tokens=first, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in last])
    tokenizer.add_tokens([AddedToken(token, special=False) for token in how.get("plain", [])])
    write(folder, tokenizer, kind, how["config"])


def sentence_piece(folder: Path, kind: str, first: list[str], *, prefix: bool, config: dict[str, Any]) -> None:
    """SentencePiece's BPE as fast tokenizers have it: "▁" for spaces, bytes for what no token covers.

    prefix: put a "▁" before each text (Llama), or not (Gemma).
    """
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁")
    learned.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    message = json.loads(learned.to_str())["model"]
    # Han is left to the bytes, and the newline too, but for Gemma's own token.
    usual = {"▁", "ã", *map(chr, range(32, 127))}
    pieces = [piece for piece in sorted(message["vocab"], key=message["vocab"].get) if usual.issuperset(piece)]
    vocabulary = {
        piece: index for index, piece in enumerate(dict.fromkeys([*first, *BYTES, "\n" * (not prefix) or "▁", *pieces]))
    }
    merges = [tuple(pair if isinstance(pair, list) else pair.split(" ")) for pair in message["merges"]]
    merges = [(a, b) for a, b in merges if a in vocabulary and b in vocabulary and a + b in vocabulary]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in first])
    write(folder, tokenizer, kind, config)


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def write(folder: Path, tokenizer: Tokenizer, kind: str, config: dict[str, Any]) -> None:
    """The two files that a repository has; the class of the library makes of them what it will."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    message = {"tokenizer_class": kind, "clean_up_tokenization_spaces": False, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(message), encoding="utf8")


END_OF_TEXT = "<|endoftext|>"
LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True, "legacy": False}


def gpt2(folder: Path) -> None:
    config = dict.fromkeys(["bos_token", "eos_token", "unk_token"], END_OF_TEXT)
    byte_level(folder, "GPT2Tokenizer", [], [END_OF_TEXT], config=config)


def opt(folder: Path) -> None:
    """BOS and EOS are one token, and the class puts it in front of a text unless told not to."""
    config = {
        "bos_token": "</s>",
        "eos_token": "</s>",
        "unk_token": "</s>",
        "pad_token": "<pad>",
        "add_bos_token": True,
    }
    byte_level(folder, "GPT2Tokenizer", ["<s>", "<pad>", "</s>", "<unk>"], [], config=config)


def pythia(folder: Path) -> None:
    """Runs of spaces are tokens that are added but not special."""
    config = dict.fromkeys(["bos_token", "eos_token", "unk_token"], END_OF_TEXT)
    byte_level(
        folder,
        "GPTNeoXTokenizer",
        [END_OF_TEXT, "<|padding|>"],
        [],
        nfc=True,
        plain=["   ", "  "],
        config={**config, "pad_token": "<|padding|>"},
    )


def smollm(folder: Path) -> None:
    """GPT-2's, but each digit for itself; BOS and EOS are one token, the first."""
    config = dict.fromkeys(["bos_token", "eos_token", "unk_token"], END_OF_TEXT)
    byte_level(folder, "GPT2Tokenizer", [END_OF_TEXT, "<|im_start|>", "<|im_end|>"], [], digits=True, config=config)


def qwen(folder: Path) -> None:
    """No BOS."""
    config = {"bos_token": None, "eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT, "unk_token": None}
    last = [END_OF_TEXT, "<|im_start|>", "<|im_end|>"]
    byte_level(folder, "Qwen2Tokenizer", [], last, nfc=True, tiktoken=True, config=config)


def llama3(folder: Path) -> None:
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    config = {"bos_token": begin, "eos_token": end}
    byte_level(folder, "PreTrainedTokenizerFast", [], [begin, end, "<|eot_id|>"], tiktoken=True, config=config)


def llama(folder: Path) -> None:
    sentence_piece(folder, "LlamaTokenizer", ["<unk>", "<s>", "</s>"], prefix=True, config=LLAMA)


def gemma(folder: Path) -> None:
    config = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    sentence_piece(folder, "GemmaTokenizer", ["<pad>", "<eos>", "<bos>", "<unk>"], prefix=False, config=config)


TYPES: dict[str, Callable[[Path], None]] = {
    "gpt2": gpt2,
    "opt": opt,
    "pythia": pythia,
    "smollm": smollm,
    "qwen": qwen,
    "llama3": llama3,
    "llama": llama,
    "gemma": gemma,
}
