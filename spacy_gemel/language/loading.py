"""Loading a causal language model by name or folder."""

from typing import Any

import torch

from spacy_gemel.language.causal_lm import CausalLM
from spacy_gemel.language.self_check import check_branches
from spacy_gemel.language.tokenizer import load_tokenizer, missing_model_message


def load_causal_lm(name: str, *, revision: str | None, device: str, dtype: str | None, bos: bool = False) -> CausalLM:
    """A frozen causal LM of the Hugging Face hub or of a local folder, from safetensors only.

    dtype: "float32" (also if None), "bfloat16", "float16".
    Raises ValueError, with what to do, if the model cannot be loaded.
    """
    import transformers

    tokenizer = load_tokenizer(name, revision)
    if bos and tokenizer.tokenizer.bos_token_id is None:
        raise ValueError(f"bos = true, but the tokenizer of {name!r} has no BOS token: set bos = false.")
    options: dict[str, Any] = {dtype_argument(transformers.__version__): torch_dtype(dtype)}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            name, revision=revision, use_safetensors=True, **options
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(missing_model_message("language model", name, error)) from error
    loaded = CausalLM(model.to(device), tokenizer, bos=bos, name=name)
    check_branches(loaded)
    return loaded


def dtype_argument(version: str) -> str:
    """What `from_pretrained` calls the parameters' type: `torch_dtype` was renamed `dtype` in 4.56."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"


def torch_dtype(name: str | None) -> torch.dtype:
    """The torch type of a name in a config; float32 for None. Raises ValueError for any other name."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name is None:
        return torch.float32
    if name not in known:
        raise ValueError(f"dtype = {name!r} is not known: use one of {', '.join(known)}, or null for float32.")
    return known[name]
