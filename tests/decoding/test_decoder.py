"""Small random models of other families: both decoders give the answers of transformers, and the check chooses."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from spacy_gemel.decoding import decoder as decoder_module
from spacy_gemel.decoding import self_check
from spacy_gemel.decoding.beam_search import room_for_beams
from spacy_gemel.decoding.constraints import TrieConstraint
from spacy_gemel.decoding.decoder import Decoder, PrefixLimits, SequentialDecoder, SharedPrefixDecoder
from spacy_gemel.decoding.kv_cache import AttentionWindows
from spacy_gemel.decoding.self_check import make_decoder
from spacy_gemel.models.causal_lm import CausalLM, load_causal_lm
from tests import tiny
from tests.calls import Calls
from tests.decoding.test_beam_search import BEAMS, END, random_names, random_prompts, reference, search
from tests.tries import trie_from_names

SMALL = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 256}
GEMMA = {**GROUPED, "head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": GROUPED,
    "GPT2": {"vocab_size": 400, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "OPT": {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 16, "max_position_embeddings": 256},
    "Mistral": {**GROUPED, "sliding_window": None},
    "Qwen2": GROUPED,
    "Qwen3": GEMMA,
    "Gemma": GEMMA,
    "Gemma2": GEMMA,
    "Gemma3": GEMMA,
}
WINDOW = 16
KINDS = ["sliding_attention", "full_attention"]
WINDOWED: dict[str, dict[str, Any]] = {
    "Mistral": {**GROUPED, "sliding_window": WINDOW},
    "Qwen2": {**GROUPED, "sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    "Gemma2": {**GEMMA, "sliding_window": WINDOW, "layer_types": KINDS},
    "Gemma3": {**GEMMA, "sliding_window": WINDOW, "layer_types": KINDS},
}
LOCAL = {
    "vocab_size": 400,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 1]],
    "window_size": WINDOW,
    "max_position_embeddings": 256,
}
CLASSES = {"GPT2": "GPT2LMHeadModel"}


def save(family: str, settings: dict[str, Any], folder: Path) -> None:
    tiny.make_tokenizer(folder)
    torch.manual_seed(0)
    config_class = "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config"
    config = getattr(transformers, config_class)(
        **settings, initializer_range=0.4, init_std=0.4, bos_token_id=0, eos_token_id=1, pad_token_id=1
    )
    getattr(transformers, CLASSES.get(family, f"{family}ForCausalLM"))(config).save_pretrained(folder)


def load(folder: Path, dtype: str | None = None) -> Decoder:
    return make_decoder(load_causal_lm(str(folder), revision=None, device="cpu", dtype=dtype))


def assert_as_generate(decoder: Decoder, prompts: list[torch.Tensor]) -> None:
    names = random_names(0, 100)
    allowed = TrieConstraint(trie_from_names(names, vocab_size=400), END, 12)
    for prompt, found in zip(prompts, search(decoder, prompts, allowed, beam_size=BEAMS, n_names=BEAMS), strict=True):
        expected = reference(decoder.model, prompt, names)
        assert [h.tokens for h in found] == [name for name, _ in expected]
        assert [h.score for h in found] == pytest.approx([score for _, score in expected], abs=1e-4)


def state_type(decoder: Decoder, length: int) -> type:
    return type(decoder.prefill([decoder.model.embed([5] * length)], tokens=1, room=1))


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str, tmp_path: Path) -> None:
    save(family, FAMILIES[family], tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # none is decoded sequentially
        decoder = load(tmp_path)
        model = decoder.model
    if family == "OPT":
        assert model.width == 16  # the embeddings', not the hidden states'
    prompts = random_prompts(model, 1, 5)
    assert decoder.limits.max_length == model.max_length == 256
    assert_as_generate(decoder, prompts)
    decoder.limits.max_length, decoder.warn_sequential = 0, lambda *_: None  # type: ignore[method-assign]
    assert state_type(decoder, 10) is SequentialDecoder
    assert_as_generate(decoder, prompts[:2])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["OPT", "Gemma", "Gemma3"])
def test_a_prefix_of_the_embeddings_size_is_as_large_as_words(family: str, dtype: str, tmp_path: Path) -> None:
    """In the model, behind whatever it does to its words: that is where the mapper's soft tokens stand beside them."""
    save(family, FAMILIES[family], tmp_path)
    model = load(tmp_path, dtype).model
    read: list[torch.Tensor] = []

    def listen(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        read.append(args[0] if args else kwargs["hidden_states"])

    layers = [module for name, module in model.model.named_modules() if name.endswith((".layers.0", ".h.0"))]
    [layer] = layers
    ids = torch.arange(256)[None]
    soft = torch.randn(1, 256, model.width, generator=torch.Generator().manual_seed(0)) * model.embedding_size
    with torch.no_grad(), layer.register_forward_pre_hook(listen, with_kwargs=True):
        model.model(input_ids=ids)
        model.model(inputs_embeds=soft.to(model.dtype))
    words, prefix = (states.float().square().mean().sqrt().item() for states in read)
    assert prefix == pytest.approx(words, rel=0.15)


@pytest.mark.parametrize("family", WINDOWED)
def test_a_prompt_longer_than_the_window(family: str, tmp_path: Path) -> None:
    """The windows are checked at load, and the search is exact beyond them."""
    save(family, WINDOWED[family], tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        decoder = load(tmp_path)
        model = decoder.model
    assert decoder.limits.windows.shortest is not None
    assert decoder.limits.windows.shortest <= WINDOW
    assert decoder.limits.max_length == model.max_length == 256
    generator = np.random.default_rng(3)
    prompts = [model.embed(generator.integers(2, 400, size=size).tolist()) for size in (14, 15, 17, 40, 70)]
    assert state_type(decoder, 70) is SharedPrefixDecoder
    assert_as_generate(decoder, prompts)


def test_a_mask_of_the_models_own_is_found_out(tmp_path: Path) -> None:
    """GPT-Neo takes all that the search gives, and puts a mask of its own on top: silently wrong but for the check."""
    save("GPTNeo", LOCAL, tmp_path)
    with pytest.warns(UserWarning, match=r"all prompts are decoded sequentially.*differs from a plain forward pass"):
        decoder = load(tmp_path)
        model = decoder.model
    assert state_type(decoder, 3) is SequentialDecoder
    generator = np.random.default_rng(3)
    assert_as_generate(decoder, [model.embed(generator.integers(2, 400, size=size).tolist()) for size in (4, 40)])


def test_a_wide_window_is_checked_when_a_prompt_first_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("Mistral", WINDOWED["Mistral"], tmp_path)
    monkeypatch.setitem(self_check._MAX_OPERATIONS_AT_LOAD, "cpu", 0.0)
    decoder = load(tmp_path)
    assert decoder.limits.max_length == WINDOW
    assert not decoder.limits.is_checked
    assert decoder.can_share_prefix(WINDOW - 2, 2, 10)
    assert decoder.limits.max_length == WINDOW
    assert decoder.can_share_prefix(WINDOW - 1, 2, 10)
    assert decoder.limits.max_length == 256
    assert decoder.limits.is_checked


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_forgotten_window_is_found_out_however_wide_and_coarse(tmp_path: Path, dtype: str) -> None:
    """Rounding in bf16 hides a few keys too many among hundreds, so the check must look for more than those."""
    save("Mistral", {**WINDOWED["Mistral"], "sliding_window": 256, "max_position_embeddings": 1024}, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        decoder = load(tmp_path, dtype)
    assert decoder.limits.max_length == 1024
    decoder.limits.windows.windows.update(all=None)
    decoder.limits.max_length, decoder.limits.is_checked = 256, False
    with pytest.warns(UserWarning, match="decoded sequentially"):
        assert not decoder.can_share_prefix(300, 5, 25)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_ignores_masks_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    save("Llama", FAMILIES["Llama"], tmp_path)
    forward = transformers.LlamaForCausalLM.forward
    signature = inspect.signature(forward)

    def without_mask(self: Any, **options: Any) -> Any:
        if (mask := options.get("attention_mask")) is not None:
            options["attention_mask"] = torch.zeros_like(mask)
        return forward(self, **options)

    without_mask.__signature__ = signature  # type: ignore[attr-defined]
    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", without_mask)
    with pytest.warns(UserWarning, match="all prompts are decoded sequentially"):
        load(tmp_path, dtype)


@pytest.mark.parametrize("family", WINDOWED)
def test_names_longer_than_the_window(family: str, tmp_path: Path) -> None:
    """The first tokens of a name are then out of sight of its last ones."""
    save(family, {**WINDOWED[family], "sliding_window": 3}, tmp_path)
    decoder = load(tmp_path)
    assert decoder.limits.max_length == 256
    assert max(len(name) for name in random_names(0, 100)) > 4
    assert_as_generate(decoder, random_prompts(decoder.model, 2, 3))


@pytest.mark.parametrize("kinds", [["global", "local"], ["global", "global"]])
def test_a_mask_over_places_in_the_cache(kinds: list[str], tmp_path: Path) -> None:
    """GPT-Neo's own masks count the beams' tokens too: no more of them than its window, or its table, has places."""
    save(
        "GPTNeo",
        {**LOCAL, "attention_types": [[kinds, 1]], "window_size": 80, "max_position_embeddings": 120},
        tmp_path,
    )
    decoder = load(tmp_path)
    model = decoder.model
    assert decoder.limits.windows.max_cache_length == 80
    assert decoder.can_share_prefix(40, 8, 40)
    with pytest.warns(UserWarning, match="more than 80 cache positions with their beams are decoded sequentially"):
        assert not decoder.can_share_prefix(41, 8, 40)
    generator = np.random.default_rng(3)
    names, sizes = random_names(0, 100), (20, 100)
    longest = max(len(name) for name in names)
    assert [decoder.can_share_prefix(size, longest, room_for_beams(BEAMS, longest)) for size in sizes] == [True, False]
    for size in sizes:
        assert_as_generate(decoder, [model.embed(generator.integers(2, 400, size=size).tolist())])


@pytest.mark.parametrize("length", ["short", "long"])
def test_no_memory_for_a_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: str) -> None:
    """At load the error is raised; later the decoder is sequential, and the warning says why."""
    save("Mistral", WINDOWED["Mistral"], tmp_path)
    monkeypatch.setitem(self_check._MAX_OPERATIONS_AT_LOAD, "cpu", 0.0)
    compare, error = self_check._compare, torch.cuda.OutOfMemoryError("CUDA out of memory.")

    def fails(model: CausalLM, limits: PrefixLimits, lengths: list[int], *, beyond_windows: bool) -> str | None:
        if beyond_windows == (length == "long"):
            raise error
        return compare(model, limits, lengths, beyond_windows=beyond_windows)

    monkeypatch.setattr(self_check, "_compare", fails)
    if length == "short":
        with pytest.raises(torch.cuda.OutOfMemoryError):
            load(tmp_path)
    else:
        decoder = load(tmp_path)
        with pytest.warns(UserWarning, match="decoded sequentially.*not enough memory to check the shared prefix"):
            assert not decoder.can_share_prefix(WINDOW, 5, 25)


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("Llama", FAMILIES["Llama"], tmp_path)
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        model.model.norm.weight[3] = float("inf")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r'its scores are not finite\. If its dtype is "float16", use "bfloat16"'):
        load(tmp_path)


def test_positions_that_depend_on_the_length(tmp_path: Path) -> None:
    """Phi-3's long factors begin at 40 tokens: beyond them a batch-mate would change the answer."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "type": "longrope"}
    settings = {**GROUPED, "rope_scaling": factors, "original_max_position_embeddings": 40, "pad_token_id": 1}
    tiny.make_tokenizer(tmp_path)
    torch.manual_seed(0)
    config = transformers.Phi3Config(**settings, initializer_range=0.4, bos_token_id=0, eos_token_id=1)
    transformers.Phi3ForCausalLM(config).save_pretrained(tmp_path)
    decoder = load(tmp_path)
    assert decoder.limits.max_length == 40
    with pytest.warns(UserWarning, match="prompts of more than 40 tokens"):
        assert [state_type(decoder, length) for length in (39, 40)] == [SharedPrefixDecoder, SequentialDecoder]


def test_a_model_without_position_ids_is_searched_the_slow_way(tmp_path: Path) -> None:
    tiny.make_tokenizer(tmp_path)
    torch.manual_seed(0)
    transformers.BloomForCausalLM(
        transformers.BloomConfig(
            vocab_size=400, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.4, eos_token_id=1, pad_token_id=1
        )
    ).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="all prompts are decoded sequentially"):
        decoder = load(tmp_path)
    assert state_type(decoder, 3) is SequentialDecoder
    assert_as_generate(decoder, random_prompts(decoder.model, 1, 3))


def test_a_model_that_takes_no_embeddings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save("Llama", FAMILIES["Llama"], tmp_path)

    def forward(self: Any, input_ids: torch.Tensor) -> None:
        raise AssertionError

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", forward)
    with pytest.raises(ValueError, match="cannot be searched: it does not take inputs_embeds"):
        load(tmp_path)


def test_the_cache_is_taken_once(tmp_path: Path) -> None:
    """No copy of the prompt's keys at a step: they lie where they lay, and there is room for just what was asked."""
    save("Llama", FAMILIES["Llama"], tmp_path)
    decoder = load(tmp_path)
    model = decoder.model
    state = decoder.prefill([model.embed([5] * 9), model.embed([6] * 4)], tokens=2, room=4)
    assert isinstance(state, SharedPrefixDecoder)
    indices = [layer.keys.data_ptr() for layer in state.cache._layers.values()]
    assert [layer.keys.shape for layer in state.cache._layers.values()] == [(2, 2, 9 + 4, 8)] * 2
    eye = torch.eye(2, dtype=torch.bool).expand(2, -1, -1)
    tokens = torch.tensor([[7, 8], [9, 10]])
    zeros = torch.zeros_like(tokens)
    state.extend(tokens, eye, zeros)
    state.extend(tokens, torch.cat([eye, eye], dim=-1), zeros + 1)
    assert [layer.keys.data_ptr() for layer in state.cache._layers.values()] == indices
    with pytest.raises(RuntimeError, match="room for 4 tokens"):
        state.extend(tokens, torch.cat([eye, eye, eye], dim=-1), zeros + 2)


@pytest.mark.parametrize(("max_tokens", "n_passes"), [(10_000, 1), (1, 3)])
def test_both_ways_give_the_same_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_tokens: int, n_passes: int
) -> None:
    save("Llama", FAMILIES["Llama"], tmp_path)
    model = load(tmp_path).model
    prompts = random_prompts(model, 4, 3)
    monkeypatch.setitem(decoder_module._MAX_PASS_TOKENS, "cpu", max_tokens)
    passes = Calls(monkeypatch, model, "forward")
    fast = SharedPrefixDecoder(model, prompts, 6, AttentionWindows.of(model.model))
    assert len(passes.seen) == n_passes
    slow = SequentialDecoder(model, prompts)
    torch.testing.assert_close(fast.logits, slow.logits, atol=1e-4, rtol=1e-4)
    eye = torch.eye(3, dtype=torch.bool).expand(3, -1, -1)
    first, second = torch.arange(9).view(3, 3), torch.arange(9, 18).view(3, 3)
    parents = torch.tensor([[2, 0, 0], [1, 1, 1], [0, 2, 1]])
    seen = torch.cat([eye.gather(1, parents[..., None].expand(-1, -1, 3)), eye], dim=-1)
    zeros = torch.zeros_like(first)
    steps = [(first, eye, zeros), (second, seen, zeros + 1)]
    alone = [
        *(tensor[1:2] for tensor in (second.flip(1), seen, zeros + 1)),
        slice(1, 2),
    ]  # over what was appended second
    for inputs in (*steps, alone, steps[0]):
        logits = [state.extend(*inputs) for state in (fast, slow)]
        torch.testing.assert_close(*logits, atol=1e-4, rtol=1e-4)
