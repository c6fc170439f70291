"""Llama-shaped language models of random weights: as fast as trained ones of their size, and no download."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import LlamaConfig

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a model: hidden and inner width, layers, heads, vocabulary, longest prompt in tokens."""

    hidden: int = 768
    inner: int = 2048
    layers: int = 12
    heads: int = 12
    vocabulary: int = 32_000
    longest: int = 2048


def llama_config(shape: Shape) -> "LlamaConfig":
    """The config of a model whose weights are wide enough that names are told apart.

    With those of a fresh Llama all scores are nearly equal.
    """
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.longest,
        initializer_range=1.6 / shape.hidden**0.5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )


def write_random_llama(folder: Path, tokenizer: Path, shape: Shape, seed: int = 0) -> Path:
    """Write a model and the tokenizer of another one to a folder that the pipe loads by name."""
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    LlamaForCausalLM(llama_config(shape)).save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(tokenizer / name, folder / name)
    return folder
