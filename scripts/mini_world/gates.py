"""The language model alone, with the picture told in words: what it knows, what it copies, what text settles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from transformers import LlamaForCausalLM

from .names import Reading
from .prompts import Item, PromptMaker
from .sampling import Mention, sample_split
from .token_stream import Encoder


@torch.inference_mode()
def exact_matches(model: LlamaForCausalLM, encoder: Encoder, prompts: list[list[Item]], batch: int = 32) -> np.ndarray:
    """For each prompt, whether greedy decoding would write the last item's name and the newline after it.

    Greedy decoding writes the gold name just when every gold token is the likeliest after those before it, so one
    pass over prompt and answer settles it. Returns a bool array (prompts,).
    """
    device = model.device
    eos = int(encoder.tokenizer.eos_token_id)
    right = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        rows = [encoder.items(items)[0] for items in part]
        starts = [len(encoder.prompt(items)) for items in part]
        ids = torch.full((len(rows), max(map(len, rows))), eos)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
        # padding stands on the right, where causal attention never looks from the answer
        best = model(input_ids=ids.to(device)).logits.argmax(-1).cpu()  # (prompts, tokens)
        for place, (row, first) in enumerate(zip(rows, starts, strict=True)):
            right.append(bool((best[place, first - 1 : len(row) - 1] == ids[place, first : len(row)]).all()))
    return np.array(right, dtype=bool)


def _draw(number: int, seed: int, draw: Callable[[np.random.Generator], list[Item] | None]) -> list[list[Item]]:
    prompts: list[list[Item]] = []
    rng = np.random.default_rng([seed, 31])
    while len(prompts) < number:
        items = draw(rng)
        if items is not None:
            prompts.append(items)
    return prompts


def gate_prompts(maker: PromptMaker, number: int, seed: int) -> dict[str, list[list[Item]]]:
    """The three gates' prompts: made like the pretraining text from seeds of their own, none from the test set."""

    def known(rng: np.random.Generator) -> list[Item] | None:
        return maker.document(rng, 0.0, 8, picture=True)

    def copied(rng: np.random.Generator) -> list[Item] | None:
        items = maker.document(rng, 0.6, 8, picture=True)
        last = items[-1]
        return items if last.copied and sum(item.name == last.name for item in items) == 2 else None

    def text_only(rng: np.random.Generator) -> list[Item] | None:
        return maker.document(rng, 0.0, 8, picture=False)

    return {
        "read, picture in words": _draw(number, seed, known),
        "invented, stands in one demonstration": _draw(number, seed + 1, copied),
        "read, text only": _draw(number, seed + 2, text_only),
    }


def measure_gates(
    model: LlamaForCausalLM, encoder: Encoder, maker: PromptMaker, number: int = 300, seed: int = 990
) -> dict[str, float]:
    """Accuracy of each gate."""
    return {
        name: round(float(exact_matches(model, encoder, prompts).mean()), 4)
        for name, prompts in gate_prompts(maker, number, seed).items()
    }


def dev_prompts(
    world: tuple[Reading, ...], seed: int, picture_words: int, n_demonstrations: int = 8
) -> list[list[Item]]:
    """The dev split's docs with demonstrations from the training split, those of the same form last."""
    train = sample_split(world, "train", 1600, seed)
    by_form: dict[str, list[Mention]] = {}
    for mention in train:
        by_form.setdefault(mention.form, []).append(mention)
    prompts = []
    for place, query in enumerate(sample_split(world, "dev", 300, seed)):
        rng = np.random.default_rng([seed, 33, place])
        same = by_form.get(query.form, [])
        near = [same[int(i)] for i in rng.permutation(len(same))[:n_demonstrations]]
        far = [train[int(i)] for i in rng.integers(len(train), size=n_demonstrations - len(near))]
        prompts.append(
            [
                Item(m.form, m.reading.kind, m.reading.name, m.text, picture_words, True, False)
                for m in [*far, *near, query]
            ]
        )
    return prompts


def measure_dev(
    model: LlamaForCausalLM, encoder: Encoder, world: tuple[Reading, ...], seed: int
) -> dict[str, dict[str, float]]:
    """Free greedy accuracy on the dev split with the picture in words (1 and 4) and without, over all and by role."""
    roles = np.array([mention.reading.role for mention in sample_split(world, "dev", 300, seed)])
    found = {}
    settings = {
        "picture in one word": (1, 8),
        "picture in four words": (4, 8),
        "text only": (0, 8),
        "four words, no demonstrations": (4, 0),
    }
    for name, (words, demonstrations) in settings.items():
        right = exact_matches(model, encoder, dev_prompts(world, seed, words, demonstrations))
        found[name] = {"all": round(float(right.mean()), 4)}
        found[name] |= {role: round(float(right[roles == role].mean()), 4) for role in ("read", "unread", "unseen")}
    return found
