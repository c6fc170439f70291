"""The cases of a pipe: gold mentions with their candidates' features, and what the pipe answers as it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_gemel.evaluation.decision_cases import DecisionCase, collect_cases
from spacy_gemel.linking.decision import Decision
from spacy_gemel.linking.features import compute
from spacy_gemel.models.sentence_encoder import load_sentence_encoder
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.pipeline.loaded_pipeline import overridden
from tests.mini_pipeline import doc_of, linker, make_doc, make_kb, make_pipeline, picture

ROWS: list[dict[str, Any]] = [
    {"id": "planet", "name": "Mercury (planet)", "count": 9, "aliases": ["Mercury"], "description": "a planet"},
    {"id": "element", "name": "Mercury (element)", "aliases": ["Mercury"]},
    {"id": "Mercury_(planet)", "name": "Jaguar Cars", "count": 2},
    {"id": "Mercury_(element)", "name": "Atlantis", "count": 2},
    {"id": "Mercury", "name": "Mercury", "count": 3},
    {"id": "island", "name": "Java", "count": 3, "description": "an island"},
    {"id": "language", "name": "Java", "count": 3, "description": "a language"},
    {"id": "cat", "name": "Jaguar"},
]


@pytest.fixture(scope="module")
def nlp(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Language:
    """With the descriptions' vectors on disk, so that candidates are found by them as well."""
    encoder = load_sentence_encoder(str(models / "sentence_encoder"), device="cpu")
    return make_pipeline(models, make_kb(tmp_path_factory.mktemp("kb"), models, ROWS, encode=encoder))


@pytest.fixture
def pipe(nlp: Language) -> Iterator[GemelLinker]:
    pipe = linker(nlp)
    with overridden(pipe, **{**vars(pipe.settings), "beam_size": 2, "n_candidates": 2}):
        yield pipe
        pipe.use_decision(None)


def golds() -> list[Doc]:
    nlp = spacy.blank("en")
    return [
        doc_of(
            nlp, "Mercury is near Java.", ("Mercury", "ENT", "planet"), ("Java", "ENT", "language"), image=picture("x")
        ),
        doc_of(
            nlp,
            "Nobody saw Jaguar and Jaguar.",
            ("Nobody", "ENT", "NIL"),
            ("Jaguar", "ENT", "cat"),
            ("Jaguar", "ENT", ""),
        ),
        doc_of(nlp, "A photo of Mercury number 3.", ("Mercury", "ENT", "Mercury"), image=picture("Mercury", 3)),
        doc_of(nlp, "Who is Odin?", ("Odin", "ENT", "Q_elsewhere")),
        make_doc(nlp, "It was in January.", "January", "cat"),
    ]


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    docs = golds()
    for number, doc in enumerate(docs):
        if number != 1:
            doc.user_data["id"] = f"doc {number}"
    docs[4].set_ents([Span(docs[4], ent.start, ent.end, label="DATE", kb_id="cat") for ent in docs[4].ents])
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "dev.spacy")
    return tmp_path / "dev.spacy"


def collect(nlp: Language, dev: Path, **options: Any) -> list[DecisionCase]:
    return collect_cases(nlp, dev, progress=False, **options)[0]


def test_the_cases(nlp: Language, pipe: GemelLinker, dev: Path) -> None:
    pipe.configure(labels_discard=("DATE",))
    cases, columns = collect_cases(nlp, dev, progress=False)
    assert columns == [column for feature in pipe.features for column in feature.columns]
    assert [(case.doc, case.mention, case.gold) for case in cases] == [
        ("doc 0", "Mercury", "planet"),
        ("doc 0", "Java", "language"),
        ("1", "Nobody", "NIL"),
        ("1", "Jaguar", "cat"),
        ("doc 2", "Mercury", "Mercury"),
        ("doc 4", "January", "cat"),
    ]
    assert [case.has_description for case in cases] == [True, True, False, False, False, False]
    assert [case.seen for case in cases] == [False, False, False, False, True, False]
    assert [case.count for case in cases] == [0, 0, 0, 0, 6, 0]
    assert [case.is_demonstration for case in cases] == [False, False, False, False, True, False]
    assert (cases[-1].ids, cases[-1].values.shape) == ((), (0, len(columns)))  # of a label that is not linked
    assert cases[-1].current == ("NIL", "NIL", None)
    for case in cases[:-1]:
        assert case.values.shape == (len(case.ids), len(columns))
        assert len(set(case.ids)) == len(case.ids)
        assert np.isfinite(case.values).all()
    assert all(case.gold_index is not None and case.gold_index >= 0 for case in cases[:2])


