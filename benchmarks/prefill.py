"""How well the prefill uses the machine: its floating point operations over the machine's own rate."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.timing import seconds_of, spread
from research.machine import matmul_rate

if TYPE_CHECKING:
    from torch import Tensor

    from spacy_gemel.models.causal_lm import CausalLM


def prefill_operations(model: "CausalLM", lengths: Sequence[int]) -> float:
    """Floating point operations that reading prompts of these lengths takes, two for a multiply and add.

    The matrices of all layers at each token, attention to the tokens before it, and the vocabulary's scores once.
    Padding counts nothing: it is work that nobody asked for.
    """
    config: Any = model.config
    inside = sum(
        parameter.numel()
        for name, parameter in model.model.named_parameters()
        if parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
    )
    heads = config.num_attention_heads
    attended = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    operations = 0.0
    for length in lengths:
        # Scores and weighted values, each half of length x length, as no token sees those after it.
        attention = 2 * config.num_hidden_layers * length * length * attended
        operations += 2 * inside * length + attention + 2 * config.hidden_size * model.vocab_size
    return operations


def measure_prefill(model: "CausalLM", prompts: Sequence["Tensor"], repeats: int) -> dict[str, Any]:
    """flop_utilisation of reading a batch of prompts, and the mentions per second that the machine's rate allows."""
    from spacy_gemel.decoding.self_check import make_decoder

    decoder = make_decoder(model)
    operations = prefill_operations(model, [len(prompt) for prompt in prompts])

    def read() -> None:
        decoder.prefill(prompts, tokens=1, room=5)

    read()
    shares, rates = [], []
    for _ in range(repeats):  # side by side, as the machine may not be the same a minute later
        rate = matmul_rate() * 1e9
        [seconds] = seconds_of(read)
        rates.append(rate)
        shares.append(operations / seconds / rate)
    return {
        "flop_utilisation": spread(shares),
        "limit_mentions_per_second": round(median(rates) / (operations / len(prompts)), 4),
        "prefill_gflop_per_mention": round(operations / len(prompts) / 1e9, 2),
        "fp32_matmul_2048_gflops": spread([rate / 1e9 for rate in rates], 1),
    }
