"""The frozen sentence encoder behind dense retrieval (the paper's: SimCSE, pooler output)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spacy_gemel.frozen import Loaded
from spacy_gemel.language.tokenizer import missing_model_message

_BATCH = 64
_NOTHING = "?"  # read in place of a mention without a token, such as a blank: no model reads nothing


class SentenceEncoder(Loaded):
    """A sentence-transformers model (Reimers and Gurevych 2019); embeds mention strings."""

    def __init__(self, model: Any) -> None:
        self.model = model.requires_grad_(False).eval()

    def __call__(self, mentions: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of some mentions, (mentions, width), in fp32."""
        vectors: NDArray[np.float32] = self.model.encode(
            _readable(mentions, self.model.tokenizer), batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, dtype=np.float32)


class PoolerEncoder(Loaded):
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
                rows.append(self.model(**batch).pooler_output.float().cpu().numpy())
        return np.concatenate(rows)


def load_sentence_encoder(
    name: str, *, device: str, revision: str | None = None, pooling: str | None = None
) -> SentenceEncoder | PoolerEncoder:
    """A sentence encoder by hub name or folder, from safetensors only.

    pooling: see spacy_gemel.SentenceTransformerRetriever.v1.
    Raises ValueError if it cannot be loaded.
    """
    if pooling not in (None, "pooler", "cls", "mean"):
        raise ValueError(f'retriever: pooling = {pooling!r} is not known: use null, "pooler", "cls" or "mean".')
    try:
        if pooling is None and _is_sentence_transformer(name, revision):
            from sentence_transformers import SentenceTransformer

            return SentenceEncoder(
                SentenceTransformer(name, device=device, revision=revision, model_kwargs={"use_safetensors": True})
            )
        if pooling in ("cls", "mean"):
            return SentenceEncoder(_with_pooling(name, revision, pooling, device))
        from transformers import AutoModel, AutoTokenizer

        model = AutoModel.from_pretrained(name, revision=revision, use_safetensors=True).to(device)
        return PoolerEncoder(model, AutoTokenizer.from_pretrained(name, revision=revision))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(missing_model_message("sentence encoder", name, error)) from error


def _readable(mentions: Sequence[str], tokenizer: Any) -> list[str]:
    return [mention if len(tokenizer.encode(mention)) else _NOTHING for mention in mentions]


def _is_sentence_transformer(name: str, revision: str | None) -> bool:
    from sentence_transformers.util import is_sentence_transformer_model

    return bool(is_sentence_transformer_model(name, revision=revision))


def _with_pooling(name: str, revision: str | None, pooling: str, device: str) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    transformer = Transformer(name, model_args={"revision": revision, "use_safetensors": True})
    # Renamed in sentence-transformers 6.
    width = getattr(transformer, "get_embedding_dimension", None) or transformer.get_word_embedding_dimension
    pool = Pooling(width(), pooling_mode=pooling)
    return SentenceTransformer(modules=[transformer, pool], device=device)
