"""What a config takes, by formula: weights, keys and values, activations, operations and the time that follows.

Each formula is explained in docs/sizes.md. Nothing is loaded and nothing is fetched: the shape of a model comes from
its config.json (in a folder, or in the hub's cache), from open_clip's list, or from `KNOWN`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy_gemel.models.quantization import SETTINGS
from spacy_gemel.utils.files import resolve

# Assumptions, each explained in docs/sizes.md.
OVERHEAD = 2**29  # bytes of CUDA's context and its libraries' workspaces
EMBEDDING_CACHE = 2**28  # bytes of demonstrations' embeddings, kept on the GPU
IMAGES_AT_ONCE = 32
SECONDS_PER_LAYER = 0.0008  # at least, to launch its kernels from Python
HOST_SECONDS = 0.016  # of a mention outside the models; benchmarks/results/linking.json
PASSES = 9  # search steps for a name in a trie of real titles
UTILISATION, BANDWIDTH_UTILISATION = 0.5, 0.7  # of a data sheet's figures


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU: memory in GiB (None if unknown), sustained TFLOP/s in 16 and 32 bits, and sustained GB/s."""

    name: str
    memory: float | None
    tflops: float
    tflops_fp32: float
    bandwidth: float


# NVIDIA's data sheets: GiB, dense TFLOP/s in 16 bits and in fp32 without TF32, GB/s.
_SHEETS = {
    "rtx-4060": ("RTX 4060, 8 GB", 8, 30.2, 15.1, 272),
    "rtx-3090": ("RTX 3090, 24 GB", 24, 71, 35.6, 936),
    "rtx-4090": ("RTX 4090, 24 GB", 24, 165.2, 82.6, 1008),
    "a100": ("A100 SXM, 80 GB", 80, 312, 19.5, 2039),
    "h100": ("H100 SXM, 80 GB", 80, 989, 67, 3350),
}
GPUS = {
    key: Gpu(name, memory, UTILISATION * half, UTILISATION * full, BANDWIDTH_UTILISATION * bandwidth)
    for key, (name, memory, half, full, bandwidth) in _SHEETS.items()
}


def find_gpu(
    name: str | None = None, tflops: float | None = None, bandwidth: float | None = None, memory: float | None = None
) -> Gpu:
    """A GPU of GPUS, or one described by its sustained figures, which replace those of a named GPU.

    Raises:
        ValueError: If the figures are not known.
    """
    if name in GPUS or (name is None and tflops is None and bandwidth is None):
        gpu = GPUS[name or "rtx-4060"]
    elif tflops is not None and bandwidth is not None:
        gpu = Gpu(name or "a GPU", None, tflops, tflops, bandwidth)
    elif name is None:
        raise ValueError(
            "--tflops and --bandwidth describe a GPU together: give both, or name with --gpu the one whose other "
            f"figures to take ({', '.join(GPUS)})"
        )
    else:
        raise ValueError(
            f"No GPU is called {name!r} here: choose from {', '.join(GPUS)}, or give its --tflops, --bandwidth and "
            "--memory"
        )
    figures = [f"{tflops:g} TFLOP/s"] if tflops is not None else []
    figures += [f"{bandwidth:g} GB/s"] if bandwidth is not None else []
    return Gpu(
        f"{gpu.name} at {' and '.join(figures)}" if figures else gpu.name,
        gpu.memory if memory is None else memory,
        tflops or gpu.tflops,
        tflops or gpu.tflops_fp32,
        bandwidth or gpu.bandwidth,
    )


