"""How near the search of long prompts comes to what a GPU's matrix rate allows, in a trie of six million names.

python -m benchmarks.gpu [--tiny]

A Llama of Llama-2-7B's shape with random weights in bf16, prompts of 1,200 random embeddings, five beams, batches of 1,
8 and 32 mentions. The limit is the mentions per second that the rate of a large matrix product allows if nothing but
prefills were done; `share_of_limit` of the best batch is asked to be 0.65. It needs torch, transformers and numpy, no
spaCy, and with the default sizes a CUDA device of 48 GB; only such a run writes to benchmarks/results.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from benchmarks.constraint import ForwardClock, trie_on_disk
from benchmarks.made_names import LENGTHS, VOCABULARY, DigitTokenizer
from benchmarks.memory import peak_mb
from benchmarks.prefill import prefill_operations
from benchmarks.random_llama import Shape, llama_config
from benchmarks.timing import spread
from research.commands import report
from research.machine import describe_machine, matmul_rate, synchronizer
from spacy_gemel.decoding.beam_search import beam_search, room_for_beams
from spacy_gemel.decoding.constraints import TrieConstraint
from spacy_gemel.decoding.self_check import make_decoder
from spacy_gemel.kb.trie import NameTrie
from spacy_gemel.models.causal_lm import CausalLM
from spacy_gemel.utils.files import write_json

if TYPE_CHECKING:
    from spacy_gemel.decoding.decoder import Decoder

ROOT = Path(__file__).resolve().parent.parent
ASKED = 0.65
BEAMS = 5
END = 2  # any token: the names are made up


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. prompt: tokens. batches: mentions at once. matrix: rows of the product."""

    names: int = 6_000_000
    prompt: int = 1200
    batches: tuple[int, ...] = (1, 8, 32)
    repeats: int = 3
    matrix: int = 8192
    shape: Shape = field(default_factory=lambda: Shape(hidden=4096, inner=11008, layers=32, heads=32))


TINY = Sizes(
    names=2000,
    prompt=40,
    batches=(1, 2),
    repeats=1,
    matrix=256,
    shape=Shape(hidden=32, inner=64, layers=2, heads=2, longest=128),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and at the default sizes keep. Raises SystemExit if these have no CUDA device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--tiny", action="store_true", help="all sizes as small as they go, on the CPU too: does it run?"
    )
    tiny = parser.parse_args(arguments).tiny
    if not tiny and not torch.cuda.is_available():
        raise SystemExit("the default sizes need a CUDA device; --tiny runs on the CPU")
    result = measure(TINY if tiny else Sizes(), "cuda" if torch.cuda.is_available() else "cpu")
    if not tiny:
        write_json(ROOT / "benchmarks" / "results" / "gpu.json", result)
    print(json.dumps(result))


def measure(sizes: Sizes, device: str) -> dict[str, Any]:
    """All figures."""
    report("the model of random weights")
    model = make_model(sizes.shape, device)
    decoder = make_decoder(model)
    report(f"a trie of {sizes.names} names")
    with tempfile.TemporaryDirectory() as folder:
        trie = trie_on_disk(sizes.names, Path(folder))
        rows = [measure_batch(decoder, trie, batch, sizes) for batch in sizes.batches]
    best = max(row["share_of_limit"]["median"] for row in rows)
    return {
        "command": "python -m benchmarks.gpu",
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        "names": trie.arrays.count_names(),
        "prompt_tokens": sizes.prompt,
        "prefill_gflop_per_mention": round(prefill_operations(model, [sizes.prompt]) / 1e9, 3),
        "batches": rows,
        "share_of_limit": best,
        "holds": best >= ASKED,
        "machine": describe_machine(("torch", "transformers", "numpy")),
    }


def make_model(shape: Shape, device: str) -> CausalLM:
    """A language model of random weights in bf16, made on its device."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(llama_config(shape))
    finally:
        torch.set_default_dtype(default)
    return CausalLM(model, cast(Any, DigitTokenizer()), name="random")


def measure_batch(decoder: "Decoder", trie: NameTrie, batch: int, sizes: Sizes) -> dict[str, Any]:
    """Some mentions searched at once, beside the rate of a matrix product, in turns."""
    model = decoder.model
    device = model.device.type
    synchronize = synchronizer(device)
    constraint = TrieConstraint(trie, END, len(LENGTHS))
    ids = torch.randint(VOCABULARY, (batch, sizes.prompt), generator=torch.Generator().manual_seed(batch))
    prompts = [model.embed(row) for row in ids.tolist()]
    operations = prefill_operations(model, [sizes.prompt])
    room = room_for_beams(BEAMS, constraint.max_tokens)

    def search() -> tuple[float, float]:
        """Seconds of the prefill, and of all."""
        synchronize()
        start = time.perf_counter()
        state = decoder.prefill(prompts, tokens=constraint.max_tokens, room=room)
        synchronize()
        middle = time.perf_counter()
        results = beam_search(state, constraint, beam_size=BEAMS, n_names=BEAMS)
        synchronize()
        assert all(len(names) == BEAMS for names in results), "a search in so many names must find five"
        return middle - start, time.perf_counter() - start

    report(f"{batch} mentions at once")
    passes = ForwardClock()
    with passes.on(model):
        search()  # warm
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rates, mentions, shares, prefills = [], [], [], []
    for _ in range(sizes.repeats):
        rates.append(matmul_rate(20, "bfloat16", device=device, shape=(sizes.matrix,) * 3))
        prefill, whole = search()
        mentions.append(batch / whole)
        shares.append(mentions[-1] * operations / (rates[-1] * 1e9))
        prefills.append(prefill / whole)
    return {
        "mentions_at_once": batch,
        "shared_prefix": decoder.can_share_prefix(sizes.prompt, constraint.max_tokens, room),
        "mentions_per_second": spread(mentions, 3),
        "limit_mentions_per_second": spread([rate * 1e9 / operations for rate in rates], 3),
        "share_of_limit": spread(shares),
        "prefill_share": spread(prefills),
        "passes": passes.passes,
        "peak_memory_mb": round(torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else peak_mb()),
        "bf16_matmul_tflops": spread([rate / 1000 for rate in rates], 2),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