@pytest.mark.parametrize("batch_size", [1, 2, 128])
def test_the_features_are_those_of_the_pipe(nlp: Language, pipe: GemelLinker, dev: Path, batch_size: int) -> None:
    """Whatever the batch; a doc's mentions are always together."""
    cases = collect(nlp, dev, batch_size=batch_size)
    docs = golds()
    mentions = pipe.mentions_of([doc.ents for doc in docs])
    batch = pipe.linking_model.options(mentions, pipe.settings)
    values, _ = compute(pipe.features, batch, pipe.linking_model, pipe.settings)
    asked = [
        number
        for number, ent in enumerate(ent for doc in docs for ent in doc.ents)
        if ent.kb_id_ not in ("", "Q_elsewhere")
    ]
    for case, number in zip(cases, asked, strict=True):
        by_id = {entity.kb_id: row for entity, row in zip(batch[number].entities, values[number], strict=True)}
        assert set(case.ids) == set(by_id)
        np.testing.assert_allclose(case.values, [by_id[kb_id] for kb_id in case.ids], atol=1e-4)


def test_golds_that_the_knowledge_base_lacks(nlp: Language, pipe: GemelLinker, dev: Path) -> None:
    assert "Odin" not in {case.mention for case in collect(nlp, dev)}
    [odin] = [case for case in collect(nlp, dev, missing_as_nil=True) if case.mention == "Odin"]
    assert odin.gold == "NIL"
    assert [case.doc for case in collect(nlp, dev, limit=2)] == ["doc 0", "doc 0", "1", "1"]
    with pytest.raises(
        ValueError, match=r"dev\.spacy: not one mention with a gold entity of the knowledge base in 1 d"
    ):
        DocBin(docs=golds()[3:4], store_user_data=True).to_disk(dev)
        collect(nlp, dev)


WAYS: list[tuple[dict[str, Any], Decision | None]] = [
    ({}, None),
    ({"threshold": 0.5}, None),
    ({"prior_weight": 0.5}, None),
    ({"prior_weight": 5.0, "threshold": 0.3}, None),
    ({"beam_size": 1, "n_candidates": 1}, None),
    ({"candidates": "aliases"}, None),
    ({}, Decision({"score": 2.0, "name_share": 1.0, "is_name": 0.5})),
    ({}, Decision({"score": 2.0, "prior": 0.5, "text_description": 3.0, "agreement": 1.0}, nil=-2.0)),
]


@pytest.mark.parametrize(("changes", "decision"), WAYS)
def test_before_is_what_the_pipe_answers(
    nlp: Language, pipe: GemelLinker, dev: Path, changes: dict[str, Any], decision: Decision | None
) -> None:
    pipe.configure(**changes)
    pipe.use_decision(decision)
    docs = [make_doc(nlp, doc.text, "x", image=doc.user_data.get("image")) if not doc.ents else doc for doc in golds()]
    golden = [ent.kb_id_ for doc in docs for ent in doc.ents]
    linked = list(nlp.pipe(docs))
    ents = [ent for doc in linked for ent in doc.ents]
    answered = [ent for ent, gold in zip(ents, golden, strict=True) if gold not in ("", "Q_elsewhere")]
    for case, ent in zip(collect(nlp, dev), answered, strict=True):
        answer, best, probability = case.current
        assert (answer, best) == (ent.kb_id_, ent._.gemel_candidates[0].kb_id), (case.mention, changes)
        assert probability == pytest.approx(ent._.gemel_candidates[0].probability, abs=1e-4), case.mention
