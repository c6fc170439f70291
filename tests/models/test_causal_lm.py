"""The language model against plain forward passes of transformers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from spacy_gemel.linking.prompt import PromptEmbedder
from spacy_gemel.models.causal_lm import CausalLM, load_causal_lm
from spacy_gemel.models.frozen import dtype_argument, torch_dtype
from spacy_gemel.models.tokenizer import load_tokenizer
from tests import tiny


@pytest.fixture(scope="module")
def model(models: Path) -> CausalLM:
    return load_causal_lm(str(models / "language_model"), revision=None, device="cpu", dtype=None)


def prompts_and_names(model: CausalLM) -> tuple[list[torch.Tensor], list[list[int]]]:
    generator = np.random.default_rng(0)
    ids = [generator.integers(2, 300, size=length).tolist() for length in (7, 31, 12, 30)]
    names = [[*generator.integers(2, 300, size=length).tolist(), 1] for length in (1, 3, 6, 2)]
    return [model.embed(prompt) for prompt in ids], names


def test_the_loss_is_a_masked_cross_entropy(model: CausalLM) -> None:
    """Written out by hand: only the name and its end carry a label; the mean over them."""
    prompts, names = prompts_and_names(model)
    losses = model.name_loss(prompts, names)
    for prompt, name, loss in zip(prompts, names, losses, strict=True):
        with torch.no_grad():
            whole = torch.cat([prompt, model.embed(name)])[None]
            logits = model.model(inputs_embeds=whole).logits[0].double()
        total = 0.0
        for index, token in enumerate(name):
            row = logits[len(prompt) + index - 1]
            total -= float(row[token] - torch.logsumexp(row, dim=0))
        assert float(loss) == pytest.approx(total / len(name), abs=1e-4)


def test_the_loss_takes_the_vocabularys_scores_of_the_names_tokens_alone(model: CausalLM) -> None:
    """All sequences' scores at each of these positions, and their gradient, took more memory than the layers."""
    prompts, names = prompts_and_names(model)
    scored: list[int] = []
    head = model.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _head, _inputs, logits: scored.append(logits[..., 0].numel()))
    model.name_loss(prompts, names)
    hook.remove()
    assert scored == [sum(map(len, names))]


def test_the_gradient_reaches_the_prefix_and_no_parameter(model: CausalLM) -> None:
    prefixes = torch.randn(2, 4, model.width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}

    def loss_of(values: torch.Tensor) -> torch.Tensor:
        prompt = PromptEmbedder(model).embed([(5, 6, 7), (8, 9)], [0, 1], values)
        return model.name_loss([prompt], [[10, 11, 1]]).sum()

    loss_of(prefixes).backward()
    assert prefixes.grad is not None
    assert prefixes.grad.abs().sum() > 0
    step = torch.zeros_like(prefixes)
    step[1, 2, 3] = 1e-2
    with torch.no_grad():
        slope = float(loss_of(prefixes + step) - loss_of(prefixes - step)) / 2e-2
    assert slope == pytest.approx(float(prefixes.grad[1, 2, 3]), rel=0.05, abs=1e-3)
    assert all(parameter.grad is None for parameter in model.model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.model.state_dict().items())
    assert not model.model.training


def test_prompts_are_prefixes_and_texts_in_a_row(model: CausalLM) -> None:
    prefixes = torch.arange(2 * 3 * model.width, dtype=torch.float32).view(2, 3, model.width)
    prompt = PromptEmbedder(model).embed([(5, 6), (7,), ()], [1, -1, 0], prefixes)
    expected = torch.cat([prefixes[1], model.embed([5, 6]), model.embed([7]), prefixes[0]])
    assert torch.equal(prompt, expected)


def test_special_tokens_in_a_text_are_letters(models: Path) -> None:
    tokenizer = load_tokenizer(str(models / "language_model"))
    [ids] = tokenizer.encode(["</s> and <s>"])
    assert not tokenizer.special_ids & set(ids)
    assert tokenizer.decode(ids) == "</s> and <s>"


@pytest.mark.parametrize("text", [*tiny.NAMES, "tab\tand  two spaces", "🌍 naïve", "''quoted''"])
def test_decoding_gives_the_name_back(models: Path, text: str) -> None:
    tokenizer = load_tokenizer(str(models / "language_model"))
    [ids] = tokenizer.encode([text])
    assert tokenizer.decode(ids) == text


def test_a_names_end(models: Path) -> None:
    tokenizer = load_tokenizer(str(models / "language_model"))
    assert tokenizer.end_id("eos") == 1
    newline = tokenizer.end_id("newline")
    assert tokenizer.encode(["Java\n"])[0] == [*tokenizer.encode(["Java"])[0], newline]
    tokenizer.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no EOS token"):
        tokenizer.end_id("eos")


def test_the_fingerprint_tells_tokenizers_apart(models: Path, tmp_path: Path) -> None:
    folder = str(models / "language_model")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.fingerprint == load_tokenizer(folder).fingerprint
    spaced = load_tokenizer(folder)  # of the same vocabulary
    spaced.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert tokenizer.fingerprint != spaced.fingerprint
    other = load_tokenizer(folder)
    other.tokenizer.add_tokens(["Mars rover"])
    assert tokenizer.fingerprint != other.fingerprint


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"'nobody/nothing' could not be loaded .*Give a local folder"):
        load_causal_lm("nobody/nothing", revision=None, device="cpu", dtype=None)


def test_weights_in_a_pickle_are_refused(tmp_path: Path) -> None:
    tiny.make_language_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "kept")
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="could not be loaded"):
        load_causal_lm(str(tmp_path), revision=None, device="cpu", dtype=None)


def test_types_of_parameters(models: Path) -> None:
    half = load_causal_lm(str(models / "language_model"), revision=None, device="cpu", dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    assert torch_dtype(None) == torch.float32
    assert [dtype_argument(v) for v in ("4.53.2", "4.56.0", "5.23.0")] == ["torch_dtype", "dtype", "dtype"]
    with pytest.raises(ValueError, match="dtype = 'int8' is not known"):
        torch_dtype("int8")


def test_a_search_in_16_bits_has_unrounded_scores(models: Path) -> None:
    """The gradient's are rounded, to take half the memory."""
    half = load_causal_lm(str(models / "language_model"), revision=None, device="cpu", dtype="bfloat16")
    embedded, keep = half.embed([5, 9, 200])[None], torch.tensor([2])
    rounded = half.forward(embedded, keep)
    with torch.no_grad():
        scores = half.forward(embedded, keep)
    assert (rounded.dtype, scores.dtype) == (torch.bfloat16, torch.float32)
    assert not torch.equal(scores, rounded.float())
    assert torch.equal(scores.bfloat16(), rounded)


def test_bos_must_be_there(models: Path) -> None:
    folder = str(models / "language_model")
    assert load_causal_lm(folder, revision=None, device="cpu", dtype=None, bos=True).bos
