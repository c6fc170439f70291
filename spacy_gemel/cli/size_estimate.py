"""What a config takes, by formula: weights, keys and values, activations, operations and the time that follows.

docs/sizes.md explains each formula. Nothing is loaded or fetched: the shape of a model comes from its config.json (in a
folder, or in the hub's cache), from open_clip's list, or from `KNOWN`. A vision encoder is built, but its numbers take
no memory.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from spacy_gemel.models.quantization import SETTINGS
from spacy_gemel.utils.files import resolve

# Assumptions, each explained in docs/sizes.md.
OVERHEAD = 2**29  # bytes of CUDA's context and its libraries' workspaces
EMBEDDING_CACHE = 2**28  # bytes of the demonstrations' embeddings on the GPU
SECONDS_PER_LAYER = 0.0008  # at least, to launch its kernels from Python
HOST_SECONDS = 0.016  # of a mention outside the models; benchmarks/results/linking.json
PASSES = 9  # search steps for a name in a trie of real titles
NAME_TOKENS = 6  # of a name and its end


class Gpu(NamedTuple):
    """A GPU: memory in GiB (None if unknown), sustained TFLOP/s in 16 and 32 bits, and sustained GB/s."""

    name: str
    memory: float | None
    tflops: float
    tflops_fp32: float
    bandwidth: float


# Half of the dense TFLOP/s of NVIDIA's data sheets, in fp32 without TF32, and 0.7 of their GB/s.
GPUS = {
    "rtx-4060": Gpu("RTX 4060, 8 GB", 8, 15.1, 7.55, 190.4),
    "rtx-3090": Gpu("RTX 3090, 24 GB", 24, 35.5, 17.8, 655.2),
    "rtx-4090": Gpu("RTX 4090, 24 GB", 24, 82.6, 41.3, 705.6),
    "a100": Gpu("A100 SXM, 80 GB", 80, 156, 9.75, 1427.3),
    "h100": Gpu("H100 SXM, 80 GB", 80, 494.5, 33.5, 2345),
}


def find_gpu(
    name: str | None = None, tflops: float | None = None, bandwidth: float | None = None, memory: float | None = None
) -> Gpu:
    """A GPU of GPUS, by default an RTX 4060, with sustained figures in place of its own, or any GPU by both figures."""
    both = tflops is not None and bandwidth is not None
    gpu = GPUS.get(name or ("" if both else "rtx-4060"), Gpu(name or "a GPU", None, 0, 0, 0))
    if not (gpu.tflops or both):
        raise ValueError(f"--gpu knows {', '.join(GPUS)}: for {name} give both --tflops and --bandwidth")
    figures = [f"{value:g} {unit}" for value, unit in ((tflops, "TFLOP/s"), (bandwidth, "GB/s")) if value]
    title = f"{gpu.name} at {' and '.join(figures)}" if figures else gpu.name
    fp32 = tflops or gpu.tflops_fp32
    return Gpu(title, memory or gpu.memory, tflops or gpu.tflops, fp32, bandwidth or gpu.bandwidth)


def _known(kind: str, width: int, inner: int, layers: int, heads: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    shape = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    return {"model_type": kind, "num_attention_heads": heads, "vocab_size": vocabulary, **shape, **more}


_QWEN = {"num_key_value_heads": 2, "tie_word_embeddings": True}
# What decides the shape of the models that configs and the paper name, from their config.json.
KNOWN: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-2-7b-hf": _known("llama", 4096, 11008, 32, 32, 32000),
    "huggyllama/llama-7b": _known("llama", 4096, 11008, 32, 32, 32000),
    "facebook/opt-350m": _known("opt", 1024, 4096, 24, 16, 50272, word_embed_proj_dim=512),
    "facebook/opt-1.3b": _known("opt", 2048, 8192, 24, 32, 50272),
    "facebook/opt-2.7b": _known("opt", 2560, 10240, 32, 32, 50272),
    "facebook/opt-6.7b": _known("opt", 4096, 16384, 32, 32, 50272),
    "HuggingFaceTB/SmolLM2-1.7B": _known("llama", 2048, 8192, 24, 32, 49152, tie_word_embeddings=True),
    "Qwen/Qwen2.5-0.5B": _known("qwen2", 896, 4864, 24, 14, 151936, **_QWEN),
    "Qwen/Qwen2.5-1.5B": _known("qwen2", 1536, 8960, 28, 12, 151936, **_QWEN),
    "microsoft/beit-large-patch16-224": _known("beit", 1024, 4096, 24, 16, 0, patch_size=16),
    "princeton-nlp/sup-simcse-roberta-large": _known("roberta", 1024, 4096, 24, 16, 50265),
    "sentence-transformers/all-MiniLM-L6-v2": _known("bert", 384, 1536, 6, 12, 30522),
}


def read_shape(name: str, folder: Path, block: str, file: Path | None = None) -> dict[str, Any]:
    """A model's config.json: `file`, or that of a local folder, of KNOWN or of the hub's cache; raises ValueError."""
    local = resolve(name, [folder])
    if file is None and local.is_dir():
        file = next((f for f in (local / "open_clip_config.json", local / "config.json") if f.is_file()), None)
    elif file is None and name in KNOWN:
        return KNOWN[name]
    elif file is None:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "config.json")
        file = Path(cached) if isinstance(cached, str) else None
    if file is None:
        how = f"put its config.json into a folder, and name that folder in {block}.name"
        if block == "language_model":
            how = "download its config.json, and give it with --model-config"
        raise ValueError(f"The shape of {name!r} is not known here: {how} (known without: {', '.join(KNOWN)})")
    try:
        content = json.loads(file.read_text(encoding="utf8"))
        return dict(content.get("text_config" if block == "language_model" else "vision_config") or content)
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{file}: no config.json of a model can be read there: {error}") from error


class LanguageModel(NamedTuple):
    """The shape of a causal language model; `queries` and `keys` are heads x head width."""

    width: int
    layers: int
    queries: int
    keys: int
    inner: int
    gated: bool  # an MLP of three matrices and RMSNorm, as Llama's
    vocabulary: int
    embedded: int  # width of the input embeddings
    matrices: int  # numbers in the matrices of all layers
    parameters: int  # with the embeddings; norms and biases are about a thousandth


def language_model(config: Mapping[str, Any]) -> LanguageModel:
    """Read the shape of a causal language model from its config.json; raises ValueError if it is not there."""
    kind = str(config.get("model_type"))
    width, layers, heads, vocabulary = (
        config.get(key) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    )
    inner = config.get("intermediate_size") or config.get("ffn_dim")
    if not (width and layers and heads and vocabulary and inner) or kind in ("bert", "roberta"):
        raise ValueError(
            f"language_model: a config.json with model_type {kind!r} does not give the numbers of a causal language "
            "model; --model-config takes the language model's, no other part's"
        )
    gated = kind not in ("opt", "gpt_neox", "phi")
    head_width = config.get("head_dim") or width // heads
    queries, keys = heads * head_width, (config.get("num_key_value_heads") or heads) * head_width
    embedded = config.get("word_embed_proj_dim") or width
    matrices = layers * width * (2 * (queries + keys) + (3 if gated else 2) * inner)
    embeddings = vocabulary * embedded * (1 if config.get("tie_word_embeddings", kind == "opt") else 2)
    positions = config.get("max_position_embeddings", 2048) * width if kind == "opt" else 0
    projections = 2 * embedded * width if embedded != width else 0
    parameters = matrices + embeddings + positions + projections
    return LanguageModel(width, layers, queries, keys, inner, gated, vocabulary, embedded, matrices, parameters)


def encoder_parameters(config: Mapping[str, Any]) -> int:
    """Numbers in the matrices of a text encoder; raises ValueError if its config.json does not tell."""
    width, layers, inner = (config.get(key) for key in ("hidden_size", "num_hidden_layers", "intermediate_size"))
    if not (isinstance(width, int) and isinstance(layers, int) and isinstance(inner, int)):
        raise ValueError("it is left out, as its size does not follow from its config.json")
    return layers * width * (4 * width + 2 * inner) + config.get("vocab_size", 0) * width


def vision_encoder(block: Mapping[str, Any], folder: Path) -> tuple[int, int, int]:
    """Parameters, width of the features, and operations per image; raises ValueError if it cannot be built.

    It is built and run without memory for its numbers, on torch's meta device, and torch counts the operations.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    name, in_open_clip = block["name"], block["@misc"].startswith("spacy_gemel.OpenCLIP")
    if in_open_clip and not resolve(name, [folder]).is_dir():
        import open_clip

        config = {"model_cfg": open_clip.get_model_config(name)}
        if config["model_cfg"] is None:
            raise ValueError(f"open_clip has no model {name!r}: correct vision_encoder.name")
    else:
        config = read_shape(name, folder, "vision_encoder")
    with torch.device("meta"), torch.no_grad():
        try:
            build = _open_clip_tower if in_open_clip else _hugging_face_tower
            net, size, forward = build(config, block)
            net.requires_grad_(False).eval()
            with FlopCounterMode(display=False) as counter:
                features = forward(torch.empty(1, 3, *((size, size) if isinstance(size, int) else size)))
        except Exception as error:  # of any model's own code
            raise ValueError(f"it is left out, as no model can be made of its config.json ({error})") from error
    return sum(parameter.numel() for parameter in net.parameters()), features.shape[1], counter.get_total_flops()


