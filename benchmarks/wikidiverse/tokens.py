"""The language model's tokenizer: byte-level BPE over the names, the descriptions and the training text.

The template's fixed words and the newline are one token each, and whatever follows one of them begins with a space, as
SentencePiece has it: so a name has the same tokens in a text, in a question and as an answer, and can be copied.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

EOS = "<|end|>"
FRAME = ("\n", "[Text]", "[Question]What does", " mentioned in the text refer to?", "[Answer]")
VOCABULARY = 4096
POSITIONS = 640


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train it. The end-of-sequence token is the only special one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(FRAME),
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(words, normalized=False, special=False) for words in FRAME])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=EOS,
        clean_up_tokenization_spaces=False,
        model_max_length=POSITIONS,
    )
