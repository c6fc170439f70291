"""What a plan takes on a machine: the memory, the operations, and the time that follows from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from research.sizing.gpus import Gpu
from research.sizing.memory import (
    KEPT_EMBEDDINGS,
    encoding_memory,
    prediction_memory,
    rows_of,
    training_memory,
)
from research.sizing.models import (
    build_encoder,
    build_language_model,
    build_sentence_encoder,
    bytes_of,
    parameters_of,
    read_model_config,
)
from research.sizing.plan import Plan
from research.sizing.quantized import quantize
from research.sizing.tracing import without_data
from research.sizing.work import encoding, work_of
from spacy_gemel.models.frozen import torch_dtype
from spacy_gemel.models.quantization import SETTINGS, quantized_dtype

# Assumptions, each said in `size --help` or in docs/sizes.md.
OVERHEAD = 2**29
"""Bytes that CUDA's context and the workspaces of its libraries take."""
SECONDS_PER_LAYER = 0.0008
"""The least time of a layer, whatever its size: launching its kernels from Python."""
HOST_SECONDS = 0.016
"""A mention's time outside the models: retrieval, tokens, the trie; measured in benchmarks/results/linking.json."""
PASSES = 9
"""Steps of a search after the prompt, for a name in a trie of real titles (8.5 simulated)."""
FP32 = 4


@dataclass(frozen=True, slots=True)
class Data:
    """What the texts are like.

    mentions, docs: of the training set. dev_mentions: of the dev data. text: tokens of a demonstration, its question
    and answer included, its visual prefix not; of the query as many. name: tokens of a name and its end. entities: of
    the knowledge base. epochs: where the plan does not say.
    The defaults are WikiDiverse's, as `convert` writes it (benchmarks/results/converters.json): 166 characters a
    demonstration, at 3.5 a token.
    """

    mentions: int = 11_098
    docs: int = 5_565
    dev_mentions: int = 1_617
    text: int = 48
    name: int = 6
    entities: int = 6_000_000
    epochs: int = 5


@dataclass(frozen=True, slots=True)
class Estimate:
    """What was computed; bytes and seconds, unless the name says otherwise.

    parameters: of the language model. training, linking: the most memory of either on the GPU, all weights included.
    cache: of linking, the keys and values of a batch. activations: of training, what the passes take beside weights.
    prompt, training_prompt: tokens. rows, training_rows: prompts at once. trie: on disk and mapped, not on the GPU.
    training_hours: without the evaluations on dev data. evaluation_hours: of one of them. evaluations: how many there
    are while training; None where the config does not tell. epochs_follow: from the config; else they are assumed.
    """

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
    epochs_follow: bool
    mentions_per_second: float


def estimate(plan: Plan, gpu: Gpu, data: Data | None = None, model_config: Path | None = None) -> Estimate:
    """Compute what a plan takes. model_config: the language model's config.json, where its name does not tell.

    Raises ValueError where the shape of a model is not known.
    """
    data = data or Data()
    linker = plan.linker
    block = linker["language_model"]
    dtype, quantization = _dtype(block), block.get("quantization")
    prompt, learned = (
        (shown + 1) * (data.text + plan.prefix_length) for shown in (plan.demonstrations, plan.training_demonstrations)
    )
    beams, longest, budget = linker["beam_size"], linker["max_name_tokens"], linker["batch_tokens"]
    room = beams * longest
    rows, training_rows = rows_of(budget, prompt + room), rows_of(budget, learned)
    with without_data():
        config = read_model_config(block["name"], plan.folder, "language_model", model_config)
        model = build_language_model(config, dtype)
        work, parameters = work_of(model), parameters_of(model.model)
        quantized = quantize(model.model, quantization) if quantization is not None else 0
        weights = bytes_of(model.model)
        sentences = build_sentence_encoder(plan)
        # Batches are as full as they may be.
        filled = max(prompt, budget // rows - room)
        learning = training_memory(model, max(learned, budget // training_rows), training_rows, data.name)
        searching = prediction_memory(model, filled, rows, beams, longest)
    encoder = build_encoder(plan) if linker["use_image"] else None
    looking = encoding_memory(encoder) if encoder else 0
    mapper = FP32 * (encoder.width + 1) * plan.prefix_length * model.width if encoder else 0
    held = [weights, bytes_of(encoder.model) if encoder else 0, bytes_of(sentences) if sentences else 0]
    kept = min(KEPT_EMBEDDINGS, data.mentions * data.text * model.width * dtype.itemsize)
    always = sum(held) + mapper + OVERHEAD + (kept if plan.demonstrations else 0)
    vision = encoding(encoder) if encoder else 0.0
    per_mention = work.reading(prompt) + PASSES * work.extending(beams, prompt) + vision
    per_step = work.learning(learned + data.name, data.name)
    rate = gpu.rate(dtype)
    seeing = vision / gpu.rate(torch_dtype(linker["vision_encoder"].get("dtype")))
    least = SECONDS_PER_LAYER * work.layers
    read = max(rows * work.reading(prompt) / rate, least)
    cache = rows * work.cached * dtype.itemsize * (filled + room)
    # Four bits are written out, and read again, in full.
    moved = weights + cache + (2 * quantized * dtype.itemsize if quantization == "4bit" else 0)
    step = max(rows * work.extending(beams, prompt) / rate, moved / (1e9 * gpu.bandwidth), least)
    speed = 1 / ((read + PASSES * step) / rows + seeing + HOST_SECONDS)
    epochs = plan.training.passes(data.docs, data.epochs)
    stepping = max(per_step / rate, 3 * least / training_rows)
    return Estimate(
        parameters=parameters,
        language_model=weights,
        encoder=held[1],
        retriever=held[2],
        mapper=mapper,
        optimizer=3 * mapper,
        cache=cache,
        activations=learning,
        # the gradient and Adam are held while dev data are linked as well
        training=always + 3 * mapper + max(learning, looking, searching),
        linking=always + max(searching, looking),
        trie=trie_bytes(data.entities, config.get_text_config().vocab_size),
        prompt=prompt,
        training_prompt=learned,
        rows=rows,
        training_rows=training_rows,
        operations_mention=per_mention,
        operations_step=per_step,
        training_hours=data.mentions * (epochs * (stepping + HOST_SECONDS) + seeing) / 3600,
        evaluation_hours=data.dev_mentions / speed / 3600,
        evaluations=plan.training.evaluations(data.docs, data.epochs),
        epochs=epochs,
        epochs_follow=plan.training.tells_passes,
        mentions_per_second=speed,
    )


def _dtype(block: dict[str, Any]) -> torch.dtype:
    """The type of what is not quantized of a language model, as language.loading chooses it."""
    named, quantization = block.get("dtype"), block.get("quantization")
    return quantized_dtype(quantization) if named is None and quantization in SETTINGS else torch_dtype(named)


def trie_bytes(entities: int, vocabulary: int) -> int:
    """Bytes of the trie of so many entities' names (kb.trie): 4.29 edges a name, as 6 million made-up names had."""
    edges = round(4.288 * entities)
    token = 2 if vocabulary <= 65_535 else 4
    return edges * (token + 4 + 1) + 4 * entities + 4 * (edges // 256 + 2)
