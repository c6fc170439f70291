"""A frozen causal language model: loading, forward passes, and the loss of a name (paper sections 3.2 and 3.3)."""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from spacy_gemel.models.frozen import (
    NO_REMOTE_CODE,
    LoadedModel,
    check_weights,
    dtype_argument,
    is_gguf,
    missing_model_message,
    torch_dtype,
)
from spacy_gemel.models.gguf import source_arguments
from spacy_gemel.models.memory import is_out_of_memory
from spacy_gemel.models.quantization import DTYPES, check_quantization, make_differentiable, quantization_options
from spacy_gemel.models.tokenizer import NameTokenizer, load_tokenizer
from spacy_gemel.utils.messages import first_line

_UNLIMITED = 2**31 - 1
_EMBEDDING_BATCH = 8192
_HEAD_ROWS = 8192


class CausalLM(LoadedModel):
    """A Hugging Face causal language model that never changes (paper sections 3.2 and 3.3).

    All calls but `name_loss` run without gradients; the parameters never have one. With `bos` prompts start with BOS;
    `name` stands in messages.
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
        # The weights of quantized layers are packed; those of the embeddings are not, and tell device and dtype.
        self.quantized: bool = bool(getattr(model, "is_quantized", False))
        arguments = inspect.signature(model.forward).parameters
        self._has_logits_to_keep = "logits_to_keep" in arguments
        # transformers 5.24 renamed it; models with code of their own may keep the old name.
        self.cache_argument = "cache" if "cache" in arguments else "past_key_values"
        self.config = model.config.get_text_config()
        head = model.get_output_embeddings()
        if type(head) is nn.Linear and head.weight.dtype != torch.float32:
            head.forward = partial(_scores_in_fp32, head, head.forward)  # type: ignore[method-assign]

    @property
    def device(self) -> torch.device:
        """The device of the embeddings."""
        return self.embeddings.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters that are not quantized."""
        return self.embeddings.weight.dtype

    @property
    def max_length(self) -> int:
        """Tokens that prompt and name may have together. A sliding window is no limit."""
        return getattr(self.config, "max_position_embeddings", None) or _UNLIMITED

    @property
    def embedding_size(self) -> float:
        """Root mean square of the elements of the token embeddings, as `embed` gives them.

        Some models scale the weights when they look them up (Gemma, by the root of the width).
        """
        ids = range(self.vocab_size)
        batches = (self.embed(ids[start : start + _EMBEDDING_BATCH]) for start in ids[::_EMBEDDING_BATCH])
        return math.sqrt(sum(float(batch.float().square().sum()) for batch in batches) / (self.vocab_size * self.width))

    def embed(self, ids: Sequence[int]) -> Tensor:
        """The embeddings of token ids, (tokens, width)."""
        with torch.no_grad():
            return self.embeddings(torch.tensor(list(ids), dtype=torch.long, device=self.device))

    def forward(self, embeddings: Tensor, keep: Tensor, **options: Any) -> Tensor:
        """The logits at the positions `keep`, (sequences, keep, vocab), of embeddings, (sequences, tokens, width)."""
        if self._has_logits_to_keep:
            return self.model(inputs_embeds=embeddings, logits_to_keep=keep, **options).logits
        return self.model(inputs_embeds=embeddings, **options).logits[:, keep]

    def name_loss(self, prompts: Sequence[Tensor], names: Sequence[Sequence[int]]) -> Tensor:
        """Teacher forcing: the mean cross-entropy over each name's tokens and its end (paper eq. 4), (mentions,).

        `prompts` are embedded, (tokens, width) each, and may require a gradient. Only `names` carry labels: their token
        ids, the end included.
        """
        pairs = [*zip(prompts, names, strict=True)]
        sequences = [torch.cat([prompt.to(self.dtype), self.embed(name[:-1])]) for prompt, name in pairs]
        lengths = [len(name) for name in names]
        rows = torch.arange(len(pairs)).repeat_interleave(torch.tensor(lengths))
        # The position before a token predicts it.
        columns = torch.cat([torch.arange(len(name)) + len(prompt) - 1 for prompt, name in pairs])
        padded = pad_sequence(sequences, batch_first=True)  # (mentions, tokens, width)
        logits = self._logits_at(padded, rows.to(self.device), columns.to(self.device))  # (name tokens, vocab)
        labels = torch.tensor([token for name in names for token in name], device=self.device)
        losses = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
        return torch.stack([loss.mean() for loss in losses.split(lengths)])

    def _logits_at(self, embeddings: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The logits, (positions, vocab), at `columns`, (positions,), of the sequences `rows`, (positions,).

        The head is given these positions alone: with all sequences' at each of them, the vocabulary's logits and their
        gradient would take more memory than a small model's layers.
        """
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _head, inputs: (inputs[0][rows, columns],))
        try:
            return self.model(inputs_embeds=embeddings, use_cache=False).logits
        finally:
            hook.remove()


def _scores_in_fp32(head: nn.Linear, forward: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    """A search's scores of the vocabulary: in 16 bits they are rounded by more than close names lie apart."""
    if torch.is_grad_enabled():  # a mapper learns as well from rounded ones, in half the memory
        return forward(hidden)
    wide = hidden.float()
    scores = torch.cat([wide @ rows.float().T for rows in head.weight.split(_HEAD_ROWS)], dim=-1)
    return scores if head.bias is None else scores + head.bias.float()


def load_causal_lm(
    name: str,
    *,
    revision: str | None,
    device: str,
    dtype: str | None,
    bos: bool = False,
    quantization: str | None = None,
) -> CausalLM:
    """A frozen causal language model, from safetensors or a GGUF file, whose weights are dequantised; see the registry.

    If quantized, dtype None means float16 for 8 bits, bfloat16 for 4. Raises ValueError if the model cannot be loaded
    or quantized here, lacks some of its weights, or has no BOS token although `bos` is set.
    """
    import transformers

    check_quantization(quantization, name)
    tokenizer = load_tokenizer(name, revision)
    if bos and tokenizer.tokenizer.bos_token_id is None:
        raise ValueError(f"bos = true, but the tokenizer of {name!r} has no BOS token: set bos = false.")
    parameters = torch_dtype(dtype) if quantization is None or dtype is not None else DTYPES[quantization]
    options: dict[str, Any] = {dtype_argument(transformers.__version__): parameters, **NO_REMOTE_CODE}
    if quantization is not None:
        options |= quantization_options(quantization, device, parameters)
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            **source_arguments(name), revision=revision, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # each library has its own for files that it cannot read
        if is_out_of_memory(error):
            raise
        # bitsandbytes and accelerate raise these for an unfit machine
        if quantization is None or not isinstance(error, (ImportError, RuntimeError)):
            raise ValueError(missing_model_message("language model", name, error)) from error
        raise ValueError(
            f"The language model {name!r} cannot be quantized to {quantization!r} on {device!r} ({first_line(error)}). "
            'Run pip install -U "spacy-gemel[quantized]", use a device that bitsandbytes supports, or set '
            "quantization = null."
        ) from error
    remedy = "give a folder or a name that holds a whole causal language model."
    check_weights(sorted(info["missing_keys"]), "language model", name, remedy)
    if is_gguf(name) and getattr(model, "hf_quantizer", None) is not None:
        model.hf_quantizer.remove_quantization_config(model)  # else transformers 5 takes it for a packed model
    loaded = CausalLM(model, tokenizer, bos=bos, name=name)
    if loaded.quantized:
        make_differentiable(model)
    else:  # A quantized model cannot be moved from the device that it was loaded to.
        model.to(device)
    return loaded


def save_gguf(name: str, folder: Path, *, dtype: str | None, **_settings: Any) -> None:
    """Save the model of a GGUF file as safetensors in `dtype`, with its tokenizer, as `load_causal_lm` reads them."""
    loaded = load_causal_lm(name, revision=None, device="cpu", dtype=dtype)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.tokenizer.save_pretrained(folder)
