"""Golds that are URLs, titles or QIDs: trained, evaluated and scored as the ids that they mean."""

from collections.abc import Callable
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


WAYS: dict[str, Callable[[str], str]] = {
    "id": entity_id,
    "title": str,
    "escaped": lambda name: quote(entity_id(name)),
    "url": lambda name: "https://en.wikipedia.org/wiki/" + quote(entity_id(name)),
    "broken url": lambda name: "nhttps://en.wikipedia.org/wiki/" + entity_id(name),
    "QID": qid,
}


@pytest.fixture(scope="module")
def nlp(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Language:
    rows = [{"id": entity_id(name), "name": name, "count": 3, "aliases": [qid(name)]} for name in NAMES]
    return make_pipeline(models, make_kb(tmp_path_factory.mktemp("kb"), models, rows))


def with_golds(doc: Doc, way: Callable[[str], str]) -> Doc:
    doc.ents = [Span(doc, e.start, e.end, e.label_, kb_id=way(e.kb_id_.replace("_", " "))) for e in doc.ents]
    return doc


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_the_same_gold(nlp: Language, way: str, tmp_path: Path) -> None:
    """What the pipe itself says is taken for gold, so that every score is 1 where golds are understood."""
    written = []
    for one in examples(nlp):
        said = nlp(one.predicted.copy())
        written.append(Example(one.predicted, with_golds(said, WAYS[way])))
    assert nlp.evaluate(written)["nel_accuracy"] == 1
    docs = [
        with_golds(make_doc(nlp, "A photo of Mercury.", "Mercury", entity_id(name), picture(name)), WAYS[way])
        for name in COLOURS
    ]
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "test.spacy")
    metrics, results = evaluate(nlp, tmp_path / "test.spacy", EvaluateOptions(progress=False))
    assert metrics["n"] == metrics["seen"]["n"] == 3
    assert [result.gold for result in results] == [entity_id(name) for name in COLOURS]


@pytest.mark.parametrize("way", ["url", "QID"])
def test_training_takes_every_way(nlp: Language, models: Path, way: str) -> None:
    pipe = nlp.get_pipe("gemel_linker")
    losses = [{}, {}]
    nlp.update(examples(nlp)[:6], losses=losses[0], sgd=False)
    nlp.update([Example(one.predicted, with_golds(one.reference, WAYS[way])) for one in examples(nlp)[:6]],
               losses=losses[1], sgd=False)  # fmt: skip
    assert losses[0]["gemel_linker"] == pytest.approx(losses[1]["gemel_linker"])
    assert losses[0]["gemel_linker"] > 0
    again = make_pipeline_with(models, pipe.kb.path, WAYS[way])
    assert again.get_pipe("gemel_linker").training_golds == pipe.training_golds


def make_pipeline_with(models: Path, kb: Path, way: Callable[[str], str]) -> Language:
    nlp = make_pipeline(models, kb)
    written = [Example(one.predicted, with_golds(one.reference, way)) for one in examples(nlp)]
    nlp.initialize(lambda: written)
    return nlp
