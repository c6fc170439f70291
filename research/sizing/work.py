"""Floating point operations of a language model and a vision encoder, two for a multiply and add."""

from dataclasses import dataclass

import torch

from research.sizing.models import Encoder, parameters_of
from spacy_gemel.models.causal_lm import CausalLM

# The backward pass of an attention that keeps no weights computes the scores again: five products for two.
_ATTENTION_BACKWARD = 2.5


@dataclass(frozen=True, slots=True)
class Work:
    """What decides how long a language model works.

    matrices: numbers in the matrices that each token goes through. scores: in the one to the vocabulary. attended:
    layers x heads x head width, the numbers that a token compares with each token before it. cached: numbers in the
    keys and values of a token. layers: of them.
    """

    matrices: int
    scores: int
    attended: int
    cached: int
    layers: int

    def reading(self, tokens: int, kept: int = 1, *, causal: bool = True) -> float:
        """Operations to read so many tokens, with the vocabulary's scores at `kept` of them.

        causal: no token is compared with those after it; false for a kernel that does so in vain.
        """
        return self._products(tokens, kept) + self._attention(tokens, causal)

    def learning(self, tokens: int, kept: int, *, causal: bool = True) -> float:
        """Operations of a training step: reading, and the gradient back to the prefixes; the weights get none."""
        return 2 * self._products(tokens, kept) + (1 + _ATTENTION_BACKWARD) * self._attention(tokens, causal)

    def extending(self, beams: int, seen: int) -> float:
        """Operations to append a token to each of some beams that see so many tokens, with all their scores."""
        return self._products(beams, beams) + 4.0 * self.attended * beams * seen

    def _products(self, tokens: int, kept: int) -> float:
        return 2.0 * self.matrices * tokens + 2.0 * self.scores * kept

    def _attention(self, tokens: int, causal: bool) -> float:
        # Scores and weighted values, each tokens x tokens.
        return (2.0 if causal else 4.0) * self.attended * tokens * tokens


def work_of(model: CausalLM) -> Work:
    """The work of a language model. Of a mixture of experts all experts count, of a sliding window all tokens."""
    config, head = model.config, model.model.get_output_embeddings()
    matrices = sum(
        parameter.numel()
        for module in model.model.modules()
        if module is not head and not isinstance(module, torch.nn.Embedding)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim >= 2
    )
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    layers = config.num_hidden_layers
    return Work(matrices, head.weight.numel(), layers * heads * width, 2 * layers * groups * width, layers)


def encoding(encoder: Encoder) -> float:
    """Operations to encode an image, about: its weights at each patch; for networks without patches at 49 places."""
    return 2.0 * parameters_of(encoder.model) * (encoder.tokens or 49)
