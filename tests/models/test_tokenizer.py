"""Each family of language models with the type of tokenizer it comes with: names, prompts, search and pipe."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_gemel.decoding.constraints import TrieConstraint
from spacy_gemel.decoding.self_check import make_decoder
from spacy_gemel.kb.builder import build_kb
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.kb.name_tokens import tokenise_names
from spacy_gemel.linking.prompt import demonstration_text, query_text
from spacy_gemel.models.causal_lm import CausalLM, load_causal_lm
from spacy_gemel.models.tokenizer import NameEnd, NameTokenizer, load_tokenizer
from tests.decoding.test_beam_search import BEAMS, reference, search
from tests.mini_pipeline import COLOURS, entity_id, example, make_config, make_doc, make_kb, make_pipeline, picture
from tests.tiny import NAMES
from tests.tokenizer_types import END_OF_TEXT, TYPES

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 1024}
GROUPED = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
# OPT-350m's own shape: narrower embeddings, projected in and out, and norms after the layers.
OPT_350M = {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False, "init_std": 0.4}


@dataclass(frozen=True)
class Family:
    """kind: of tokenizer. newline: whether it leaves the newline after a name alone."""

    kind: str
    model: str
    config: str
    sizes: dict[str, Any]
    newline: bool = True

    @property
    def name_end(self) -> NameEnd:
        return "newline" if self.newline else "eos"


FAMILIES = {
    "GPT-2": Family(
        "gpt2", "GPT2LMHeadModel", "GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
    ),
    "OPT": Family("opt", "OPTForCausalLM", "OPTConfig", {**OPT_350M, "word_embed_proj_dim": 32}),
    "OPT-350m": Family("opt", "OPTForCausalLM", "OPTConfig", OPT_350M),
    "Pythia": Family("pythia", "GPTNeoXForCausalLM", "GPTNeoXConfig", {**SIZES, "intermediate_size": 48}),
    "Llama-2": Family("llama", "LlamaForCausalLM", "LlamaConfig", GROUPED),
    "Llama-3": Family("llama3", "LlamaForCausalLM", "LlamaConfig", GROUPED, newline=False),
    "Mistral": Family("llama", "MistralForCausalLM", "MistralConfig", {**GROUPED, "sliding_window": None}),
    "SmolLM2": Family("smollm", "LlamaForCausalLM", "LlamaConfig", {**GROUPED, "tie_word_embeddings": True}),
    "Qwen2": Family("qwen", "Qwen2ForCausalLM", "Qwen2Config", {**GROUPED, "tie_word_embeddings": True}, newline=False),
    "Qwen3": Family("qwen", "Qwen3ForCausalLM", "Qwen3Config", GROUPED, newline=False),
    "Gemma": Family("gemma", "GemmaForCausalLM", "GemmaConfig", GROUPED),
    "Gemma2": Family("gemma", "Gemma2ForCausalLM", "Gemma2Config", GROUPED),
}

# Each must enter the trie of every type: no token of theirs is unknown, and they come back as they are.
ODD = [
    "'s-Hertogenbosch",
    "AC/DC",
    "C++",
    "1,234.5%",
    "Łódź",
    "東京 2020",
    "🌍 Earth",
    "</s>",
    END_OF_TEXT,
    "<s> (film)",
]
# "é" as "e" and an accent: NFC, which Pythia and Qwen begin with, makes another text of it.
DECOMPOSED = "Cafe\u0301 de Flore"


def save_tokenizer(kind: str, folder: Path) -> NameTokenizer:
    TYPES[kind](folder)
    return load_tokenizer(str(folder))


def save_family(family: Family, folder: Path) -> None:
    tokenizer = save_tokenizer(family.kind, folder)
    torch.manual_seed(0)
    config = getattr(transformers, family.config)(
        # As many of them do: more rows than there are tokens.
        vocab_size=-(-len(tokenizer.tokenizer) // 64) * 64,
        initializer_range=0.4,
        bos_token_id=tokenizer.tokenizer.bos_token_id,
        eos_token_id=tokenizer.tokenizer.eos_token_id,
        pad_token_id=tokenizer.tokenizer.pad_token_id,
        **family.sizes,
    )
    getattr(transformers, family.model)(config).save_pretrained(folder)


@pytest.fixture(scope="module", params=TYPES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(kind: str, tmp_path_factory: pytest.TempPathFactory) -> NameTokenizer:
    return save_tokenizer(kind, tmp_path_factory.mktemp(kind))


def test_names_enter_the_trie_as_they_are(tokenizer: NameTokenizer) -> None:
    names = [*NAMES, *ODD]
    tokens = tokenise_names(names, tokenizer, 64)
    assert tokens.problems == ()
    assert tokens.indices.tolist() == list(range(len(names)))
    ids = tokens.tokens.tolist()
    for name, length in zip(names, tokens.lengths.tolist(), strict=True):
        own, ids = ids[:length], ids[length:]
        text = tokenizer.tokenizer.decode(own, clean_up_tokenization_spaces=False)
        assert text.removeprefix(" ") == name


def test_what_does_not_come_back_is_refused_with_the_reason(kind: str, tokenizer: NameTokenizer) -> None:
    tokens = tokenise_names([DECOMPOSED, "Java\nIndonesia", "", " Java"], tokenizer, 64)
    reasons = {index: problem.reason for index, problem in tokens.problems}
    kept = {} if kind not in ("pythia", "qwen") else {0: "not_reversible"}
    assert reasons == {**kept, 1: "line_break", 2: "empty_name", 3: "not_reversible"}
    message = {index: problem.message for index, problem in tokens.problems}
    assert "comes back as" in message[3]


def test_any_name_comes_back_or_is_refused(tokenizer: NameTokenizer) -> None:
    @given(st.lists(st.text(max_size=12), max_size=8))
    @settings(max_examples=40)
    def check(names: list[str]) -> None:
        tokens = tokenise_names(names, tokenizer, 64)
        assert sorted([*tokens.indices.tolist(), *(index for index, _ in tokens.problems)]) == list(range(len(names)))
        assert all(problem.reason and problem.message for _, problem in tokens.problems)
        ids = tokens.tokens.tolist()
        for index, length in zip(tokens.indices.tolist(), tokens.lengths.tolist(), strict=True):
            assert tokenizer.decode(ids[:length]) == names[index]
            assert tokenizer.special_ids.isdisjoint(ids[:length])
            ids = ids[length:]

    check()


def test_special_tokens_of_a_caption_stay_letters(tokenizer: NameTokenizer) -> None:
    raw = tokenizer.tokenizer
    caption = "A view of " + " and ".join(raw.all_special_tokens) + " at dawn"
    prompts = [query_text(caption, "Java"), demonstration_text(caption, raw.eos_token, "Java (island)")]
    for text, ids in zip(prompts, tokenizer.encode(prompts), strict=True):
        assert tokenizer.special_ids.isdisjoint(ids)
        assert tokenizer.decode(ids) == text
    # It is for the setting, not for want of such tokens: by default they become one.
    assert raw.eos_token_id in raw(caption, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("family", ["GPT-2", "OPT-350m", "Pythia", "SmolLM2", "Llama-2", "Llama-3", "Qwen2", "Gemma"])
def test_where_a_name_ends(family: str, tmp_path: Path) -> None:
    """A newline, unless punctuation takes it along (")" ends half of all titles): that is said, not guessed."""
    tokenizer = save_tokenizer(FAMILIES[family].kind, tmp_path)
    assert tokenizer.end_id("eos") == tokenizer.tokenizer.eos_token_id
    if FAMILIES[family].newline:
        end = tokenizer.end_id("newline")
        assert tokenizer.tokenizer.decode([end]) == "\n"
        for name in (*NAMES, *ODD):
            with_end, without = tokenizer.encode([name + "\n", name])
            assert with_end == [*without, end]
    else:
        with pytest.raises(ValueError, match=r'merges the newline after a name.*set name_end = "eos"'):
            tokenizer.end_id("newline")


def test_an_end_that_cannot_be_is_said_before_the_images_are_read(models: Path, tmp_path: Path) -> None:
    """Encoding the images of a training set takes minutes; one that cannot be read would be warned of meanwhile."""
    save_family(FAMILIES["Qwen2"], tmp_path / "language_model")
    for other in ("vision_encoder", "sentence_encoder"):
        (tmp_path / other).symlink_to(models / other)
    nlp = spacy.blank("en")
    nlp.add_pipe("gemel_linker", config=make_config(tmp_path, name_end="newline"))
    path = str(make_kb(tmp_path, tmp_path))
    nlp.config["initialize"]["components"]["gemel_linker"] = {
        "kb_loader": {"@misc": "spacy_gemel.KBFromDisk.v1", "path": path}
    }
    seen = example(nlp, "A photo of Mercury.", "Mercury", "Mercury (planet)", "nowhere.png")
    with warnings.catch_warnings(record=True) as message, pytest.raises(ValueError, match='set name_end = "eos"'):
        warnings.simplefilter("always")
        nlp.initialize(lambda: [seen])
    assert [str(warning.message) for warning in message if "nowhere.png" in str(warning.message)] == []


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def folder(family: Family, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of a pipe: this family's language model, and the small encoders of all tests."""
    made = tmp_path_factory.mktemp("family")
    save_family(family, made / "language_model")
    for other in ("vision_encoder", "sentence_encoder"):
        (made / other).symlink_to(models / other)
    return made


