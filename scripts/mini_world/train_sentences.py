"""Trains the sentence encoder for mentions the SimCSE way (Gao et al. 2021).

A string is to be like itself seen through dropout, and like the other forms of the same name.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy, normalize
from tqdm import tqdm
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from .names import Reading, readings_by_form

_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_LONGEST = 32


@dataclass(frozen=True)
class SentenceSettings:
    """Size and length of the training."""

    hidden: int = 96
    layers: int = 2
    vocab_size: int = 1500
    batch: int = 80
    steps: int = 350
    learning_rate: float = 1e-3
    temperature: float = 0.05
    supervised_share: float = 0.5
    seed: int = 0


def train_wordpiece(strings: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer of few and therefore short pieces, BERT's special tokens around a string."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.StripAccents()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = list(_SPECIAL.values())
    tokenizer.train_from_iterator(
        strings, trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=_LONGEST, **_SPECIAL)


def form_groups(world: tuple[Reading, ...]) -> list[list[str]]:
    """Strings that mention the same thing: an entity's forms, and its title as one more."""
    groups: dict[str, dict[str, None]] = {}
    for reading in world:
        group = groups.setdefault(reading.family, {reading.family: None})
        if len(reading.forms) > 1:
            group.update(dict.fromkeys(reading.forms))
    return [list(group) for group in groups.values() if len(group) > 1]


def train_sentences(
    settings: SentenceSettings, world: tuple[Reading, ...], names: list[str], device: torch.device
) -> tuple[BertModel, PreTrainedTokenizerFast, dict[str, Any]]:
    """Train and return encoder (on the CPU), tokenizer and report. `names`: further strings, titles of the KB."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng([settings.seed, 61])
    began = time.perf_counter()
    forms = sorted(readings_by_form(world))
    strings = forms * 3 + names
    tokenizer = train_wordpiece(strings, settings.vocab_size)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.hidden // 32,
        intermediate_size=settings.hidden * 3,
        max_position_embeddings=_LONGEST,
        type_vocab_size=1,
        pad_token_id=0,
    )
    model = BertModel(config).to(device).train()  # its pooler stays unused, but BERT is loaded with one
    groups = form_groups(world)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    bar = tqdm(range(settings.steps), desc="sentence encoder", mininterval=1.0)
    losses: list[float] = []

    def embed(texts: list[str]) -> torch.Tensor:
        fed = tokenizer(texts, padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt").to(device)
        hidden = model(input_ids=fed["input_ids"], attention_mask=fed["attention_mask"]).last_hidden_state
        mask = fed["attention_mask"][..., None]
        return normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    for step in bar:
        rate = min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / settings.steps)))
        for parameters in optimizer.param_groups:
            parameters["lr"] = settings.learning_rate * rate
        n_pairs = min(round(settings.batch * settings.supervised_share), len(groups))
        pairs = []
        for index in rng.permutation(len(groups))[:n_pairs]:
            group = groups[int(index)]
            one, other = rng.permutation(len(group))[:2]
            pairs.append((group[int(one)], group[int(other)]))
        taken = {form for pair in pairs for form in pair}
        while len(pairs) < settings.batch:
            text = strings[int(rng.integers(len(strings)))]
            if text not in taken:
                taken.add(text)
                pairs.append((text, text))
        both = embed([first for first, _ in pairs] + [second for _, second in pairs])
        first, second = both[: len(pairs)], both[len(pairs) :]
        logits = first @ second.T / settings.temperature  # (strings, strings)
        target = torch.arange(len(pairs), device=device)
        loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
    model = model.cpu().eval()
    device = torch.device("cpu")
    with torch.inference_mode():
        vectors = embed(forms)
    place_of = {form: index for index, form in enumerate(forms)}
    owners = [{place_of[form] for form in group} for group in groups]
    near = 0
    asked = [(index, owner - {index}) for owner in owners for index in owner]
    for index, same_entity in asked:
        likeness = vectors @ vectors[index]
        likeness[index] = -2
        near += int(likeness.argmax()) in same_entity
    report = {
        "settings": asdict(settings),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.perf_counter() - began),
        "loss": round(float(np.mean(losses[-50:])), 4),
        "nearest_form_is_of_the_same_name": round(near / max(1, len(asked)), 4),
    }
    return model, tokenizer, report


def save_sentences(model: BertModel, tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """Write a sentence-transformers folder: encoder, mean pooling, normalisation left to the user."""
    path.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(path))
    tokenizer.save_pretrained(str(path))
    pooling = {
        "word_embedding_dimension": model.config.hidden_size,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
    }
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (path / "1_Pooling").mkdir(exist_ok=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2) + "\n")
    (path / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
    (path / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": _LONGEST, "do_lower_case": False}, indent=2) + "\n"
    )
    similarity: dict[str, Any] = {"similarity_fn_name": "cosine", "prompts": {}, "default_prompt_name": None}
    (path / "config_sentence_transformers.json").write_text(json.dumps(similarity, indent=2) + "\n")