def _known(kind: str, width: int, inner: int, layers: int, heads: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    shape = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    return {"model_type": kind, "num_attention_heads": heads, "vocab_size": vocabulary, **shape, **more}


_OPT = {"max_position_embeddings": 2048}
KNOWN: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-2-7b-hf": _known("llama", 4096, 11008, 32, 32, 32000),
    "huggyllama/llama-7b": _known("llama", 4096, 11008, 32, 32, 32000),
    "facebook/opt-350m": _known("opt", 1024, 4096, 24, 16, 50272, word_embed_proj_dim=512, **_OPT),
    "facebook/opt-1.3b": _known("opt", 2048, 8192, 24, 32, 50272, **_OPT),
    "facebook/opt-2.7b": _known("opt", 2560, 10240, 32, 32, 50272, **_OPT),
    "facebook/opt-6.7b": _known("opt", 4096, 16384, 32, 32, 50272, **_OPT),
    "HuggingFaceTB/SmolLM2-1.7B": _known("llama", 2048, 8192, 24, 32, 49152, tie_word_embeddings=True),
    "Qwen/Qwen2.5-0.5B": _known("qwen2", 896, 4864, 24, 14, 151936, num_key_value_heads=2, tie_word_embeddings=True),
    "Qwen/Qwen2.5-1.5B": _known("qwen2", 1536, 8960, 28, 12, 151936, num_key_value_heads=2, tie_word_embeddings=True),
    "microsoft/beit-large-patch16-224": _known("beit", 1024, 4096, 24, 16, 0, image_size=224, patch_size=16),
    "microsoft/resnet-101": {"model_type": "resnet", "parameters": 42_500_160, "hidden_size": 2048},
    "princeton-nlp/sup-simcse-roberta-large": _known(
        "roberta", 1024, 4096, 24, 16, 50265, max_position_embeddings=514, type_vocab_size=1
    ),
    "sentence-transformers/all-MiniLM-L6-v2": _known(
        "bert", 384, 1536, 6, 12, 30522, max_position_embeddings=512, type_vocab_size=2
    ),
}
"""What decides the shape of the models that configs and the paper name, from their config.json."""


def read_shape(name: str, folder: Path, block: str, file: Path | None = None) -> dict[str, Any]:
    """A model's config.json: of a given file, a local folder, KNOWN, or the hub's cache.

    Raises:
        ValueError: If there is none, with what to do.
    """
    local = resolve(name, [folder])
    if file is None and local.is_dir():
        file = next((f for f in (local / "open_clip_config.json", local / "config.json") if f.is_file()), None)
    if file is None and name in KNOWN:
        return KNOWN[name]
    if file is None:
        from huggingface_hub import try_to_load_from_cache

        cached = None if local.is_dir() else try_to_load_from_cache(name, "config.json")
        file = Path(cached) if isinstance(cached, str) else None
    if file is None:
        how = "download its config.json, and give it with --model-config" if block == "language_model" else (
            f"put its config.json into a folder, and name that folder in {block}.name"
        )  # fmt: skip
        raise ValueError(f"The shape of {name!r} is not known here: {how} (known without: {', '.join(KNOWN)})")
    try:
        content = json.loads(file.read_text(encoding="utf8"))
        return dict(content.get("text_config" if block == "language_model" else "vision_config") or content)
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{file}: no config.json of a model can be read there: {error}") from error


@dataclass(frozen=True, slots=True)
class Transformer:
    """The shape of a transformer: `queries` and `keys` are heads x head width; `gated` is an MLP of three matrices."""

    width: int
    inner: int
    layers: int
    queries: int
    keys: int
    gated: bool
    biases: bool
    embeddings: int  # all numbers in embeddings and what surrounds the layers
    head: int = 0  # numbers in the matrix of the scores
    vocabulary: int = 0
    embedded: int = 0  # width of the input embeddings
    fp32_norms: bool = False

    @property
    def matrices(self) -> int:
        """Numbers in the matrices of all layers."""
        attention = 2 * self.width * (self.queries + self.keys)
        return self.layers * (attention + (3 if self.gated else 2) * self.width * self.inner)

    @property
    def parameters(self) -> int:
        """Numbers in all weights."""
        biases = self.queries + 2 * self.keys + 2 * self.width + self.inner if self.biases else 0
        norms = 2 * self.width * (2 if self.biases else 1)
        return self.matrices + self.layers * (biases + norms) + self.embeddings

    def kept(self, itemsize: int, eight_bit: bool) -> int:
        """Bytes of a token that one layer keeps for the way back through the frozen model."""
        kept = itemsize * (2 * self.queries + 2 * self.keys + (3 if self.gated else 1) * self.inner)
        kept += 8 * self.width if self.fp32_norms else 2 * itemsize * self.width
        # 8-bit layers also keep their inputs
        return kept + (itemsize * (2 * self.width + self.inner) if eight_bit else 0)


