"""The frozen sentence encoder behind dense retrieval (the paper's: SimCSE, pooler output)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spacy_gemel.models.frozen import LoadedModel, missing_model_message

_BATCH = 64
_NOTHING = "?"  # read in place of a mention without a token, such as a blank: no model reads nothing
_REMEDY = 'set pooling = "cls" or "mean" of the retriever, or name a model with a trained pooler, as SimCSE\'s.'


class SentenceEncoder(LoadedModel):
    """A sentence-transformers model (Reimers and Gurevych 2019); embeds mention strings."""

    def __init__(self, model: Any) -> None:
        self.model = model.requires_grad_(False).eval()

    def __call__(self, mentions: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of some mentions, (mentions, width), in fp32."""
        vectors: NDArray[np.float32] = self.model.encode(
            _readable(mentions, self.model.tokenizer), batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, dtype=np.float32)


class PoolerEncoder(LoadedModel):
    """A plain transformer whose pooler output is the vector, as in SimCSE's supervised models (Gao et al. 2021)."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer

    def __call__(self, mentions: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of some mentions, (mentions, width), in fp32."""
        rows = []
        mentions = _readable(mentions, self.tokenizer)
        for start in range(0, len(mentions), _BATCH):
            batch = self.tokenizer(
                mentions[start : start + _BATCH], padding=True, truncation=True, return_tensors="pt"
            ).to(self.model.device)
            with torch.no_grad():
                pooled = self.model(**batch).pooler_output
            if pooled is None:
                raise ValueError("its pooler is switched off")
            rows.append(pooled.float().cpu().numpy())
        return np.concatenate(rows)


def load_sentence_encoder(
    name: str, *, device: str, revision: str | None = None, pooling: str | None = None
) -> SentenceEncoder | PoolerEncoder:
    """A sentence encoder by hub name or folder, from safetensors only.

    pooling: see spacy_gemel.SentenceTransformerRetriever.v1.
    Raises ValueError if it cannot be loaded, if its files lack weights that its vectors depend on, or if its pooler
    output is wanted and it has none.
    """
    if pooling not in (None, "pooler", "cls", "mean"):
        raise ValueError(f'retriever: pooling = {pooling!r} is not known: use null, "pooler", "cls" or "mean".')
    encoder: SentenceEncoder | PoolerEncoder
    try:
        if pooling is None and _is_sentence_transformer(name, revision):
            encoder, missing = _as_it_is(name, revision, device)
        elif pooling in ("cls", "mean"):
            encoder, missing = _with_pooling(name, revision, pooling, device)
        else:
            encoder, missing = _with_pooler(name, revision, device)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(missing_model_message("sentence encoder", name, error)) from error
    _check_weights(missing, name, uses_pooler=isinstance(encoder, PoolerEncoder))
    if isinstance(encoder, PoolerEncoder):
        _check_pooler_output(encoder, name)
    return encoder


def _readable(mentions: Sequence[str], tokenizer: Any) -> list[str]:
    return [mention if len(tokenizer.encode(mention)) else _NOTHING for mention in mentions]


def _is_sentence_transformer(name: str, revision: str | None) -> bool:
    from sentence_transformers.util import is_sentence_transformer_model

    return bool(is_sentence_transformer_model(name, revision=revision))


def _as_it_is(name: str, revision: str | None, device: str) -> tuple[SentenceEncoder, list[str]]:
    """A model in sentence-transformers' own form, and the weights that its files lack."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import cached_file

    model = SentenceTransformer(name, device=device, revision=revision, model_kwargs={"use_safetensors": True})
    listed = json.loads(Path(cached_file(name, "modules.json", revision=revision)).read_text(encoding="utf8"))
    missing = []
    for module, message in zip(model, listed, strict=True):
        missing += _missing(getattr(module, "auto_model", None), name, revision, message["path"])
    return SentenceEncoder(model), missing


def _with_pooling(name: str, revision: str | None, pooling: str, device: str) -> tuple[SentenceEncoder, list[str]]:
    """A plain transformer with "cls" or "mean" pooling, and the weights that its files lack."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    transformer = Transformer(name, model_args={"revision": revision, "use_safetensors": True})
    # Renamed in sentence-transformers 6.
    width = getattr(transformer, "get_embedding_dimension", None) or transformer.get_word_embedding_dimension
    pool = Pooling(width(), pooling_mode=pooling)
    model = SentenceTransformer(modules=[transformer, pool], device=device)
    return SentenceEncoder(model), _missing(transformer.auto_model, name, revision)


def _with_pooler(name: str, revision: str | None, device: str) -> tuple[PoolerEncoder, list[str]]:
    """A plain transformer with its own pooler, and the weights that its files lack."""
    from transformers import AutoModel, AutoTokenizer

    model, message = AutoModel.from_pretrained(name, revision=revision, use_safetensors=True, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    return PoolerEncoder(model.to(device), tokenizer), sorted(message["missing_keys"])


def _missing(model: Any, name: str, revision: str | None, subfolder: str = "") -> list[str]:
    """The weights that a transformer's files lack: sentence-transformers does not tell, so they are read once more.

    model: as sentence-transformers has loaded it; None for a module that has no model of transformers.
    """
    if model is None:
        return []
    _, message = type(model).from_pretrained(
        name,
        config=model.config,
        revision=revision,
        subfolder=subfolder,
        use_safetensors=True,
        output_loading_info=True,
    )
    return sorted(message["missing_keys"])


def _check_weights(missing: Sequence[str], name: str, *, uses_pooler: bool) -> None:
    """Raise ValueError where vectors would depend on weights that transformers has filled in at random."""
    lacking = [key for key in missing if uses_pooler or not _is_of_pooler(key)]
    if not lacking:
        return
    message = f"The sentence encoder {name!r} lacks {len(lacking)} of its weights ({lacking[0]} first), which would be "
    if all(map(_is_of_pooler, lacking)):
        raise ValueError(f"{message}random: {_REMEDY}")
    raise ValueError(f"{message}random: give a folder or a name that holds all of them.")


def _is_of_pooler(key: str) -> bool:
    return "pooler" in key.split(".")


def _check_pooler_output(encoder: PoolerEncoder, name: str) -> None:
    """Raise ValueError where a model gives no pooler output, or none of a text alone."""
    try:
        encoder([_NOTHING])
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"The sentence encoder {name!r} is a {type(encoder.model).__name__}, which gives no pooler output "
            f"({error}): {_REMEDY}"
        ) from error