_Tower = tuple[Any, Any, Callable[[Any], Any]]  # a module, the sides of its images, pixels -> features


def _open_clip_tower(config: Mapping[str, Any], block: Mapping[str, Any]) -> _Tower:
    from spacy_gemel.models.open_clip import build_image_tower, tower_forward

    net = build_image_tower(config["model_cfg"])
    return net, net.image_size, tower_forward(net, block["name"], projection=bool(block.get("projection")))


def _hugging_face_tower(config: Mapping[str, Any], block: Mapping[str, Any]) -> _Tower:
    from transformers import AutoConfig, AutoModel

    from spacy_gemel.models.frozen import NO_REMOTE_CODE
    from spacy_gemel.models.vision_encoder import image_vectors

    shape = AutoConfig.for_model(**config)
    net = AutoModel.from_config(shape, **NO_REMOTE_CODE)
    size = config.get("pretrained_cfg", {}).get("input_size", [3, 224, 224])[1:]  # timm's
    return net, getattr(shape, "image_size", size), lambda pixels: image_vectors(net, pixels, block["name"])


@dataclass(frozen=True, slots=True)
class Data:
    """The texts; the defaults are WikiDiverse's, as `convert` writes it (benchmarks/results/converters.json)."""

    mentions: int = 11_098
    docs: int = 5_565
    dev_mentions: int = 1_617
    text: int = 48  # tokens of a demonstration with its question and answer, without its visual prefix
    entities: int = 6_000_000
    epochs: int = 5  # if the config does not say