def language_model(config: Mapping[str, Any]) -> Transformer:
    """The shape of a causal language model.

    Raises:
        ValueError: If config.json does not have what decides it.
    """

    def get(*names: str, default: Any = None) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), default)

    kind = str(config.get("model_type"))
    width, layers = get("hidden_size", "n_embd", "d_model"), get("num_hidden_layers", "n_layer")
    heads, vocabulary = get("num_attention_heads", "n_head"), config.get("vocab_size")
    if not (width and layers and heads and vocabulary) or kind in ("bert", "roberta"):
        raise ValueError(
            f"language_model: a config.json with model_type {kind!r} does not describe a causal language model; "
            "--model-config takes the language model's, no other part's"
        )
    plain = kind in ("opt", "gpt2", "gpt_neox", "gpt_neo", "bloom", "phi", "codegen", "gptj")
    head_width = get("head_dim", default=width // heads)
    keys = get("num_key_value_heads", default=heads) * head_width
    inner = get("intermediate_size", "ffn_dim", "n_inner", default=4 * width)
    embedded = get("word_embed_proj_dim", default=width)
    positions = get("max_position_embeddings", "n_positions", default=0) + 2 if kind in ("opt", "gpt2") else 0
    head = vocabulary * embedded
    around = head + positions * width + (2 if plain else 1) * width + (2 * embedded * width if embedded != width else 0)
    if not get("tie_word_embeddings", default=plain):
        around += head
    around += layers * (heads * head_width + 2 * keys) if kind == "qwen2" else 0
    queries = heads * head_width
    return Transformer(
        width, inner, layers, queries, keys, not plain, plain, around, head, vocabulary, embedded, fp32_norms=not plain
    )


def sentence_encoder(config: Mapping[str, Any]) -> int:
    """Numbers in a BERT's weights, its pooler included; of another model as far as its keys are the same."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    rows = config["vocab_size"] + config.get("max_position_embeddings", 512) + config.get("type_vocab_size", 0)
    around = (rows + 2) * width + width * width + width
    return Transformer(width, inner, config["num_hidden_layers"], width, width, False, True, around).parameters


def vision_encoder(config: Mapping[str, Any], *, projection: bool = False) -> tuple[int, int, int, int]:
    """(numbers in its weights, width of its features, tokens of an image, bytes of a pass per item byte and image).

    Raises:
        ValueError: For an encoder that is not a vision transformer and not in KNOWN.
    """
    if "parameters" in config:
        return config["parameters"], config["hidden_size"], 49, 0
    model = config.get("model_cfg", config)
    vision = model.get("vision_cfg", model)
    width, layers = (
        vision.get("width", vision.get("hidden_size")),
        vision.get("layers", vision.get("num_hidden_layers")),
    )
    patch, size = vision.get("patch_size"), vision.get("image_size", 224)
    if not (isinstance(layers, int) and isinstance(patch, int) and width):
        raise ValueError("vision_encoder: its size is not known, as it is not a vision transformer")
    inner = vision.get("intermediate_size") or round(width * vision.get("mlp_ratio", 4.0))
    tokens = ((size if isinstance(size, int) else size[0]) // patch) ** 2 + 1
    around = 3 * patch * patch * width + width + tokens * width + 4 * width
    shape = Transformer(width, inner, layers, width, width, False, True, around)
    features, parameters = width, shape.parameters
    if projection:
        features = model["embed_dim"]
        parameters += width * features
    return parameters, features, tokens, tokens * (2 * inner + 5 * width)


@dataclass(frozen=True, slots=True)
class Data:
    """The texts; the defaults are WikiDiverse's, as `convert` writes it (benchmarks/results/converters.json)."""

    mentions: int = 11_098
    docs: int = 5_565
    dev_mentions: int = 1_617
    text: int = 48  # tokens of a demonstration with its question and answer, without its visual prefix
    name: int = 6  # tokens of a name and its end
    entities: int = 6_000_000
    epochs: int = 5  # if the config does not say


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes, seconds and counts; memory on the GPU includes all weights. `unknown` names parts that are left out."""

    parameters: int
    language_model: int
    encoder: int
    retriever: int
    mapper: int
    optimizer: int
    cache: int
    activations: int
    training: int
    linking: int
    trie: int
    prompt: int
    training_prompt: int
    rows: int
    training_rows: int
    operations_mention: float
    operations_step: float
    training_hours: float
    evaluation_hours: float
    evaluations: int | None
    epochs: float
    epochs_assumed: bool
    mentions_per_second: float
    unknown: tuple[str, ...] = ()


def estimate(
    linker: Mapping[str, Any],
    training: Mapping[str, Any],
    gpu: Gpu,
    data: Data | None = None,
    *,
    folder: Path,
    model_config: Path | None = None,
) -> Estimate:
    """Estimate what a linker's block of a config takes.

    Args:
        linker: The block, its defaults filled in.
        training: The config's training block, its defaults filled in.
        gpu: The machine.
        data: The texts.
        folder: The config's folder, which relative names are looked up in.
        model_config: The language model's config.json, if its name is not known.

    Raises:
        ValueError: If the shape of the language model is not known.
    """
    data, unknown = data or Data(), []
    block, retriever, image = linker["language_model"], linker["retriever"], linker["vision_encoder"]
    quantization = block.get("quantization")
    if quantization is not None and quantization not in SETTINGS:
        raise ValueError(
            f"quantization = {quantization!r} is not known: use {' or '.join(SETTINGS)}, or null for none."
        )
    item = _itemsize(block.get("dtype") or ("float16" if quantization else None))
    model = language_model(read_shape(block["name"], folder, "language_model", model_config))
    vision = sentences = passes = 0
    features = tokens = 0
    try:
        if linker["use_image"]:
            shape = _open_clip(image, folder) or read_shape(image["name"], folder, "vision_encoder")
            vision, features, tokens, passes = vision_encoder(shape, projection=image.get("projection", False))
    except ValueError as error:
        unknown.append(str(error))
    try:
        if retriever["@misc"].startswith("spacy_gemel.SentenceTransformerRetriever"):
            sentences = sentence_encoder(read_shape(retriever["name"], folder, "retriever"))
    except (ValueError, KeyError) as error:
        unknown.append(f"retriever: {error}")

    prefix = int(linker["model"]["prefix_length"]) if linker["use_image"] else 0
    n = 0 if retriever["@misc"].startswith("spacy_gemel.NoRetriever") else int(linker["n_demonstrations"])
    most = linker["n_training_demonstrations"]
    prompt, learned = ((k + 1) * (data.text + prefix) for k in (n, n if most is None else min(n, int(most))))
    beams, budget = linker["beam_size"], linker["batch_tokens"]
    room = beams * linker["max_name_tokens"]
    rows, training_rows = max(1, budget // (prompt + room)), max(1, budget // learned)
    filled = max(prompt, budget // rows - room)  # batches are as full as batch_tokens allows

    weights, quantized = _weights(model, item, quantization)
    image_item = _itemsize(image.get("dtype"))
    constant = weights + image_item * vision + 4 * sentences + OVERHEAD
    constant += min(EMBEDDING_CACHE, data.mentions * data.text * model.embedded * item) if n else 0
    mapper = 4 * (features + 1) * prefix * model.embedded if features else 0
    constant += mapper
    kept = item * model.width * model.inner if quantization else 0  # one matrix, written out for a moment
    learning_tokens = training_rows * (max(learned, budget // training_rows) + data.name - 1)
    temporary = item * 2 * model.inner + (15 if model.fp32_norms else 2 * item) * model.width
    # scores at the positions of all names, and twice their gradients
    scores = training_rows * min(training_rows * data.name, learning_tokens // training_rows) * model.vocabulary
    activations = learning_tokens * model.layers * model.kept(item, quantization == "8bit")
    activations += max(learning_tokens * temporary, 3 * item * scores) + kept
    cache = rows * (filled + room) * model.layers * 2 * model.keys * item
    reading = rows * filled * item * ((3 if model.gated else 2) * model.inner + 5 * model.width)
    searching = cache + max(reading, rows * beams * model.vocabulary * 8) + kept
    encoding = IMAGES_AT_ONCE * image_item * passes

    mixed = _itemsize(block.get("dtype")) == 2 or quantization is not None
    rate = 1e12 * (gpu.tflops if mixed else gpu.tflops_fp32)
    operations_image = 2.0 * vision * tokens
    seconds_image = operations_image / (1e12 * (gpu.tflops if image_item == 2 else gpu.tflops_fp32))
    attention = 2.0 * model.layers * model.queries  # a causal pass over t tokens takes this times t squared
    products = 2.0 * model.matrices
    operations_prompt = products * prompt + 2.0 * model.head + attention * prompt**2
    operations_token = beams * (products + 2.0 * model.head + 2 * attention * prompt)
    length = learned + data.name
    # forward, and the gradient back to the prefixes alone: twice the products, 3.5 times the attention
    operations_step = 2 * (products * length + 2.0 * model.head * data.name) + 3.5 * attention * length**2
    least = SECONDS_PER_LAYER * model.layers
    moved = weights + cache + (2 * quantized * item if quantization == "4bit" else 0)  # 4 bits are written out in full
    step = max(rows * operations_token / rate, moved / (1e9 * gpu.bandwidth), least)
    reading_seconds = max(rows * operations_prompt / rate, least)
    speed = 1 / ((reading_seconds + PASSES * step) / rows + seconds_image + HOST_SECONDS)
    epochs, epochs_assumed, evaluations = _schedule(training, data)
    step_seconds = max(operations_step / rate, 3 * least / training_rows) + HOST_SECONDS
    return Estimate(
        parameters=model.parameters,
        language_model=weights,
        encoder=image_item * vision,
        retriever=4 * sentences,
        mapper=mapper,
        optimizer=3 * mapper,
        cache=cache,
        activations=activations,
        training=constant + 3 * mapper + max(activations, encoding, searching),
        linking=constant + max(searching, encoding),
        trie=trie_bytes(data.entities, model.vocabulary),
        prompt=prompt,
        training_prompt=learned,
        rows=rows,
        training_rows=training_rows,
        operations_mention=operations_prompt + PASSES * operations_token + operations_image,
        operations_step=operations_step,
        training_hours=data.mentions * (epochs * step_seconds + seconds_image) / 3600,
        evaluation_hours=data.dev_mentions / speed / 3600,
        evaluations=evaluations,
        epochs=epochs,
        epochs_assumed=epochs_assumed,
        mentions_per_second=speed,
        unknown=tuple(unknown),
    )


def _itemsize(dtype: str | None) -> int:
    return 2 if dtype in ("float16", "bfloat16", "fp16", "bf16") else 4


def _weights(model: Transformer, item: int, quantization: str | None) -> tuple[int, int]:
    """Bytes of the weights, and the numbers that are quantized: the layers' matrices, as bitsandbytes stores them."""
    if quantization is None:
        return item * model.parameters, 0
    numbers = model.matrices
    rows = model.layers * (model.queries + 2 * model.keys + 2 * model.width + (2 if model.gated else 1) * model.inner)
    stored = numbers // 2 + 4 * (numbers // 64) if quantization == "4bit" else numbers + 4 * rows
    return item * (model.parameters - numbers) + stored, numbers


def _open_clip(block: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """The shape of a model in open_clip's list; None for a folder, or another registered encoder."""
    if not block["@misc"].startswith("spacy_gemel.OpenCLIP") or resolve(block["name"], [folder]).is_dir():
        return None
    import open_clip

    config: dict[str, Any] | None = open_clip.get_model_config(block["name"])
    if config is None:
        raise ValueError(f"open_clip has no model {block['name']!r}: correct vision_encoder.name")
    return config


def trie_bytes(entities: int, vocabulary: int) -> int:
    """Bytes of the trie of so many entities' names (kb.trie): 4.29 edges a name, as 6 million made-up names had."""
    edges = round(4.288 * entities)
    return edges * ((2 if vocabulary <= 65_535 else 4) + 4 + 1) + 4 * entities + 4 * (edges // 256 + 2)


def _schedule(training: Mapping[str, Any], data: Data) -> tuple[float, bool, int | None]:
    """(epochs, whether they are assumed, evaluations on dev data or None); updates are counted as spaCy counts them."""
    batcher = training["batcher"]
    batch = batcher.get("size") if batcher.get("@batchers") == "spacy.batch_by_sequence.v1" else None
    batch = batch if isinstance(batch, int) else None
    epochs = training["max_epochs"] if (training["max_epochs"] or 0) > 0 else None  # -1 streams without an end
    steps = training["max_steps"] or None
    updates = None
    if batch is not None and (epochs or steps is None):
        updates = (epochs or data.epochs) * math.ceil(data.docs / batch)
    if steps is not None and (batch is not None or not epochs):
        updates = min(updates or steps + 1, steps + 1)  # spaCy makes one update more than max_steps
    passes: float = epochs or data.epochs
    if steps is not None and batch is not None and updates is not None:
        passes = min(updates * batch / data.docs, epochs or math.inf)
    frequency = training["eval_frequency"]
    evaluations = math.ceil(updates / frequency) if updates is not None and frequency else None
    return passes, epochs is None and (steps is None or batch is None), evaluations
