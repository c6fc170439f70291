"""What config.json says of models that configs and the paper name, so that nothing has to be fetched.

Only what decides shapes; all else is the class's default. Read in the models' public config.json files.
"""

from typing import Any


def _llama(**changes: Any) -> dict[str, Any]:
    shape = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    kinds = {"model_type": "llama", "vocab_size": 32000, "tie_word_embeddings": False}
    return {**kinds, **shape, "num_key_value_heads": 32, "max_position_embeddings": 4096, **changes}


def _opt(width: int, layers: int, heads: int, **changes: Any) -> dict[str, Any]:
    shape = {"hidden_size": width, "ffn_dim": 4 * width, "num_hidden_layers": layers, "num_attention_heads": heads}
    kinds = {"model_type": "opt", "vocab_size": 50272, "max_position_embeddings": 2048}
    return {**kinds, **shape, "word_embed_proj_dim": width, **changes}


def _qwen(width: int, inner: int, layers: int, heads: int, **changes: Any) -> dict[str, Any]:
    shape = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    kinds = {"model_type": "qwen2", "vocab_size": 151936, "tie_word_embeddings": True}
    return {**kinds, **shape, "num_attention_heads": heads, "num_key_value_heads": 2, **changes}


def _bert(kind: str, vocabulary: int, width: int, layers: int, heads: int, **changes: int) -> dict[str, Any]:
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {"model_type": kind, "vocab_size": vocabulary, **shape, "intermediate_size": 4 * width, **changes}


Shapes = dict[str, dict[str, Any]]

LANGUAGE_MODELS: Shapes = {
    "meta-llama/Llama-2-7b-hf": _llama(),
    "huggyllama/llama-7b": _llama(max_position_embeddings=2048),
    # its embeddings are narrower than its hidden states, and its layer norms come last
    "facebook/opt-350m": _opt(1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
    "facebook/opt-1.3b": _opt(2048, 24, 32),
    "facebook/opt-2.7b": _opt(2560, 32, 32),
    "facebook/opt-6.7b": _opt(4096, 32, 32),
    # in copies of its config.json; the parameters are those of its own weights
    "HuggingFaceTB/SmolLM2-1.7B": _llama(
        vocab_size=49152,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=24,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "Qwen/Qwen2.5-0.5B": _qwen(896, 4864, 24, 14, max_position_embeddings=32768),
    "Qwen/Qwen2.5-1.5B": _qwen(1536, 8960, 28, 12, max_position_embeddings=131072),
}
# The paper's beside CLIP. Their parameters are those of the same weights in timm, less the classifier.
VISION_ENCODERS: Shapes = {
    "microsoft/beit-large-patch16-224": {
        "model_type": "beit",
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 16,
        "use_mask_token": False,
        "use_absolute_position_embeddings": False,
        "use_relative_position_bias": True,
        "use_shared_relative_position_bias": False,
        "use_mean_pooling": True,
    },
    "microsoft/resnet-101": {
        "model_type": "resnet",
        "embedding_size": 64,
        "hidden_sizes": [256, 512, 1024, 2048],
        "depths": [3, 4, 23, 3],
        "layer_type": "bottleneck",
    },
}
SENTENCE_ENCODERS: Shapes = {
    "princeton-nlp/sup-simcse-roberta-large": _bert(
        "roberta", 50265, 1024, 24, 16, max_position_embeddings=514, type_vocab_size=1
    ),
    "sentence-transformers/all-MiniLM-L6-v2": _bert(
        "bert", 30522, 384, 6, 12, max_position_embeddings=512, type_vocab_size=2
    ),
}
KNOWN = {"language_model": LANGUAGE_MODELS, "vision_encoder": VISION_ENCODERS, "retriever": SENTENCE_ENCODERS}
"""The shapes by the block of the config that names such a model."""