def estimate(
    linker: Mapping[str, Any], training: Mapping[str, Any], gpu: Gpu, data: Data, folder: Path, file: Path | None = None
) -> dict[str, Any]:
    """Estimate what a config takes: bytes, operations, hours, and `unknown`, the parts that are left out.

    Both blocks have their defaults filled in. Relative names are looked up in `folder`; `file` is the language model's
    config.json, if its name is not known. Raises ValueError if the shape of the language model is not known.
    """
    unknown = []
    block, retriever, image = linker["language_model"], linker["retriever"], linker["vision_encoder"]
    quantization = block.get("quantization")
    if quantization is not None and quantization not in SETTINGS:
        raise ValueError(f"quantization = {quantization!r} is unknown: use {' or '.join(SETTINGS)}, or null for none")
    model = language_model(read_shape(block["name"], folder, "language_model", file))
    item = _itemsize(block.get("dtype") or ("float16" if quantization else None))
    image_item = _itemsize(image.get("dtype"))
    vision = sentences = features = image_operations = sentence_width = 0
    try:
        if linker["use_image"]:
            vision, features, image_operations = vision_encoder(image, folder)
    except ValueError as error:
        unknown.append(f"vision_encoder: {error}")
    try:
        if retriever["@misc"].startswith("spacy_gemel.SentenceTransformerRetriever"):
            shape = read_shape(retriever["name"], folder, "retriever")
            sentences, sentence_width = encoder_parameters(shape), shape["hidden_size"]
    except ValueError as error:
        unknown.append(f"retriever: {error}")

    prefix = int(linker["model"]["prefix_length"]) if linker["use_image"] else 0
    n = 0 if retriever["@misc"].startswith("spacy_gemel.NoRetriever") else int(linker["n_demonstrations"])
    limit = linker["n_training_demonstrations"]
    prompt, training_prompt = ((k + 1) * (data.text + prefix) for k in (n, n if limit is None else min(n, limit)))
    beams, budget = linker["beam_size"], linker["batch_tokens"]
    beam_tokens = beams * linker["max_name_tokens"] + (linker["exact_tokens"] if linker["search"] == "exact" else 0)
    rows, training_rows = max(1, budget // (prompt + beam_tokens)), max(1, budget // training_prompt)
    # batches are as full as batch_tokens allows
    filled = rows * max(prompt + beam_tokens, budget // rows)
    training_tokens = training_rows * (max(training_prompt, budget // training_rows) + NAME_TOKENS)

    # 4 bits: half a byte, and 4 for each 64 numbers
    weights: float = item * (model.parameters - model.matrices)
    weights += model.matrices * {None: item, "8bit": 1, "4bit": 0.5625}[quantization]
    mapper = 4 * (features + 1) * prefix * model.embedded if features else 0
    constant = weights + image_item * vision + 4 * sentences + OVERHEAD + mapper
    constant += min(EMBEDDING_CACHE, data.mentions * data.text * model.embedded * item) if n else 0
    vectors = (3 if model.gated else 1) * model.inner  # of a token in the MLP
    cache = filled * model.layers * 2 * model.keys * item
    reading = (filled - rows * beam_tokens) * item * (vectors + model.inner + 5 * model.width)
    positions = image_operations / (2 * vision) if vision else 0  # at which a number is used, on average
    encoding = 16 * image_item * positions * 13 * features  # a batch of images
    linking = max(cache + reading, encoding)
    # bytes that a layer stores of a token for the way back through the frozen model; norms are in fp32 if gated
    bytes_per_token = item * (2 * model.queries + 2 * model.keys + vectors)
    bytes_per_token += (8 if model.gated else 2 * item) * model.width
    bytes_per_token += item * (2 * model.width + model.inner) if quantization == "8bit" else 0
    temporary = item * 2 * model.inner + (15 if model.gated else 2 * item) * model.width
    activations = training_tokens * (model.layers * bytes_per_token + temporary)

    rate = 1e12 * (gpu.tflops if item == 2 else gpu.tflops_fp32)
    image_seconds = image_operations / (1e12 * (gpu.tflops if image_item == 2 else gpu.tflops_fp32))
    attention = 2.0 * model.layers * model.queries  # a causal pass over t tokens takes this times t squared
    products, head = 2.0 * model.matrices, 2.0 * model.vocabulary * model.embedded
    prompt_operations = products * prompt + head + attention * prompt**2
    token_operations = beams * (products + head + 2 * attention * prompt)
    length = training_prompt + NAME_TOKENS
    # forward, and the gradient back to the prefixes alone: twice the products, 3.5 times the attention
    step_operations = 2 * (products * length + head * NAME_TOKENS) + 3.5 * attention * length**2
    shortest = SECONDS_PER_LAYER * model.layers
    moved = weights + cache + (2 * item * model.matrices if quantization == "4bit" else 0)  # 4 bits are written out
    search_seconds = PASSES * max(rows * token_operations / rate, moved / (1e9 * gpu.bandwidth), shortest)
    seconds = (max(rows * prompt_operations / rate, shortest) + search_seconds) / rows + image_seconds + HOST_SECONDS
    step_seconds = max(step_operations / rate, 3 * shortest / training_rows) + HOST_SECONDS
    epochs, epochs_assumed, evaluations = _schedule(training, data)
    return {
        "parameters": model.parameters,
        "language_model": weights,
        "encoder": image_item * vision,
        "retriever": 4 * sentences,
        "mapper": mapper,
        "cache": cache,
        "activations": activations,
        "training": constant + 3 * mapper + max(activations, linking),
        "linking": constant + linking,
        # 4.29 edges a name, as 6 million made-up names had
        "trie": data.entities * (4.288 * ((2 if model.vocabulary <= 65_535 else 4) + 5) + 4),
        "description_vectors": 2 * data.entities * sentence_width,
        "prompt": prompt,
        "training_prompt": training_prompt,
        "rows": rows,
        "training_rows": training_rows,
        "mention_operations": prompt_operations + PASSES * token_operations + image_operations,
        "step_operations": step_operations,
        "training_hours": data.mentions * (epochs * step_seconds + image_seconds) / 3600,
        "evaluation_hours": data.dev_mentions * seconds / 3600,
        "evaluations": evaluations,
        "epochs": epochs,
        "epochs_assumed": epochs_assumed,
        "mentions_per_second": 1 / seconds,
        "unknown": unknown,
    }


def _itemsize(dtype: str | None) -> int:
    return 2 if dtype in ("float16", "bfloat16", "fp16", "bf16") else 4


def _schedule(training: Mapping[str, Any], data: Data) -> tuple[float, bool, int | None]:
    """(epochs, whether they are assumed, evaluations on dev data or None); updates are counted as spaCy counts them."""
    batcher, frequency = training["batcher"], training["eval_frequency"]
    size = batcher.get("size") if batcher.get("@batchers") == "spacy.batch_by_sequence.v1" else None
    epochs = training["max_epochs"] if (training["max_epochs"] or 0) > 0 else None  # -1 streams without an end
    steps = training["max_steps"] + 1 if training["max_steps"] else math.inf  # spaCy makes one update more
    assumed = epochs is None and (steps == math.inf or not isinstance(size, int))
    if isinstance(size, int):
        updates = min(steps, (epochs or (data.epochs if assumed else math.inf)) * math.ceil(data.docs / size))
        passes = min(updates * size / data.docs, epochs or math.inf)
    else:
        updates, passes = math.inf if epochs else steps, epochs or data.epochs
    return passes, assumed, math.ceil(updates / frequency) if frequency and updates != math.inf else None
