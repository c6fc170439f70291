"""The frozen sentence encoder behind dense retrieval (the paper's: SimCSE, pooler output)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spacy_gemel.models.frozen import NO_REMOTE_CODE, LoadedModel, check_weights, loading

_BATCH = 64
_PLACEHOLDER = "?"  # in place of a mention without a token, such as a blank: no model encodes an empty text
_REMEDY = 'set pooling = "cls" or "mean" of the retriever, or name a model with a trained pooler, such as SimCSE\'s.'


class SentenceEncoder(LoadedModel):
    """A sentence-transformers model (Reimers and Gurevych 2019); embeds mention strings."""

    def __init__(self, model: Any) -> None:
        self.model = model.requires_grad_(False).eval()

    def __call__(self, mentions: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of mentions, (mentions, width), in fp32."""
        texts = _fill_empty(mentions, self.model.tokenizer)
        vectors = self.model.encode(texts, batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)


class PoolerEncoder(LoadedModel):
    """A plain transformer whose pooler output is the vector, as in SimCSE's supervised models (Gao et al. 2021)."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer

    def __call__(self, mentions: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of mentions, (mentions, width), in fp32."""
        rows = []
        texts = _fill_empty(mentions, self.tokenizer)
        for start in range(0, len(texts), _BATCH):
            batch = self.tokenizer(texts[start : start + _BATCH], padding=True, truncation=True, return_tensors="pt")
            with torch.no_grad():
                pooled = self.model(**batch.to(self.model.device)).pooler_output
            if pooled is None:
                raise ValueError("its pooler is switched off")
            rows.append(pooled.float().cpu().numpy())
        return np.concatenate(rows)


def load_sentence_encoder(
    name: str, *, device: str, revision: str | None = None, pooling: str | None = None
) -> SentenceEncoder | PoolerEncoder:
    """A sentence encoder by hub name or folder, from safetensors only; for `pooling` see the registered retriever.

    Raises ValueError if it cannot be loaded, lacks weights that its vectors depend on, or lacks the pooler requested.
    """
    from sentence_transformers.util import is_sentence_transformer_model

    if pooling not in (None, "pooler", "cls", "mean"):
        raise ValueError(f'retriever: pooling = {pooling!r} is not known: use null, "pooler", "cls" or "mean".')
    encoder: SentenceEncoder | PoolerEncoder
    with loading("sentence encoder", name):
        if pooling is None and is_sentence_transformer_model(name, revision=revision):
            encoder, missing = _load_as_saved(name, revision, device)
        elif pooling in ("cls", "mean"):
            encoder, missing = _load_with_pooling(name, revision, pooling, device)
        else:
            encoder, missing = _load_with_pooler(name, revision, device)
        if not isinstance(encoder, PoolerEncoder):
            encoder([_PLACEHOLDER])  # what its settings make impossible shows here
    pooler = [key for key in missing if "pooler" in key.split(".")]
    if not isinstance(encoder, PoolerEncoder):
        missing = [key for key in missing if key not in pooler]
    check_weights(missing, "sentence encoder", name, _REMEDY if set(missing) <= set(pooler) else None)
    if isinstance(encoder, PoolerEncoder):
        try:
            encoder([_PLACEHOLDER])
        except (AttributeError, TypeError, ValueError) as error:  # no pooler, or no output for text alone
            problem = f"is a {type(encoder.model).__name__}, which has no pooler output ({error})"
            raise ValueError(f"The sentence encoder {name!r} {problem}: {_REMEDY}") from error
    return encoder


def _fill_empty(mentions: Sequence[str], tokenizer: Any) -> list[str]:
    return [mention if len(tokenizer.encode(mention, truncation=True)) else _PLACEHOLDER for mention in mentions]


# Each loader returns the encoder, and the weights that are missing from its files.


def _load_as_saved(name: str, revision: str | None, device: str) -> tuple[SentenceEncoder, list[str]]:
    """A model saved by sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import cached_file

    modules = json.loads(Path(cached_file(name, "modules.json", revision=revision)).read_text(encoding="utf8"))
    for module in modules:  # versions before 6 import whatever a folder names
        if not module["type"].startswith("sentence_transformers."):
            raise ValueError(f"its module {module['type']!r} is none of sentence-transformers' own, and is not run")
    options = {"device": device, "revision": revision, **NO_REMOTE_CODE}
    model = SentenceTransformer(name, model_kwargs={"use_safetensors": True}, **options)
    missing = []
    for module, info in zip(model, modules, strict=True):
        if hasattr(module, "auto_model"):
            missing += _missing_weights(module.auto_model, name, revision, info["path"])
    return SentenceEncoder(model), missing


def _load_with_pooling(name: str, revision: str | None, pooling: str, device: str) -> tuple[SentenceEncoder, list[str]]:
    """A plain transformer with "cls" or "mean" pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    options = {"revision": revision, **NO_REMOTE_CODE}
    arguments = {"model_args": {**options, "use_safetensors": True}, "tokenizer_args": options, "config_args": options}
    transformer = Transformer(name, **arguments)
    # Renamed in sentence-transformers 6.
    width = getattr(transformer, "get_embedding_dimension", None) or transformer.get_word_embedding_dimension
    model = SentenceTransformer(modules=[transformer, Pooling(width(), pooling_mode=pooling)], device=device)
    return SentenceEncoder(model), _missing_weights(transformer.auto_model, name, revision)


def _load_with_pooler(name: str, revision: str | None, device: str) -> tuple[PoolerEncoder, list[str]]:
    """A plain transformer with its own pooler."""
    from transformers import AutoModel, AutoTokenizer

    options: dict[str, Any] = {"revision": revision, **NO_REMOTE_CODE}
    model, info = AutoModel.from_pretrained(name, use_safetensors=True, output_loading_info=True, **options)
    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    return PoolerEncoder(model.to(device), tokenizer), sorted(info["missing_keys"])


def _missing_weights(model: Any, name: str, revision: str | None, subfolder: str = "") -> list[str]:
    """The weights missing from a transformer's files, which are read again: sentence-transformers does not say."""
    options = {"config": model.config, "revision": revision, "subfolder": subfolder}
    _, info = type(model).from_pretrained(name, use_safetensors=True, output_loading_info=True, **options)
    return sorted(info["missing_keys"])
