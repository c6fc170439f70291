"""Trains the small CLIP (Radford et al. 2021): an open_clip ViT and a text tower on generated pictures and captions."""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import log_softmax, normalize
from tqdm import tqdm

from .drawing import draw
from .names import KINDS, load_world
from .sampling import sample_split

IMAGE = 64
_CONTEXT = 10
_WORDS = (
    "a", "the", "picture", "photograph", "drawing", "of", "one", "small", "large", "in", "light", "shade",
    "with", "some",
)  # fmt: skip
_TEMPLATES = (
    "a picture of a {k}", "a photograph of the {k}", "the {k} in the light", "one small {k}",
    "a large {k} in the shade",
    "a drawing of a {k} with some light", "some {k}", "the picture of one {k}", "a {k}",
)  # fmt: skip

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": IMAGE, "layers": 4, "width": 96, "head_width": 32, "patch_size": 8, "mlp_ratio": 3.0},
    "text_cfg": {"context_length": _CONTEXT, "vocab_size": 64, "width": 48, "heads": 2, "layers": 1},
}
PREPROCESS_CFG: dict[str, Any] = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


@dataclass(frozen=True)
class VisionSettings:
    """Length of the training."""

    pictures: int = 5600
    batch: int = 64
    steps: int = 2000
    learning_rate: float = 1.5e-3
    seed: int = 0


def caption_ids(kind: str, rng: np.random.Generator) -> list[int]:
    """A caption of the kind as word ids; the last id of the vocabulary ends it, where open_clip pools."""
    words = _TEMPLATES[int(rng.integers(len(_TEMPLATES)))].split()
    ids = [1 + len(_WORDS) + KINDS.index(kind) if word == "{k}" else 1 + _WORDS.index(word) for word in words]
    ids.append(int(MODEL_CFG["text_cfg"]["vocab_size"]) - 1)
    return ids + [0] * (_CONTEXT - len(ids))


def small_pixels(image: Image.Image) -> np.ndarray:
    """As open_clip's preprocessing of the saved model has it: (3, 64, 64) float32."""
    pixels = np.asarray(image.resize((IMAGE, IMAGE), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    pixels = (pixels - np.array(PREPROCESS_CFG["mean"], dtype=np.float32)) / np.array(
        PREPROCESS_CFG["std"], dtype=np.float32
    )
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _one(key: tuple[int, ...]) -> np.ndarray:
    return small_pixels(draw(KINDS[key[-1] % len(KINDS)], np.random.default_rng(list(key))))


def _draw_many(keys: list[tuple[int, ...]], label: str) -> torch.Tensor:
    with ProcessPoolExecutor(2) as pool:
        drawn = list(tqdm(pool.map(_one, keys, chunksize=28), total=len(keys), desc=label, mininterval=1.0))
    return torch.from_numpy(np.stack(drawn))


def _augment(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mirror, shift by up to 6 pixels, change light and contrast."""
    if rng.random() < 0.5:
        pixels = pixels.flip(-1)
    down, right = (int(rng.integers(-6, 7)) for _ in range(2))
    pixels = torch.roll(pixels, (down, right), (-2, -1))
    return pixels * float(rng.uniform(0.75, 1.25)) + float(rng.uniform(-0.3, 0.3))


def features(model: CLIP, pixels: torch.Tensor) -> torch.Tensor:
    """The pooled hidden state before the projection, (pictures, 96)."""
    projection, model.visual.proj = model.visual.proj, None
    with torch.inference_mode():
        outputs = torch.cat([model.visual(part) for part in pixels.split(256)])
    model.visual.proj = projection
    return outputs


def linear_probe(
    model: CLIP, train: torch.Tensor, train_kinds: torch.Tensor, dev: torch.Tensor, dev_kinds: torch.Tensor
) -> float:
    """Share of dev pictures whose kind a ridge regression on the features of training pictures tells."""
    x, y = features(model, train).double(), torch.nn.functional.one_hot(train_kinds, len(KINDS)).double()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    weights = torch.linalg.solve(x.T @ x + 0.1 * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)
    z = features(model, dev).double()
    guess = (torch.cat([z, torch.ones(len(z), 1, dtype=z.dtype)], 1) @ weights).argmax(1)
    return float((guess == dev_kinds).double().mean())


def train_vision(settings: VisionSettings, device: torch.device) -> tuple[CLIP, dict[str, Any]]:
    """Train and return the model (on the CPU) and a report. The pictures have seeds of their own."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng([settings.seed, 51])
    began = time.perf_counter()
    keys: list[tuple[int, ...]] = [(settings.seed, 52, picture) for picture in range(settings.pictures)]
    pixels = _draw_many(keys, "pictures for the vision encoder")
    kinds = torch.tensor([picture % len(KINDS) for picture in range(settings.pictures)])
    model = CLIP(MODEL_CFG["embed_dim"], CLIPVisionCfg(**MODEL_CFG["vision_cfg"]), CLIPTextCfg(**MODEL_CFG["text_cfg"]))
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    bar = tqdm(range(settings.steps), desc="vision encoder", mininterval=1.0)
    losses: list[float] = []
    for step in bar:
        rate = min(1.0, (step + 1) / 80) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / settings.steps)))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate
        chosen = rng.integers(settings.pictures, size=settings.batch)
        images = torch.stack([_augment(pixels[picture], rng) for picture in chosen]).to(device)
        captions = torch.tensor([caption_ids(KINDS[int(kinds[picture])], rng) for picture in chosen]).to(device)
        image = normalize(model.encode_image(images), dim=-1)
        text = normalize(model.encode_text(captions), dim=-1)
        logits = model.logit_scale.exp().clamp(max=50) * image @ text.T  # (pictures, captions)
        # several pictures of a batch show the same kind: each of their captions is a match
        same = (kinds[chosen][:, None] == kinds[chosen][None]).float().to(device)
        match = same / same.sum(1, keepdim=True)
        loss = (
            -(match * log_softmax(logits, 1)).sum(1).mean() / 2 - (match * log_softmax(logits.T, 1)).sum(1).mean() / 2
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
    model = model.cpu().eval()
    dev = sample_split(load_world(settings.seed), "dev", 300, settings.seed)
    images = torch.from_numpy(
        np.stack([small_pixels(draw(m.reading.kind, np.random.default_rng(list(m.rng_key)))) for m in dev])
    )
    probe = linear_probe(model, pixels, kinds, images, torch.tensor([KINDS.index(m.reading.kind) for m in dev]))
    report = {
        "settings": asdict(settings),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.perf_counter() - began),
        "loss": round(float(np.mean(losses[-50:])), 4),
        "linear_probe_on_dev": round(probe, 4),
    }
    return model, report


def save_vision(model: CLIP, path: Path) -> None:
    """Write the folder that open_clip reads as "local-dir:PATH"."""
    path.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG}
    (path / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, str(path / "open_clip_model.safetensors"))
