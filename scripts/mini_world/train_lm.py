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

from .gates import measure_gates
from .prompts import PromptMaker
from .token_stream import PLAIN, Encoder, make_rows


@dataclass(frozen=True)
class LMSettings:
    """Size of the model and length of its training."""

    hidden: int = 192
    layers: int = 4
    heads: int = 6
    feed_forward: int = 512
    row_length: int = 352
    rows: int = 8
    steps: int = 3000
    copy_only_steps: int = 500  # first copying alone: it comes late or never when taught among the rest
    learning_rate: float = 2.5e-3
    warm_up: int = 150
    seed: int = 0


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


def learning_rate(settings: LMSettings, step: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < settings.warm_up:
        return settings.learning_rate * (step + 1) / settings.warm_up
    done = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return settings.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def _save_state(folder: Path, model: LlamaForCausalLM, optimizer: torch.optim.AdamW, state: dict[str, Any]) -> None:
    tensors = {f"model.{name}": value.detach().cpu().contiguous() for name, value in model.named_parameters()}
    for place, parameter in enumerate(model.parameters()):
        for name, value in optimizer.state[parameter].items():
            tensors[f"optimizer.{place}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "state.tmp"
    save_file(tensors, str(temporary), metadata={"state": json.dumps(state)})
    temporary.replace(folder / "state.safetensors")


def _load_state(
    folder: Path, model: LlamaForCausalLM, optimizer: torch.optim.AdamW, key: dict[str, Any]
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
    for place, parameter in enumerate(model.parameters()):
        head = f"optimizer.{place}."
        found = {name[len(head) :]: value for name, value in tensors.items() if name.startswith(head)}
        optimizer.state[parameter] = {n: v if n == "step" else v.to(parameter.device) for n, v in found.items()}
    return state


def train_lm(
    settings: LMSettings,
    maker: PromptMaker,
    encoder: Encoder,
    work: Path,
    device: torch.device,
    inputs_hash: str = "",
) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Train and return the model (fp32, on the CPU) and a report of losses, speed and gates.

    `work` keeps the state every 200 steps; a run with the same settings and inputs takes it up from there.
    """
    vocab_size, eos = len(encoder.tokenizer), int(encoder.tokenizer.eos_token_id)
    model = build_model(settings, vocab_size, eos).to(device)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)
    key = {"settings": asdict(settings), "inputs": inputs_hash}
    state = _load_state(work, model, optimizer, key) or {"key": key, "step": 0, "seconds": 0.0, "log": []}
    body: Any = model.model
    if device.type == "cuda" or shutil.which("g++"):
        body = torch.compile(model.model)
    began = time.perf_counter() - float(state["seconds"])
    bar = tqdm(range(state["step"], settings.steps), initial=state["step"], total=settings.steps, desc="language model")
    picked = np.random.default_rng([settings.seed, 22])
    losses: list[float] = []
    model.train()
    for step in bar:
        copying = step < settings.copy_only_steps
        ids, weights = make_rows(
            maker,
            encoder,
            settings.seed,
            step * settings.rows,
            settings.rows,
            settings.row_length,
            1.0 if copying else 0.5,
            9,
        )
        # the head is asked at the answers and at a tenth of the other places: the text itself matters little
        chosen = (weights > PLAIN) | ((weights > 0) & (picked.random(weights.shape) < 0.1))
        chosen[:, 0] = False
        targets = torch.from_numpy(ids[chosen]).to(device)
        scale = torch.from_numpy(weights[chosen]).to(device)
        before = torch.from_numpy(np.roll(chosen, -1, axis=1)).to(device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        with (
            torch.autocast(device.type, torch.bfloat16) if device.type in ("cuda", "cpu") else contextlib.nullcontext()
        ):
            hidden = body(input_ids=torch.from_numpy(ids).to(device), use_cache=False).last_hidden_state[before]
            logits = model.lm_head(hidden).float()  # (chosen, vocab)
        each = cross_entropy(logits, targets, reduction="none")
        loss = (each * scale).sum() / scale.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 200 == 0 or step + 1 == settings.steps:
            model.eval()
            gates = measure_gates(model, encoder, maker, number=60)
            model.train()
            row = {"step": step + 1, "loss": round(float(np.mean(losses[-100:])), 4), **gates}
            state["log"].append(row)
            state["step"] = step + 1
            state["seconds"] = time.perf_counter() - began
            bar.write(json.dumps({**row, "seconds": round(state["seconds"])}), file=sys.stderr)
            _save_state(work, model, optimizer, state)
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
        "gates": measure_gates(model, encoder, maker),
    }
    return model, report
