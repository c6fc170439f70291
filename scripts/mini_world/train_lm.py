"""Trains the language model from nothing, in steps that can be interrupted and taken up again."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from .curriculum import ANSWER_MARK, CAPTION, MENTION, NOTHING, QUESTION, Lesson, make_rows
from .gates import LOG_SEED, measure_gates
from .prompts import PromptMaker
from .token_stream import OTHER, Encoder

LESSONS = (
    Lesson("a key, then its name", 200, NOTHING),
    Lesson("the answer's mark between them", 400, ANSWER_MARK),
    Lesson("a mention between them", 700, MENTION),
    Lesson("a question between them", 1000, QUESTION),
    Lesson("a caption and a question between them", 1500, CAPTION, prompts=0.2, copied=1.0),
    Lesson("prompts", 6000, CAPTION, prompts=0.8, copied=0.5, statements=0.06, picture_noise=1.0),
)


@dataclass(frozen=True)
class LMSettings:
    """Size of the model and course of its training."""

    hidden: int = 192
    layers: int = 4
    heads: int = 4
    feed_forward: int = 512
    row_length: int = 352
    rows: int = 8
    lessons: tuple[Lesson, ...] = LESSONS
    learning_rate: float = 2e-3  # AdamW, for embeddings and norms
    matrix_learning_rate: float = 0.01  # Muon, for the layers' matrices
    warm_up: int = 100
    seed: int = 0

    @property
    def steps(self) -> int:
        """Of all lessons together."""
        return self.lessons[-1].until

    def lesson_at(self, step: int) -> Lesson:
        """The lesson that `step` belongs to."""
        return next(lesson for lesson in self.lessons if step < lesson.until)


def build_model(settings: LMSettings, vocab_size: int, eos: int) -> LlamaForCausalLM:
    """A fresh LlamaForCausalLM, tied embeddings, 640 positions."""
    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        intermediate_size=settings.feed_forward,
        max_position_embeddings=640,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=eos,
        initializer_range=0.03,
    )
    return LlamaForCausalLM(config)


def build_optimizers(settings: LMSettings, model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the layers' matrices, AdamW for embeddings and norms.

    With AdamW alone the same text taught the model to copy several times more slowly, or not at all.
    """
    if not hasattr(torch.optim, "Muon"):
        raise SystemExit(f"pretraining needs torch 2.9 or later for its Muon optimizer; this is {torch.__version__}")
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    matrix_ids = set(map(id, matrices))
    rest = [p for p in model.parameters() if id(p) not in matrix_ids]
    return [
        torch.optim.Muon(matrices, lr=settings.matrix_learning_rate, weight_decay=0.02),
        torch.optim.AdamW(rest, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def learning_rate_share(settings: LMSettings, step: int) -> float:
    """What part of the full rates a step uses: linear warm-up; the last lesson goes down to a fiftieth by a cosine."""
    start = settings.lessons[-2].until if len(settings.lessons) > 1 else settings.warm_up
    done = max(0.0, (step - start) / max(1, settings.steps - start))
    return min(1.0, (step + 1) / settings.warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def _states_of(optimizers: list[torch.optim.Optimizer], model: LlamaForCausalLM) -> list[tuple[Any, Any]]:
    """Each parameter of the model with the `state` of the optimizer that it belongs to."""
    owner = {id(p): o.state for o in optimizers for group in o.param_groups for p in group["params"]}
    return [(parameter, owner[id(parameter)]) for parameter in model.parameters()]


def _save_state(
    folder: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], state: dict[str, Any]
) -> None:
    tensors = {f"model.{name}": value.detach().cpu().contiguous() for name, value in model.named_parameters()}
    for index, (parameter, state_of) in enumerate(_states_of(optimizers, model)):
        for name, value in state_of[parameter].items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "state.tmp"
    save_file(tensors, str(temporary), metadata={"state": json.dumps(state)})
    temporary.replace(folder / "state.safetensors")


def _load_state(
    folder: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], key: dict[str, Any]
) -> dict[str, Any] | None:
    path = folder / "state.safetensors"
    if not path.exists():
        return None
    from safetensors import safe_open

    with safe_open(str(path), "pt") as file:
        state: dict[str, Any] = json.loads(file.metadata()["state"])
    if state["key"] != key:
        return None
    tensors = load_file(str(path))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    for index, (parameter, state_of) in enumerate(_states_of(optimizers, model)):
        head = f"optimizer.{index}."
        values = {name[len(head) :]: value for name, value in tensors.items() if name.startswith(head)}
        state_of[parameter] = {n: v.to(parameter.device) for n, v in values.items()}
    return state


def _noise(words: torch.Tensor, pictures: np.ndarray, seed: int, step: int) -> torch.Tensor:
    """Noise where a picture is told in words, of 0 to 1 times their size; zero elsewhere. (rows, length, hidden).

    A mapper's soft tokens are never quite a word's embedding: the model learns to read what is only near one.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    size = words.detach().float().pow(2).mean().sqrt()
    strength = torch.rand(pictures.shape, generator=generator) * torch.from_numpy(pictures)
    noise = torch.randn(words.shape, generator=generator) * strength[..., None]
    return (noise.to(words.device) * size).to(words.dtype)


def train_lm(
    settings: LMSettings,
    maker: PromptMaker,
    encoder: Encoder,
    work: Path,
    device: torch.device,
    inputs_hash: str = "",
) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Train and return the model (fp32, on the CPU) and a report of losses, speed and the gates on the way.

    `work` keeps the state every 200 steps; a run with the same settings and inputs takes it up from there.
    """
    vocab_size, eos = len(encoder.tokenizer), int(encoder.tokenizer.eos_token_id)
    model = build_model(settings, vocab_size, eos).to(device)
    optimizers = build_optimizers(settings, model)
    key = json.loads(json.dumps({"settings": asdict(settings), "inputs": inputs_hash}))  # as it will be read again
    state = _load_state(work, model, optimizers, key) or {"key": key, "step": 0, "seconds": 0.0, "log": []}
    body: Any = model.model
    if device.type == "cuda" or shutil.which("g++"):
        body = torch.compile(model.model)
    began = time.perf_counter() - float(state["seconds"])
    bar = tqdm(range(state["step"], settings.steps), initial=state["step"], total=settings.steps, desc="language model")
    losses: list[float] = []
    model.train()
    for step in bar:
        lesson = settings.lesson_at(step)
        ids, weights, pictures = make_rows(
            maker, encoder, lesson, settings.seed, step * settings.rows, settings.rows, settings.row_length
        )
        # the head is asked at the answers and at a tenth of the other places: the text itself matters little
        picked = np.random.default_rng([settings.seed, 22, step]).random(weights.shape) < 0.1
        chosen = (weights > OTHER) | ((weights > 0) & picked)
        chosen[:, 0] = False
        targets = torch.from_numpy(ids[chosen]).to(device)
        scale = torch.from_numpy(weights[chosen]).to(device)
        preceding = torch.from_numpy(np.roll(chosen, -1, axis=1)).to(device)
        share = learning_rate_share(settings, step)
        for optimizer, full in zip(optimizers, (settings.matrix_learning_rate, settings.learning_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = full * share
        with (
            torch.autocast(device.type, torch.bfloat16) if device.type in ("cuda", "cpu") else contextlib.nullcontext()
        ):
            words = model.model.embed_tokens(torch.from_numpy(ids).to(device))  # (rows, length, hidden)
            words = words + lesson.picture_noise * _noise(words, pictures, settings.seed, step)
            hidden = body(inputs_embeds=words, use_cache=False).last_hidden_state[preceding]
            logits = model.lm_head(hidden).float()  # (chosen, vocab)
        each = cross_entropy(logits, targets, reduction="none")
        loss = (each * scale).sum() / scale.sum()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 200 == 0 or step + 1 == settings.steps:
            model.eval()
            gates = measure_gates(model, encoder, maker, number=60, seed=LOG_SEED)
            model.train()
            row = {"step": step + 1, "lesson": lesson.name, "loss": round(float(np.mean(losses[-100:])), 4), **gates}
            state["log"].append(row)
            state["step"] = step + 1
            state["seconds"] = time.perf_counter() - began
            bar.write(json.dumps({**row, "seconds": round(state["seconds"])}), file=sys.stderr)
            _save_state(work, model, optimizers, state)
        bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
    model = model.eval().cpu()
    tokens = settings.steps * settings.rows * settings.row_length
    report = {
        "settings": asdict(settings),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(float(state["seconds"])),
        "tokens": tokens,
        "tokens_per_second": round(tokens / max(1.0, float(state["seconds"]))),
        "log": state["log"],
    }
    return model, report
