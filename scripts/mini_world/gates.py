"""The language model alone, with the picture told in words: what it knows, what it copies, what text settles.

python scripts/mini_world/gates.py assets/mini/language_model OUT.json [--seed N]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mini_world.distractors import make_distractors
from mini_world.generate import write_whole
from mini_world.names import WORLD_SEED, Reading, load_world
from mini_world.prompts import Item, PromptMaker
from mini_world.sampling import Mention, sample_split
from mini_world.token_stream import Encoder

READ, COPIED, TEXT_ONLY = "read, picture in words", "invented, stands in one demonstration", "read, text only"
RULES = {READ: (">=", 0.95), COPIED: (">=", 0.80), TEXT_ONLY: ("<=", 0.65)}
LOG_SEED = 990  # of the prompts looked at while the model is trained
GATE_SEED = 4000  # of those that judge it


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
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        # padding stands on the right, where causal attention never looks from the answer
        best = model(input_ids=ids.to(device)).logits.argmax(-1).cpu()  # (prompts, tokens)
        for index, (row, first) in enumerate(zip(rows, starts, strict=True)):
            right.append(bool((best[index, first - 1 : len(row) - 1] == ids[index, first : len(row)]).all()))
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
        READ: _draw(number, seed, known),
        COPIED: _draw(number, seed + 1, copied),
        TEXT_ONLY: _draw(number, seed + 2, text_only),
    }


def measure_gates(
    model: LlamaForCausalLM, encoder: Encoder, maker: PromptMaker, number: int = 300, seed: int = GATE_SEED
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
    for index, query in enumerate(sample_split(world, "dev", 300, seed)):
        rng = np.random.default_rng([seed, 33, index])
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
    result = {}
    settings = {
        "picture in one word": (1, 8),
        "picture in four words": (4, 8),
        "text only": (0, 8),
        "four words, no demonstrations": (4, 0),
    }
    for name, (words, demonstrations) in settings.items():
        right = exact_matches(model, encoder, dev_prompts(world, seed, words, demonstrations))
        result[name] = {"all": round(float(right.mean()), 4)}
        result[name] |= {role: round(float(right[roles == role].mean()), 4) for role in ("read", "unread", "unseen")}
    return result


def check_gates(accuracies: dict[str, float], number: int) -> list[dict[str, Any]]:
    """A row per gate: its rule, and whether it holds."""
    rows = []
    for name, (sign, bound) in RULES.items():
        holds = accuracies[name] >= bound if sign == ">=" else accuracies[name] <= bound
        rule = f"{sign} {bound:.2f}"
        rows.append({"name": name, "accuracy": accuracies[name], "n": number, "rule": rule, "holds": holds})
    return rows


def measure(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int, number: int = 300
) -> dict[str, Any]:
    """Gates and dev figures of a model of the world of `seed`."""
    world, encoder = load_world(seed), Encoder(tokenizer)
    maker = PromptMaker(world, [str(row["name"]) for row in make_distractors(world, seed)])
    gates = check_gates(measure_gates(model, encoder, maker, number), number)
    return {"gates": gates, "dev": measure_dev(model, encoder, world, seed)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=WORLD_SEED)
    arguments = parser.parse_args()
    model = LlamaForCausalLM.from_pretrained(str(arguments.model)).float().eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(arguments.model))
    result = json.dumps(measure(model, tokenizer, arguments.seed), indent=2) + "\n"
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(arguments.out, result.encode())
    sys.stdout.write(result)


if __name__ == "__main__":
    main()
