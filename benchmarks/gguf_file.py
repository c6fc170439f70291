"""A Llama in a folder as a GGUF file, as llama.cpp's converter writes it."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.torch import load_file

Type = gguf.GGMLQuantizationType


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key matrix as llama.cpp orders them."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    folder: Path, path: Path, kind: Type = Type.F32, *, architecture: str = "llama", pre: str = "default", **extra: Any
) -> Path:
    """Write the Llama in a folder as a GGUF file; `extra` are further tensors."""
    config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf8"))
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(10000.0)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    tokens = {**{index: token for token, index in tokenizer["model"]["vocab"].items()}, **special}
    pieces = tokenizer["model"]["byte_fallback"]  # SentencePiece's, as Llama 1 and 2 have them
    kinds = {index: gguf.TokenType.BYTE for index, token in tokens.items() if pieces and token.startswith("<0x")}
    kinds |= dict.fromkeys(special, gguf.TokenType.CONTROL)
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([tokens[index] for index in range(len(tokens))])
    writer.add_token_types([kinds.get(index, gguf.TokenType.NORMAL) for index in range(len(tokens))])
    writer.add_token_scores([0.0] * len(tokens))
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    if config["bos_token_id"] is not None:
        writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, value in load_file(folder / "model.safetensors").items():
        weight = value.numpy()
        if "q_proj" in name or "k_proj" in name:
            weight = permute(weight, config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"])
        as_kind = kind if weight.ndim == 2 else Type.F32
        writer.add_tensor(
            str(names.get_name(name, try_suffixes=(".weight",))), gguf.quantize(weight, as_kind), raw_dtype=as_kind
        )
    for name, value in extra.items():
        writer.add_tensor(name, *value) if isinstance(value, tuple) else writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
