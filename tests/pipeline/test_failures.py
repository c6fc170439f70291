"""What fails leaves a trained pipe and the caller's docs as they were, and nothing behind."""

import gc
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import srsly
from spacy.language import Language
from spacy.training import Example

from spacy_gemel.kb.entity import KBError
from spacy_gemel.kb.knowledge_base import KnowledgeBase
from tests import tiny
from tests.mini_pipeline import (
    add_linker,
    example,
    examples,
    linker,
    make_doc,
    make_kb,
    make_pipeline,
    picture,
)
from tests.sending import Sent


@pytest.fixture
def nlp(models: Path, kb: Path) -> Language:
    return make_pipeline(models, kb)


def blank(models: Path, **changes: Any) -> Language:
    return add_linker(spacy.blank("en"), models, **changes)


def answers(nlp: Language) -> list[Any]:
    docs = [
        make_doc(nlp, f"A photo of {mention}.", mention, image=picture("Mercury")) for mention in ("Mercury", "Java")
    ]
    return [
        (ent.kb_id_, [(found.kb_id, round(found.score, 3)) for found in ent._.gemel_candidates], shown(nlp, doc))
        for doc in nlp.pipe(docs)
        for ent in doc.ents
    ]


def shown(nlp: Language, doc: Any) -> list[str]:
    return [demonstration.text for demonstration in linker(nlp).demonstrations_for(doc, doc.ents[0])]


# Initialized again

Fail = Callable[[Language, Path, pytest.MonkeyPatch], tuple[list[Example] | None, Path | None]]


def no_such_kb(nlp: Language, tmp_path: Path, _: pytest.MonkeyPatch) -> tuple[list[Example] | None, Path | None]:
    return None, tmp_path / "nowhere"


