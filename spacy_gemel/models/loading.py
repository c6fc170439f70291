"""Loading a causal language model by name or folder."""

from typing import Any

from spacy_gemel.decoding.self_check import check_shared_prefix
from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.models.frozen import dtype_argument, missing_model_message, torch_dtype
from spacy_gemel.models.memory import is_out_of_memory
from spacy_gemel.models.quantization import (
    check_quantization,
    make_differentiable,
    quantization_options,
    quantized_dtype,
)
from spacy_gemel.models.tokenizer import load_tokenizer
from spacy_gemel.utils.messages import first_line


def load_causal_lm(
    name: str,
    *,
    revision: str | None,
    device: str,
    dtype: str | None,
    bos: bool = False,
    quantization: str | None = None,
) -> CausalLM:
    """A frozen causal LM of the Hugging Face hub or of a local folder, from safetensors only.

    dtype: "float32" (also if None), "bfloat16", "float16". If quantized, None is float16 for 8 bits, bfloat16 for 4.
    quantization: "8bit", "4bit" or None; see `quantization.quantization_options`.
    Raises ValueError, with what to do, if the model cannot be loaded or its files lack some of its weights, if it
    cannot be quantized here, or if it has no BOS token and bos is set.
    """
    check_quantization(quantization, name)
    tokenizer = load_tokenizer(name, revision)
    if bos and tokenizer.tokenizer.bos_token_id is None:
        raise ValueError(f"bos = true, but the tokenizer of {name!r} has no BOS token: set bos = false.")
    model = _load_model(name, revision, device, dtype, quantization)
    loaded = CausalLM(model, tokenizer, bos=bos, name=name)
    if loaded.quantized:
        make_differentiable(model)
    check_shared_prefix(loaded)
    return loaded


def _load_model(name: str, revision: str | None, device: str, dtype: str | None, quantization: str | None) -> Any:
    """The model, on its device. Raises ValueError."""
    import transformers

    parameters = torch_dtype(dtype) if quantization is None or dtype is not None else quantized_dtype(quantization)
    options: dict[str, Any] = {dtype_argument(transformers.__version__): parameters}
    if quantization is not None:
        options |= quantization_options(quantization, device, parameters)
    try:
        model, message = transformers.AutoModelForCausalLM.from_pretrained(
            name, revision=revision, use_safetensors=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(missing_model_message("language model", name, error)) from error
    except (ImportError, RuntimeError) as error:  # what bitsandbytes and accelerate say of a machine
        if is_out_of_memory(error):
            raise
        if quantization is None:
            if isinstance(error, RuntimeError):
                raise
            raise ValueError(missing_model_message("language model", name, error)) from error
        raise ValueError(
            f"The language model {name!r} cannot be quantized to {quantization!r} on {device!r} ({first_line(error)}). "
            'Run pip install -U "spacy-gemel[quantized]", use a device that bitsandbytes supports, or set '
            "quantization = null."
        ) from error
    missing = sorted(message["missing_keys"])
    if missing:
        raise ValueError(
            f"The language model {name!r} lacks {len(missing)} of its weights ({missing[0]} first), which would be "
            "random: give a folder or a name that holds a whole causal language model."
        )
    # A quantized one lies where it was loaded to, and cannot be moved.
    return model if getattr(model, "is_quantized", False) else model.to(device)
