"""What raises goes to the error handler, which gets the docs that raised and no others."""

from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import ignore_error, raise_error

from tests.mini_pipeline import LINKER, captions, is_linked, make_config


class BrokenError(RuntimeError):
    pass


@pytest.fixture
def failing(trained: Language, monkeypatch: pytest.MonkeyPatch) -> Language:
    """Fails whenever a batch holds a doc with a certain word."""
    pipe: Any = trained.get_pipe(LINKER)
    link = pipe.linking_model.link

    def broken(mentions: Any, settings: Any) -> Any:
        if any("3" in mention.text for mention in mentions):
            raise BrokenError("the third")
        return link(mentions, settings)

    monkeypatch.setattr(pipe.linking_model, "link", broken)
    yield trained
    trained.set_error_handler(raise_error)


def test_it_is_raised_by_default(failing: Language) -> None:
    with pytest.raises(BrokenError, match="the third"):
        list(failing.pipe(captions(failing, 5)))
    with pytest.raises(BrokenError):
        failing(captions(failing, 4)[3])


@pytest.mark.parametrize("batch_size", [2, 1000])
def test_one_bad_doc_takes_no_other_with_it(failing: Language, batch_size: int) -> None:
    message: list[tuple[str, list[str], str]] = []

    def log(name: str, _pipe: Any, docs: list[Doc], error: Exception) -> None:
        message.append((name, [doc.text for doc in docs], str(error)))

    failing.set_error_handler(log)
    docs = list(failing.pipe(captions(failing, 6), batch_size=batch_size))
    assert [doc.text.split()[1] for doc in docs] == ["0", "1", "2", "4", "5"]
    assert all(is_linked(doc) for doc in docs)
    assert message == [(LINKER, ["Number 3 is a photo of Mercury."], "the third")]


def test_contexts_stay_with_their_docs(failing: Language) -> None:
    failing.set_error_handler(ignore_error)
    pairs = ((doc, index) for index, doc in enumerate(captions(failing, 6)))
    assert [index for _, index in failing.pipe(pairs, as_tuples=True)] == [0, 1, 2, 4, 5]


def test_in_two_processes(failing: Language) -> None:
    failing.set_error_handler(ignore_error)
    docs = list(failing.pipe(captions(failing, 6), n_process=2, batch_size=3))
    assert [doc.text.split()[1] for doc in docs] == ["0", "1", "2", "4", "5"]


def test_not_initialized_raises_once_and_names_the_pipe(models: Any) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe(LINKER, name="links", config=make_config(models))
    with pytest.raises(ValueError, match="links: not ready"):
        list(nlp.pipe(captions(nlp)))
    message: list[Exception] = []
    nlp.set_error_handler(lambda _name, _pipe, _docs, error: message.append(error))
    assert list(nlp.pipe(captions(nlp))) == []
    assert all("links: not ready" in str(error) for error in message)