def kb_of_another_tokenizer(
    nlp: Language, tmp_path: Path, _: pytest.MonkeyPatch
) -> tuple[list[Example] | None, Path | None]:
    from transformers import AutoTokenizer

    tiny.make_tokenizer(tmp_path / "language_model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "language_model")
    tokenizer.add_tokens(["Mars rover"])
    tokenizer.save_pretrained(tmp_path / "language_model")
    return None, make_kb(tmp_path, tmp_path)


def no_usable_gold(nlp: Language, _: Path, __: pytest.MonkeyPatch) -> tuple[list[Example] | None, Path | None]:
    return [example(nlp, "A photo of Java.", "Java", "Nowhere")], None


def failing_encoder(
    nlp: Language, _: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Example] | None, Path | None]:
    """At the last step but one: the new demonstrations' mentions are embedded."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(linker(nlp).retriever._embed.model, "encode", fail)
    return [example(nlp, "A photo of Atlantis.", "Atlantis", "Atlantis", picture("Atlantis")), *examples(nlp)], None


@pytest.mark.parametrize("fail", [no_such_kb, kb_of_another_tokenizer, no_usable_gold, failing_encoder])
def test_a_trained_pipe_survives_an_initialize_that_fails(
    nlp: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Fail
) -> None:
    expected, state = answers(nlp), linker(nlp).to_bytes(exclude=["vocab"])
    with monkeypatch.context() as patch:
        data, other = fail(nlp, tmp_path, patch)
        if other is not None:
            loader = {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(other)}
            nlp.config["initialize"]["components"]["gemel_linker"] = {"kb_loader": loader}
        with pytest.raises((ValueError, RuntimeError)):
            nlp.initialize(lambda: examples(nlp) if data is None else data)
    assert answers(nlp) == expected
    assert linker(nlp).to_bytes(exclude=["vocab"]) == state


def test_initialized_again_it_is_new(nlp: Language) -> None:
    data = [example(nlp, "A photo of Atlantis.", "Atlantis", "Atlantis", picture("Atlantis"))]
    nlp.initialize(lambda: data)
    assert [shown.mention for shown in linker(nlp).store] == ["Atlantis"]
    assert answers(nlp)[0][2] == ["A photo of Atlantis."]


# The caller's docs


def test_learning_changes_no_gold_doc(nlp: Language) -> None:
    def data() -> list[Example]:
        """The image on the predicted docs alone, as a component of the pipeline may put it there."""
        some = examples(nlp)
        for one in some:
            del one.reference.user_data["image"]
        return some

    mine = data()
    losses: dict[str, float] = {}
    nlp.update(mine, losses=losses)
    nlp.initialize(lambda: mine)
    for one in mine:
        assert set(one.reference.user_data) == set()
        assert set(one.predicted.user_data) == {"image"}
    assert all(demonstration.image != -1 for demonstration in linker(nlp).store)  # and the images are learned
    assert losses["gemel_linker"] > 0
    gradient = linker(nlp)
    nlp.update(mine, sgd=False)
    assert np.abs(gradient.model.get_grad("W")).max() > 0


def test_a_gold_docs_own_image_comes_first(nlp: Language) -> None:
    one = example(nlp, "A photo of Atlantis.", "Atlantis", "Atlantis", picture("Atlantis"))
    one.predicted.user_data["image"] = picture("Mercury")
    nlp.initialize(lambda: [one])
    [found] = linker(nlp).store.features
    np.testing.assert_allclose(found, linker(nlp)._reader.read([picture("Atlantis")])[0], atol=1e-5)


# Golds that are not known


def test_golds_that_the_knowledge_base_lacks_are_said_once_while_learning(nlp: Language) -> None:
    data = [
        example(nlp, "A photo of Java.", "Java", "Nowhere"),
        example(nlp, "A photo of Java.", "Java", "Nobody"),
        example(nlp, "A photo of Mercury.", "Mercury", "NIL"),
        example(nlp, "A photo of Mercury.", "Mercury", "Mercury"),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nlp.update(data[2:])
        assert not [warning for warning in caught if "gemel_linker" in str(warning.message)]
        nlp.update(data)
        assert nlp.update(data[:2]) == {"gemel_linker": 0.0}
    message = [str(warning.message) for warning in caught if "gemel_linker" in str(warning.message)]
    assert len(message) == 1
    assert "2 of 3 gold entities of these examples are not learned" in message[0]
    assert "(Nowhere, Nobody)" in message[0]


def test_golds_that_initialize_has_told_of_are_not_said_again(nlp: Language) -> None:
    data = [example(nlp, "A photo of Java.", "Java", "Nowhere"), *examples(nlp)]
    with pytest.warns(UserWarning, match=r"1 of 19 mentions of the training data are skipped: .*\(Nowhere\)"):
        nlp.initialize(lambda: data)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*gemel_linker")
        nlp.update(data)
    with pytest.warns(UserWarning, match="1 of 1 gold entities of these examples are not learned"):
        nlp.update([example(nlp, "A photo of Java.", "Java", "Nobody")])


# Loaded in part


@pytest.mark.parametrize("form", ["disk", "bytes"])
def test_a_fresh_pipe_without_the_knowledge_base(
    nlp: Language, models: Path, kb: Path, tmp_path: Path, form: str
) -> None:
    source = linker(nlp)
    source.to_disk(tmp_path / "pipe")

    def load(pipe: Any) -> None:
        if form == "disk":
            pipe.from_disk(tmp_path / "pipe", exclude=["kb"])
        else:
            pipe.from_bytes(source.to_bytes(exclude=["kb"]))

    fresh = blank(models)
    with pytest.raises(ValueError, match=r"gemel_linker: loaded without a knowledge base: 'kb' was excluded .*set_kb"):
        load(linker(fresh))
    linker(fresh).set_kb(lambda vocab: KnowledgeBase.open(kb))  # as the message has it
    load(linker(fresh))
    assert answers(fresh) == answers(nlp)


# What is unpacked


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def left(folder: Path) -> list[Path]:
    gc.collect()
    return list(folder.iterdir())


def test_what_was_unpacked_goes_with_the_pipe(models: Path, kb: Path, tmp_path: Path, temporary: Path) -> None:
    copy = shutil.copytree(models, tmp_path / "models")
    source = make_pipeline(copy, kb, bundle_models=True)
    expected, data = answers(source), linker(source).to_bytes()
    shutil.rmtree(copy)
    assert left(temporary) == []
    nlp = blank(copy, bundle_models=True)
    linker(nlp).from_bytes(data)
    assert len(left(temporary)) == 1
    linker(nlp).add_entity("x", "Mercury (boat)")
    linker(nlp).set_kb(lambda vocab: KnowledgeBase.open(kb))
    linker(nlp).to_bytes()  # the models are still needed
    again = blank(copy, bundle_models=True)
    linker(again).from_bytes(data)
    assert answers(again) == expected
    assert len(left(temporary)) == 2
    linker(again).from_bytes(data)  # what it had before is not needed any more
    assert len(left(temporary)) == 2
    del nlp, again
    assert left(temporary) == []


def test_what_was_unpacked_stays_for_the_knowledge_base(nlp: Language, models: Path, temporary: Path) -> None:
    other = blank(models)
    linker(other).from_bytes(linker(nlp).to_bytes())
    linker(other).add_entity("x", "Mercury (boat)")
    own = linker(other).kb
    again = Sent(own).receive()  # another knowledge base of the same folder
    linker(other).set_kb(lambda vocab: KnowledgeBase.open(linker(nlp).kb.path))
    del own
    assert len(left(temporary)) == 1
    again.check_in_place()
    assert "x" in again
    del again
    assert left(temporary) == []


def test_two_processes_do_not_take_it_away(nlp: Language, models: Path, temporary: Path) -> None:
    other = blank(models)
    linker(other).from_bytes(linker(nlp).to_bytes())
    docs = [make_doc(other, f"A photo of Mercury {index}.", "Mercury") for index in range(4)]
    assert all(doc.ents[0].kb_id_ for doc in other.pipe(docs, n_process=2, batch_size=2))
    assert len(left(temporary)) == 1
    linker(other).to_bytes()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: b"rubbish", r"these bytes are not what to_bytes of a linker gave, or are damaged \("),
        (lambda data: b"", "these bytes are not what to_bytes"),
        (lambda data: data[:-100], "these bytes are not what to_bytes"),
        (lambda data: b"\x01", "what is packed in them is int, and none of added, cfg"),
        (
            lambda data: spacy.blank("en").to_bytes(),
            r"what is packed in them has .*tokenizer.*, and none of added, cfg",
        ),
        (
            lambda data: srsly.msgpack_dumps({**srsly.msgpack_loads(data), 3: b""}),
            "3 of the saved pipe is not what was saved with its other parts",
        ),
    ],
)
def test_bytes_that_are_no_pipe(
    nlp: Language, models: Path, temporary: Path, spoil: Callable[[bytes], bytes], message: str
) -> None:
    expected = answers(nlp)
    data = spoil(linker(nlp).to_bytes())
    with pytest.raises(ValueError, match=f"gemel_linker: .*{message}"):
        linker(nlp).from_bytes(data)
    assert list(temporary.iterdir()) == []  # at once, while the error is still looked at
    assert answers(nlp) == expected


def test_nothing_stays_where_loading_fails_late(nlp: Language, models: Path, tmp_path: Path, temporary: Path) -> None:
    other = kb_of_another_tokenizer(nlp, tmp_path, None)[1]  # type: ignore[arg-type]
    pipe, source = linker(blank(models)), linker(nlp)
    source._kb = KnowledgeBase.open(other)  # as if it had been trained with another language model
    data = source.to_bytes()
    with pytest.raises(KBError, match="built for another tokenizer"):
        pipe.from_bytes(data)
    assert list(temporary.iterdir()) == []


def test_the_state_is_written_as_plain_json(nlp: Language, tmp_path: Path) -> None:
    linker(nlp).configure(prior_weight=1 / 3)
    linker(nlp).to_disk(tmp_path)
    assert json.loads((tmp_path / "cfg").read_text())["settings"]["prior_weight"] == 1 / 3
