"""Mentions that may mean only some entities: those of get_candidates, or those that bear the mention."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import spacy
from spacy.language import Language

from spacy_gemel.linking.candidates import Candidate
from spacy_gemel.linking.decision import Decision
from tests.mini_pipeline import linker, make_doc, make_pipeline

LISTS: dict[str, list[Any]] = {
    "Java": ["Jaguar", "Atlantis", "nobody's id"],
    "Jaguar": [SimpleNamespace(entity_="Jaguar"), SimpleNamespace(entity_="Jaguar_Cars")],
}


@spacy.registry.misc("tests.by_list.v1")
def by_list() -> Callable[[Any, Any], list[Any]]:
    return lambda kb, span: LISTS.get(span.text, [])


def link(nlp: Language, *mentions: str) -> list[list[Candidate]]:
    docs = nlp.pipe(make_doc(nlp, f"Here is {mention} again.", mention) for mention in mentions)
    return [doc.ents[0]._.gemel_candidates for doc in docs]


@pytest.mark.parametrize(
    ("settings", "decision"), [({}, None), ({"prior_weight": 0.5}, None), ({}, Decision({"score": 3.0}))]
)
def test_only_what_the_function_gives_is_a_candidate(
    models: Path, kb: Path, settings: dict[str, Any], decision: Decision | None
) -> None:
    """By their ids, whether they bear the mention or not; a mention without a list may mean everything."""
    nlp = make_pipeline(models, kb, get_candidates={"@misc": "tests.by_list.v1"}, **settings)
    linker(nlp).use_decision(decision)
    java, jaguar, mercury = link(nlp, "Java", "Jaguar", "Mercury")
    assert {c.kb_id for c in java} == {"Jaguar", "Atlantis"}
    assert {c.kb_id for c in jaguar} == {"Jaguar", "Jaguar_Cars"}
    assert len(mercury) >= 5
    for found in (java, jaguar):
        assert sum(c.probability for c in found) == pytest.approx(1)


def test_aliases_alone(models: Path, kb: Path) -> None:
    """What the training examples and the names know the mention by; without any, everything."""
    nlp = make_pipeline(models, kb, candidates="aliases")
    mercury, spelled, unknown = link(nlp, "Mercury", "mercury's", "evening")
    assert (
        {c.kb_id for c in mercury}
        == {c.kb_id for c in spelled}
        == {
            "Mercury",
            "Mercury_(planet)",
            "Mercury_(element)",
        }
    )
    assert len(unknown) == 5