@pytest.fixture(scope="module")
def load(folder: Path) -> Callable[..., CausalLM]:
    return partial(load_causal_lm, str(folder / "language_model"), revision=None, device="cpu", dtype=None)


@pytest.fixture(scope="module")
def kb(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"id": entity_id(name), "name": name} for name in (*NAMES, *ODD)]
    return make_kb(tmp_path_factory.mktemp("kb"), folder, rows)


def test_search_is_that_of_generate(family: Family, load: Callable[..., CausalLM], kb: Path) -> None:
    """The names of a knowledge base after prompts of the paper's words."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # none is decoded sequentially
        model = load()
    opened = KnowledgeBase.open(kb)
    assert opened.meta.names == len(NAMES) + len(ODD)
    end = model.tokenizer.end_id(family.name_end)
    prompts = [
        model.embed(model.tokenizer.encode([query_text(f"A view of {mention} at {hour}.", mention)])[0])
        for mention in ("Mercury", "Java")
        for hour in ("dawn", "night </s>", "noon, in the rain")
    ]
    names = [tuple(ids) for ids in model.tokenizer.encode([*NAMES, *ODD])]
    constraint = TrieConstraint(opened.trie, end, 64)
    found = search(make_decoder(model), prompts, constraint, beam_size=BEAMS, n_names=BEAMS)
    for prompt, hypotheses in zip(prompts, found, strict=True):
        expected = reference(model, prompt, names, limit=64, end=end)
        assert [hypothesis.tokens for hypothesis in hypotheses] == [name for name, _ in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for _, score in expected], abs=1e-4)
        assert all(model.tokenizer.decode(h.tokens) in {*NAMES, *ODD} for h in hypotheses)


def test_linking_through_the_pipe(family: Family, folder: Path, kb: Path) -> None:
    nlp = make_pipeline(folder, kb, name_end=family.name_end)
    caption = "Mercury </s> <|endoftext|> seen at dawn."
    doc = nlp(make_doc(nlp, caption, "Mercury", image=picture("Mercury (planet)")))
    [ent] = doc.ents
    names = {entity_id(name): name for name in (*NAMES, *ODD)}
    candidates = ent._.gemel_candidates
    found = [candidate for candidate in candidates if candidate.name != "Mercury"]  # which is always a candidate
    assert len(candidates) - 1 == len(found) in (4, 5)
    assert ent.kb_id_ == candidates[0].kb_id
    assert all(names[candidate.kb_id] == candidate.name for candidate in candidates)
    assert set(COLOURS) <= set(names.values())


def test_bos_is_the_token_in_front_of_everything(family: Family, folder: Path, kb: Path) -> None:
    """The best name's score is what transformers alone gives for the token ids of the whole, with and without BOS."""
    raw = load_tokenizer(str(folder / "language_model")).tokenizer
    for bos in (False, True):
        block = {"@misc": "spacy_gemel.CausalLM.v1", "name": str(folder / "language_model"), "bos": bos}
        changes = {"name_end": family.name_end, "n_demonstrations": 0, "use_image": False, "language_model": block}
        if bos and raw.bos_token_id is None:
            with pytest.raises(
                ValueError, match=r"bos = true, but the tokenizer of .* has no BOS token: set bos = fal"
            ):
                make_pipeline(folder, kb, **changes)
            continue
        nlp = make_pipeline(folder, kb, **changes)
        doc = nlp(make_doc(nlp, "A view of Java at dawn.", "Java"))
        best = doc.ents[0]._.gemel_candidates[0]

        model = transformers.AutoModelForCausalLM.from_pretrained(folder / "language_model").eval()
        plain = partial(raw, add_special_tokens=False)
        prompt = plain(query_text("A view of Java at dawn.", "Java"))["input_ids"]
        end = raw.eos_token_id if not family.newline else plain(f"{best.name}\n")["input_ids"][-1]
        name = [*plain(best.name)["input_ids"], end]
        front = [raw.bos_token_id] if bos else []
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*front, *prompt, *name]])).logits[0]
        log_probabilities = torch.log_softmax(logits[len(front) + len(prompt) - 1 : -1], dim=-1)
        score = float(log_probabilities[range(len(name)), name].mean())
        assert best.score == pytest.approx(score, abs=1e-4)


def test_a_name_too_long_is_refused_and_the_rest_are_there(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "entities.jsonl"
    source.write_text('{"id": "1", "name": "Java"}\n{"id": "2", "name": "' + "Mercury " * 40 + 'x"}\n', encoding="utf8")
    report = build_kb(source, tmp_path / "kb", load_tokenizer(str(folder / "language_model")), progress=False)
    assert report.meta.names == 1
    assert "too_long" in str(report.meta.skipped)
