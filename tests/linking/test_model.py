"""The linking model: no work is done twice, and a prompt that finds no memory takes no other with it."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spacy.language import Language
from spacy.tokens import Doc, Span

from spacy_gemel.pipeline.gemel_linker import GemelLinker
from tests.calls import Calls
from tests.mini_pipeline import examples, make_doc, make_kb, make_pipeline, picture


@pytest.fixture(scope="module")
def nlp(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Language:
    return make_pipeline(models, make_kb(tmp_path_factory.mktemp("kb"), models))


@pytest.fixture
def pipe(nlp: Language) -> GemelLinker:
    """With nothing in its caches yet."""
    pipe = nlp.get_pipe("gemel_linker")
    pipe.reload()
    return pipe


def docs(nlp: Language, count: int = 6) -> list[Doc]:
    """Different texts about one mention, with two pictures among them."""
    return [
        make_doc(nlp, f"{'So far away, ' * index}a photo of Mercury.", "Mercury", image=picture("Mercury", index % 2))
        for index in range(count)
    ]


def answers(docs: Sequence[Doc]) -> list[tuple[str, list[float]]]:
    return [(doc.ents[0].kb_id_, [c.score for c in doc.ents[0]._.gemel_candidates]) for doc in docs]


def assert_same(found: Sequence[Doc], expected: Sequence[Doc]) -> None:
    for (one, scores), (other, others) in zip(answers(found), answers(expected), strict=True):
        assert one == other
        np.testing.assert_allclose(scores, others, atol=1e-4)


# No work twice


def test_a_demonstration_is_tokenised_and_embedded_once(
    nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = Calls(monkeypatch, pipe.linking_model.language_model.tokenizer, "encode")
    embedded = Calls(monkeypatch, pipe.linking_model.language_model, "embed")
    list(nlp.pipe(docs(nlp), batch_size=2))
    texts = [text for texts in encoded.seen for text in texts if text.startswith("[Text]")]
    shown = [text for text in texts if not text.endswith("[Answer]")]
    assert len(shown) == len(set(shown)) == 3
    assert len(texts) - len(shown) == 6  # a query each
    ids = [tuple(ids) for ids in embedded.seen]
    assert len(ids) == len(set(ids)) == 3 + 6


def test_an_image_is_encoded_once_and_mapped_once_in_a_batch(
    nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pipe._reader is not None
    encoded = Calls(monkeypatch, pipe._reader.encoder, "encode_pixels")
    mapped: list[int] = []
    mapper = pipe.linking_model.mapper

    class CountingMapper:
        ops, attrs = mapper.ops, mapper.attrs

        def __call__(self, features: Any, *, is_train: bool) -> Any:
            mapped.append(len(features))
            return mapper(features, is_train=is_train)

    monkeypatch.setattr(pipe.linking_model, "mapper", CountingMapper())
    list(nlp.pipe(docs(nlp), batch_size=100))
    list(nlp.pipe(docs(nlp), batch_size=100))
    assert sum(len(images) for images in encoded.seen) == 2
    assert mapped == [2 + 3] * 2  # two pictures and those of three demonstrations


def test_a_repeated_mention_is_embedded_once(nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = Calls(monkeypatch, pipe.retriever, "_embed")
    list(nlp.pipe(docs(nlp), batch_size=2))
    assert embedded.seen == [["Mercury"]]


def test_the_same_mention_in_the_same_text_is_searched_once(
    nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefilled = Calls(monkeypatch, pipe.linking_model.decoder, "prefill")
    doc = nlp.make_doc("Mercury met Mercury and Java.")
    doc.ents = [Span(doc, index, index + 1, label="ENT") for index in (0, 2, 4)]
    doc.user_data["image"] = picture("Mercury")
    nlp(doc)
    assert sum(len(prompts) for prompts in prefilled.seen) == 2
    first, second, third = (ent._.gemel_candidates for ent in doc.ents)
    assert first == second
    assert [c.score for c in first] != [c.score for c in third]


# Memory


def limited(holds: int, error: Exception, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the language model that takes prompts, on a machine that holds so many of their tokens."""

    def limited(prompts: Sequence[torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        if len(prompts) * max(len(prompt) for prompt in prompts) > holds:
            raise error
        return method(prompts, *args, **kwargs)

    return limited


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: not enough memory")],
)
def test_memory_that_runs_out_halves_the_batches(
    nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    expected = list(nlp.pipe(docs(nlp)))
    decoder = pipe.linking_model.decoder
    longest = max(prompt.length for doc in docs(nlp) for prompt in prompts_of(pipe, doc))
    monkeypatch.setattr(decoder, "prefill", limited(2 * longest, error, decoder.prefill))
    with pytest.warns(UserWarning, match="memory ran out with .* Set batch_tokens") as caught:
        found = list(nlp.pipe(docs(nlp)))
    assert len(caught) == 2  # six at once, then three, then one or two
    assert_same(found, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert_same(list(nlp.pipe(docs(nlp))), expected)


def prompts_of(pipe: GemelLinker, doc: Doc) -> list[Any]:
    from spacy_gemel.pipeline.mentions import gather_mentions

    return pipe.linking_model.prompts(gather_mentions([doc.ents], pipe._reader, pipe.settings), pipe.settings)


def test_a_prompt_that_does_not_fit_alone_is_one_clear_warning(
    nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(nlp.pipe(docs(nlp)))
    decoder = pipe.linking_model.decoder
    lengths = sorted(prompt.length for doc in docs(nlp) for prompt in prompts_of(pipe, doc))
    error = torch.cuda.OutOfMemoryError("CUDA out of memory.")
    monkeypatch.setattr(decoder, "prefill", limited(lengths[-1] - 1, error, decoder.prefill))
    with pytest.warns(UserWarning) as caught:
        found = list(nlp.pipe(docs(nlp)))
    alone = [str(w.message) for w in caught if "alone" in str(w.message)]
    assert len(alone) == 1
    assert "'Mercury' in 'So far away, So far away, So far away, So far away...' is linked to 'NIL'" in alone[0]
    assert f"its prompt of {lengths[-1]} tokens alone (CUDA out of memory.)" in alone[0]
    assert found[-1].ents[0].kb_id_ == "NIL"
    assert_same(found[:-1], expected[:-1])


def test_memory_that_runs_out_while_learning(
    models: Path, nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient is that of the whole batch."""
    gradients = []
    model = pipe.linking_model.language_model
    longest = max(prompt.length for ex in examples(nlp)[:6] for prompt in prompts_of(pipe, ex.reference))
    for holds in (10**9, 2 * longest):
        error = RuntimeError("DefaultCPUAllocator: not enough memory")
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            patch.setattr(model, "name_loss", limited(holds, error, model.name_loss))
            losses: dict[str, float] = {}
            nlp.update(examples(nlp)[:6], sgd=False, losses=losses)
        assert bool([w for w in caught if "memory ran out" in str(w.message)]) == (holds < 10**9)
        gradients.append((losses["gemel_linker"], pipe.model.get_grad("W").copy()))
        pipe.model.set_grad("W", np.zeros_like(pipe.model.get_grad("W")))
        pipe.model.set_grad("b", np.zeros_like(pipe.model.get_grad("b")))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-4)
    np.testing.assert_allclose(gradients[0][1], gradients[1][1], rtol=1e-2, atol=1e-5)


# Sequential decoding


def test_one_long_prompt_does_not_slow_the_others(
    nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(nlp.pipe(docs(nlp)))
    decoder = pipe.linking_model.decoder
    lengths = sorted(prompt.length for doc in docs(nlp) for prompt in prompts_of(pipe, doc))
    monkeypatch.setattr(
        decoder.limits, "max_length", lengths[-2] + pipe.linking_model._constraint(pipe.settings).max_tokens
    )
    prefilled = Calls(monkeypatch, decoder, "prefill")
    with pytest.warns(UserWarning, match="decoded sequentially") as caught:
        found = list(nlp.pipe(docs(nlp)))
    assert len(caught) == 1
    assert [len(prompts) for prompts in prefilled.seen] == [5, 1]
    assert_same(found, expected)


def test_memory_that_runs_out_in_sequential_decoding_makes_no_batch_smaller(
    nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows go one by one: there is nothing to halve, and batches over shared prefixes fit as before."""
    decoder = pipe.linking_model.decoder
    lengths = sorted(prompt.length for doc in docs(nlp) for prompt in prompts_of(pipe, doc))
    monkeypatch.setattr(
        decoder.limits, "max_length", lengths[-3] + pipe.linking_model._constraint(pipe.settings).max_tokens
    )
    decoder.warn_sequential = lambda *_: None
    prefill = decoder.prefill

    def fails(prompts: Sequence[torch.Tensor], **options: int) -> Any:
        if len(prompts[0]) > lengths[-3]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return prefill(prompts, **options)

    monkeypatch.setattr(decoder, "prefill", fails)
    with pytest.warns(UserWarning, match="alone") as caught:
        found = list(nlp.pipe(docs(nlp)))
    assert len(caught) == 2
    assert [doc.ents[0].kb_id_ == "NIL" for doc in found] == [False] * 4 + [True] * 2
    assert pipe.linking_model._budget.limit is None


def test_scores_that_are_no_numbers_are_said(nlp: Language, pipe: GemelLinker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of the batch are linked as ever."""
    expected = list(nlp.pipe(docs(nlp)))
    decoder = pipe.linking_model.decoder
    prefill = decoder.prefill

    def overflows(*args: Any, **kwargs: Any) -> Any:
        state = prefill(*args, **kwargs)
        state.logits[0] = float("nan")  # the longest
        return state

    monkeypatch.setattr(decoder, "prefill", overflows)
    with pytest.warns(UserWarning, match=r"no name was found for 1 mentions.*'Mercury'.*use bfloat16 or float32"):
        found = list(nlp.pipe(docs(nlp)))
    assert found[-1].ents[0].kb_id_ == "NIL"
    assert_same(found[:-1], expected[:-1])


def test_losses_come_in_the_order_of_the_mentions(nlp: Language, pipe: GemelLinker) -> None:
    from spacy_gemel.pipeline.mentions import gather_mentions

    mentions = gather_mentions([doc.ents for doc in docs(nlp, 4)], pipe._reader, pipe.settings)
    rows = [pipe.kb.row(kb_id) for kb_id in sorted(pipe.training_gold_ids)][:1] * 4
    together = pipe.linking_model.learn(mentions, rows, pipe.settings)
    alone = [pipe.linking_model.learn([mention], rows[:1], pipe.settings)[0] for mention in mentions]
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    assert len(set(together.tolist())) == 4
