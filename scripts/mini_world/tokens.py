"""The language model's tokenizer: byte-level BPE, trained on the world's words and on the prompt's template.

Two stretches of the paper's template are kept whole by the pre-tokenizer, so that a prompt is short, and a newline is
always a token of its own, so that a name ends the same way wherever it stands. Any Unicode text decodes to itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from . import captions
from .names import KINDS, Reading

EOS = "<|end|>"
QUESTION = "[Question]What does"
REFER = " mentioned in the text refer to?"
_SPLIT = (
    r"\[Question\]What does| mentioned in the text refer to\?|\[Text\]|\[Answer\]|\n"
    r"| ?(?:\p{Lu}\.){2,}| ?\p{L}+| ?\p{N}{1,4}| ?[^\s\p{L}\p{N}]+|[^\S\n]+"
)


def _corpus(world: tuple[Reading, ...], distractors: list[dict[str, object]]) -> Iterable[str]:
    template = f"[Text]x\n{QUESTION} x{REFER}\n[Answer]x\n"
    for kind in KINDS:
        yield from [kind, " " + kind] * 400
    yield from [template] * 400
    for piece in captions.all_templates() + captions.all_slot_words():
        for bare in (
            piece.replace("{m}", "").replace("{who}", "").replace("{when}", ""),
            piece[:1].upper() + piece[1:],
        ):
            yield from [bare, " " + bare] * 30
    for year in range(1950, 2025):
        yield from [f" {year}"] * 30
    for reading in world:
        yield from [reading.name] * 12
        for form in reading.forms:
            yield from [form, " " + form] * 12
    for row in distractors:
        name = str(row["name"])
        yield from [name, " " + name]


def train_tokenizer(
    world: tuple[Reading, ...], distractors: list[dict[str, object]], vocab_size: int = 3000
) -> PreTrainedTokenizerFast:
    """Train it. The end-of-sequence token is the only special one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(world, distractors), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=EOS,
        clean_up_tokenization_spaces=False,
        model_max_length=640,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """Write tokenizer.json and its config where both transformers 4.53 and 5 read them."""
    tokenizer.save_pretrained(str(path))
