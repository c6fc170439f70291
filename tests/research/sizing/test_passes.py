"""Memory and operations beside those of models small enough to be run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from research.sizing import memory
from research.sizing.estimate import trie_bytes
from research.sizing.models import build_language_model
from research.sizing.tracing import without_data
from research.sizing.work import Work, work_of
from spacy_gemel.decoding.decoder import SharedPrefixDecoder
from spacy_gemel.linking import prompt_embedder as embedding
from spacy_gemel.models import vision_encoder as encoder
from spacy_gemel.models.causal_lm import CausalLM

_SHAPE = {"vocab_size": 1000, "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 8}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {**_SHAPE, "intermediate_size": 344, "max_position_embeddings": 512},
    "qwen2": {**_SHAPE, "intermediate_size": 344, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "opt": {**_SHAPE, "ffn_dim": 512, "word_embed_proj_dim": 64, "do_layer_norm_before": False},
}
PROMPT, ROWS, BEAMS, NAME = 200, 3, 5, 8


class Both(NamedTuple):
    """A model, and what makes the same one without data."""

    real: CausalLM
    build: Callable[[], CausalLM]
    work: Work


@pytest.fixture(params=SHAPES, scope="module")
def both(request: pytest.FixtureRequest) -> Both:
    from transformers import AutoConfig

    def build() -> CausalLM:
        return build_language_model(AutoConfig.for_model(request.param, **SHAPES[request.param]), torch.float32)

    with without_data():
        work = work_of(build())
    return Both(build(), build, work)


def learn(model: CausalLM, rows: int = ROWS) -> None:
    prompts = [torch.randn(PROMPT, model.width, dtype=model.dtype).requires_grad_() for _ in range(rows)]
    (model.name_loss(prompts, [[0] * NAME] * rows).sum() / rows).backward()


def read(model: CausalLM, rows: int = ROWS) -> Any:
    return model.prefill([torch.randn(PROMPT, model.width) for _ in range(rows)], beams=BEAMS, tokens=NAME)


def extend(state: Any, rows: int = ROWS) -> None:
    seen = torch.ones((rows, BEAMS, BEAMS), dtype=torch.bool)
    torch.logsumexp(state.extend(torch.zeros((rows, BEAMS), dtype=torch.long), seen, 0), dim=-1)


def peak_of(work: Callable[[], None]) -> int:
    """The most bytes that torch's allocator held for it at once."""
    work()  # what is made only once
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = profiled.profiler.kineto_results.events()
    live = most = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def _attention(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# The processor's own kernel, which the counter of torch 2.14 and before leaves out.
_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_CPU_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def operations_of(work: Callable[[], None]) -> int:
    formulas = {_CPU: _attention, _CPU_BACKWARD: _attention_backward}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        work()
    return counter.get_total_flops()


def test_memory_of_a_training_step(both: Both) -> None:
    with without_data():
        computed = memory.training_memory(both.build(), PROMPT, ROWS, NAME)
    # 4.53's OPT, which scores every token, asks for a mask that it could do without, where there are no data to tell.
    tolerance = 0.01 if both.real._has_logits_to_keep else 0.2
    assert computed == pytest.approx(peak_of(lambda: learn(both.real)), rel=tolerance)


def test_memory_of_a_search(both: Both) -> None:
    with without_data():
        computed = memory.prediction_memory(both.build(), PROMPT, ROWS, BEAMS, NAME)
    assert computed == pytest.approx(peak_of(lambda: extend(read(both.real))), rel=0.01)


def test_more_prompts_take_more(both: Both) -> None:
    with without_data():
        steps = [memory.training_memory(both.build(), PROMPT, rows, NAME) for rows in (1, 4)]
        searches = [memory.prediction_memory(both.build(), PROMPT, rows, BEAMS, NAME) for rows in (1, 4)]
    assert steps == sorted(set(steps))
    assert searches == sorted(set(searches))
    assert steps[1] > searches[1]


def test_operations(both: Both) -> None:
    model, work = both.real, both.work
    # 4.53's OPT scores the vocabulary at every token.
    everywhere = not model._has_logits_to_keep
    reading = operations_of(lambda: read(model, 1))
    assert work.reading(PROMPT, PROMPT if everywhere else 1, causal=False) == pytest.approx(reading, rel=1e-4)
    learning = operations_of(lambda: learn(model, 1))
    length = PROMPT + NAME - 1
    assert work.learning(length, length if everywhere else NAME, causal=False) == pytest.approx(learning, rel=1e-4)
    state = read(model, 1)
    assert work.extending(BEAMS, PROMPT + BEAMS) == pytest.approx(operations_of(lambda: extend(state, 1)), rel=1e-4)


def test_keys_and_values(both: Both) -> None:
    state = read(both.real)
    assert isinstance(state, SharedPrefixDecoder)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in state.cache._layers.values())
    assert kept == ROWS * (PROMPT + BEAMS * NAME) * both.work.cached * 4


def test_the_trie_is_as_large_as_one_that_was_built() -> None:
    results = Path(__file__).parents[3] / "benchmarks" / "results" / "trie.json"
    measured = json.loads(results.read_text(encoding="utf8"))
    assert trie_bytes(measured["names"], 32_000) == pytest.approx(measured["bytes"], rel=0.01)
    assert trie_bytes(1000, 151_936) > 1.2 * trie_bytes(1000, 32_000)


def test_what_is_told_twice_is_the_same() -> None:
    assert encoder._BATCH == memory.IMAGES_AT_ONCE
    assert embedding._KEPT_BYTES == memory.KEPT_EMBEDDINGS
