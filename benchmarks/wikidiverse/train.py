"""Trains the language model from nothing, in steps that can be interrupted and taken up again."""

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
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.wikidiverse.data import Asked
from benchmarks.wikidiverse.text import NEIGHBOURS, PLAIN, Lesson, TextMaker
from benchmarks.wikidiverse.tokens import POSITIONS
from spacy_gemel.linking.prompt import demonstration_text, query_text

_PLAIN_SHARE = 0.1  # of the places that are no answer, how many are asked: the text itself matters little
_EVERY = 200
_CORES_LEFT = 2  # of those that may make text beside the training


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
        """The same course with another end of its last lesson. SystemExit where that would leave nothing of it."""
        start = self.lessons[-2].until
        if steps <= start:
            raise SystemExit(f"{steps} steps are too few: the last lesson begins with step {start}")
        return replace(self, lessons=(*self.lessons[:-1], replace(self.lessons[-1], until=steps)))

    def lesson_at(self, step: int) -> Lesson:
        """The lesson that `step` belongs to."""
        return next(lesson for lesson in self.lessons if step < lesson.until)

    def rate_share(self, step: int) -> float:
        """What part of the full rates a step uses: a linear warm-up, then a cosine from the last lesson's start on."""
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
    """What each step reads: ids, weights, and which of the places are asked, (rows, row_length) each."""

    def __init__(self, course: Course, maker: TextMaker) -> None:
        self.course = course
        self.maker = maker

    def __getitem__(self, step: int) -> _Batch:
        course = self.course
        lesson = course.lesson_at(step)
        ids, weights = self.maker.rows(lesson, course.seed, step * course.rows, course.rows, course.row_length)
        drawn = np.random.default_rng([course.seed, 22, step]).random(weights.shape) < _PLAIN_SHARE
        asked = (weights > PLAIN) | ((weights > 0) & drawn)
        asked[:, 0] = False
        return torch.from_numpy(ids), torch.from_numpy(weights), torch.from_numpy(asked)

    def of(self, steps: range) -> DataLoader[_Batch]:
        """Some steps in their order; made by other processes where there are cores for it."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = max(0, min(12, cores - _CORES_LEFT))
        return DataLoader(
            self, batch_size=None, sampler=steps, num_workers=workers, prefetch_factor=4 if workers else None
        )


def train(
    course: Course, maker: TextMaker, vocabulary: int, watch: Sequence[list[int]], work: Path, inputs: str
) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Train and return the model, fp32 on the CPU or wherever there is a GPU, and a report of its course.

    watch: token ids of prompts with their answers, looked at while training; each ends with the answer and a newline,
        its length before them first.
    inputs: a hash of what the text is made from. `work` keeps the state; a run with the same course and inputs takes
        it up from there.
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
        losses.append(loss.detach())  # asked for its value only now and then: a GPU would wait
        if (step + 1) % _EVERY == 0 or step + 1 == course.steps:
            mean = float(torch.stack(losses[-100:]).mean())
            seconds = time.perf_counter() - began
            seen = {"step": step + 1, "lesson": course.lesson_at(step).name, "loss": round(mean, 4)}
            state["log"].append({**seen, **look(model, watch), "seconds": round(seconds)})
            state.update(step=step + 1, seconds=seconds)
            bar.write(json.dumps(state["log"][-1]), file=sys.stderr)
            bar.set_postfix(loss=f"{mean:.3f}")
            _save(work, model, optimizers, state)
    tokens = course.steps * course.rows * course.row_length
    report = {
        "course": asdict(course),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": tokens,
        "seconds": round(float(state["seconds"])),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "log": state["log"],
    }
    return model.eval().cpu(), report


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
    """SystemExit where torch is too old to have the optimizer."""
    if not hasattr(torch.optim, "Muon"):
        raise SystemExit(f"The training needs torch 2.9 or later for its Muon optimizer; this is {torch.__version__}")


def _optimizers(course: Course, model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the layers, with which a small model learns to copy; AdamW for the rest."""
    check_torch()
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    held = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in held]
    return [
        torch.optim.Muon(matrices, lr=course.matrix_learning_rate, weight_decay=0.02),
        torch.optim.AdamW(others, lr=course.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def _loss(
    model: LlamaForCausalLM, body: Any, ids: torch.Tensor, weights: torch.Tensor, asked: torch.Tensor
) -> torch.Tensor:
    """The weighted mean cross-entropy of the places that are asked, in bfloat16; (rows, row_length) each."""
    scale = weights[asked]
    with torch.autocast(ids.device.type, torch.bfloat16):
        hidden = body(input_ids=ids, use_cache=False).last_hidden_state[asked.roll(-1, dims=1)]
        logits = model.lm_head(hidden).float()  # (asked, vocab)
    return (cross_entropy(logits, ids[asked], reduction="none") * scale).sum() / scale.sum()


def watched(
    maker: TextMaker, examples: Sequence[Asked], near: NDArray[np.int64], shown: Sequence[Asked]
) -> list[list[int]]:
    """What `look` takes: for each example its prompt's length, the prompt's ids, then the name and a newline."""
    rows = []
    for asked, indices in zip(examples, near, strict=True):
        prompt: list[int] = []
        for index in indices[:NEIGHBOURS][::-1]:
            prompt += maker.encode(demonstration_text(shown[index].text, shown[index].mention, shown[index].name))
        prompt += maker.encode(query_text(asked.text, asked.mention))
        rows.append([len(prompt), *prompt, *maker.encode(asked.name), *maker.encode("\n")])
    return rows


def look(model: LlamaForCausalLM, watch: Sequence[list[int]]) -> dict[str, float]:
    """The mean loss of the answers, and the share that a greedy search without a trie would say."""
    model.eval()
    device = next(model.parameters()).device
    losses, right = [], 0
    with torch.no_grad():
        for start in range(0, len(watch), 32):
            some = watch[start : start + 32]
            padded = pad_sequence([torch.tensor(row[1:]) for row in some], batch_first=True).to(device)
            logits = model(input_ids=padded).logits  # (prompts, tokens, vocab)
            for index, row in enumerate(some):
                name = torch.tensor(row[1 + row[0] :], device=device)
                message = logits[index, row[0] - 1 : len(row) - 2].float()
                losses.append(float(cross_entropy(message, name)))
                right += bool((message.argmax(-1) == name).all())
    model.train()
    return {"held_out_loss": round(float(np.mean(losses)), 4), "held_out_greedy": round(right / max(1, len(watch)), 4)}


def _tensors(
    model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, tuple[torch.nn.Parameter, Any]]:
    """Each parameter by its name, with the optimizer's state of it."""
    owner = {id(p): o.state for o in optimizers for group in o.param_groups for p in group["params"]}
    return {name: (parameter, owner[id(parameter)][parameter]) for name, parameter in model.named_parameters()}


def _save(work: Path, model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], state: Any) -> None:
    tensors = {}
    for name, (parameter, held) in _tensors(model, optimizers).items():
        tensors[f"model|{name}"] = parameter.detach().cpu().contiguous()
        for part, value in held.items():
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
            for name, (parameter, held) in _tensors(model, optimizers).items():
                parameter.copy_(file.get_tensor(f"model|{name}"))
                parts = [kept.split("|")[0] for kept in file.keys() if kept.endswith(f"|{name}")]  # noqa: SIM118
                held.update({p: file.get_tensor(f"{p}|{name}").to(parameter.device) for p in parts if p != "model"})
    return state
