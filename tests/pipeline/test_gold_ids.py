"""Gold ids written as URLs, titles or QIDs: trained, evaluated and scored as the ids that they mean."""

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from urllib.parse import quote

import pytest
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example

from spacy_gemel.evaluation.runner import EvaluateOptions, evaluate
from tests.mini_pipeline import COLOURS, entity_id, examples, make_doc, make_kb, make_pipeline, picture
from tests.tiny import NAMES


def qid(name: str) -> str:
    return f"Q{NAMES.index(name)}"


SPELLINGS: list[Callable[[str], str]] = [
    entity_id,
    str,  # the title
    lambda name: quote(entity_id(name)),
    lambda name: "https://en.wikipedia.org/wiki/" + quote(entity_id(name)),
    lambda name: "nhttps://en.wikipedia.org/wiki/" + entity_id(name),
    qid,
]


@pytest.fixture(scope="module")
def nlp(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Language:
    rows = [{"id": entity_id(name), "name": name, "count": 3, "aliases": [qid(name)]} for name in NAMES]
    return make_pipeline(models, make_kb(tmp_path_factory.mktemp("kb"), models, rows))


def spell(doc: Doc, spelling: Callable[[str], str]) -> Doc:
    doc.ents = [Span(doc, e.start, e.end, e.label_, kb_id=spelling(e.kb_id_.replace("_", " "))) for e in doc.ents]
    return doc


def test_every_spelling_is_the_same_gold(nlp: Language, tmp_path: Path) -> None:
    """The pipe's own answers are the golds, so that every score is 1 if they are understood."""
    answers = [(one.predicted, nlp(one.predicted.copy())) for one in examples(nlp)]
    assert len(answers) >= len(SPELLINGS)
    respelled = [
        Example(doc, spell(answer, spelling))
        for (doc, answer), spelling in zip(answers, cycle(SPELLINGS), strict=False)
    ]
    assert nlp.evaluate(respelled)["nel_accuracy"] == 1
    names = [name for name in COLOURS for _ in range(2)]
    docs = [
        spell(make_doc(nlp, "A photo of Mercury.", "Mercury", entity_id(name), picture(name)), spelling)
        for name, spelling in zip(names, SPELLINGS, strict=True)
    ]
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "test.spacy")
    metrics, results = evaluate(nlp, tmp_path / "test.spacy", EvaluateOptions(progress=False))
    assert metrics["n"] == metrics["seen"]["n"] == 6
    assert [result.gold for result in results] == [entity_id(name) for name in names]


def test_training_takes_every_spelling(nlp: Language, models: Path) -> None:
    pipe = nlp.get_pipe("gemel_linker")
    losses: list[dict[str, float]] = [{}, {}]

    def respelled(nlp: Language) -> list[Example]:
        pairs = zip(examples(nlp), cycle(SPELLINGS), strict=False)
        return [Example(one.predicted, spell(one.reference, spelling)) for one, spelling in pairs]

    nlp.update(examples(nlp)[:6], losses=losses[0], sgd=False)
    nlp.update(respelled(nlp)[:6], losses=losses[1], sgd=False)
    assert losses[0]["gemel_linker"] == pytest.approx(losses[1]["gemel_linker"])
    assert losses[0]["gemel_linker"] > 0
    again = make_pipeline(models, pipe.kb.path)
    again.initialize(lambda: respelled(again))
    assert again.get_pipe("gemel_linker").training_gold_ids == pipe.training_gold_ids
