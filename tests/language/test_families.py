"""Small random models of other families: searched as transformers itself does it, or refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from spacy_gemel.kb.trie_builder import trie_from_names
from spacy_gemel.language.loading import load_causal_lm
from spacy_gemel.search.beam import beam_search
from spacy_gemel.search.names import TrieNames
from tests import tiny
from tests.search.test_beam import BEAMS, END, random_names, random_prompts, reference

SMALL = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 256}
FAMILIES: dict[str, dict[str, Any]] = {
    "GPT2": {"vocab_size": 400, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "OPT": {**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 16, "max_position_embeddings": 256},
    "Mistral": {**GROUPED, "sliding_window": None},
    "Qwen2": GROUPED,
    "Gemma": {**GROUPED, "head_dim": 8},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str, tmp_path: Path) -> None:
    tiny.make_tokenizer(tmp_path)
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        **FAMILIES[family], initializer_range=0.4, init_std=0.4, bos_token_id=0, eos_token_id=1, pad_token_id=1
    )
    name = f"{family}LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    getattr(transformers, name)(config).save_pretrained(tmp_path)
    model = load_causal_lm(str(tmp_path), revision=None, device="cpu", dtype=None)
    if family == "OPT":
        assert model.width == 16  # the embeddings', not the hidden states'
    names = random_names(0, 100)
    allowed = TrieNames(trie_from_names(names, vocab_size=400), END, 12)
    prompts = random_prompts(model, 1, 5)
    for prompt, found in zip(
        prompts, beam_search(model, prompts, allowed, beam_size=BEAMS, n_names=BEAMS), strict=True
    ):
        expected = reference(model, prompt, names)
        assert [h.tokens for h in found] == [name for name, _ in expected]
        assert [h.score for h in found] == pytest.approx([score for _, score in expected], abs=1e-4)


def test_a_model_without_position_ids_is_refused(tmp_path: Path) -> None:
    tiny.make_tokenizer(tmp_path)
    transformers.BloomForCausalLM(
        transformers.BloomConfig(vocab_size=400, hidden_size=32, n_layer=1, n_head=4)
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="cannot be searched: it must take"):
        load_causal_lm(str(tmp_path), revision=None, device="cpu", dtype=None)
