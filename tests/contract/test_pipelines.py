"""A linker among other pipes: sourced, renamed, doubled, disabled, analysed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.training import Example

from tests.mini_pipeline import LINKER, assert_same, captions, examples, is_linked, make_config


def test_its_place_in_the_analysis(models: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe(LINKER, config=make_config(models))
    alone = nlp.analyze_pipes()
    assert alone["summary"][LINKER] == {
        "assigns": ["token.ent_kb_id"],
        "requires": ["doc.ents", "token.ent_iob", "token.ent_type"],
        "scores": ["nel_micro_f", "nel_micro_r", "nel_micro_p", "nel_nil_f"],
        "retokenizes": False,
    }
    assert alone["problems"][LINKER] == ["doc.ents", "token.ent_iob", "token.ent_type"]
    nlp.add_pipe("ner", before=LINKER)
    assert nlp.analyze_pipes()["problems"][LINKER] == []


def test_has_get_remove(trained: Language, saved: Path) -> None:
    nlp = spacy.load(saved)
    assert nlp.has_pipe(LINKER)
    assert nlp.get_pipe_meta(LINKER).factory == LINKER
    name, pipe = nlp.remove_pipe(LINKER)
    assert (name, nlp.has_pipe(LINKER)) == (LINKER, False)
    assert pipe(captions(nlp)[0]).ents[0].kb_id_


def test_sourced_into_another_pipeline(trained: Language, tmp_path: Path) -> None:
    """It links the same there, and is saved with that pipeline."""
    expected = list(trained.pipe(captions(trained)))
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "ENT", "pattern": "Mercury"}])
    nlp.add_pipe(LINKER, source=trained)
    assert_same(list(nlp.pipe(captions(nlp))), expected)
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    assert_same(list(loaded.pipe(captions(loaded))), expected)
    assert is_linked(loaded("Mercury is far."))
    again = spacy.blank("en")
    again.add_pipe(LINKER, source=loaded)
    assert_same(list(again.pipe(captions(again))), expected)


def test_sourced_by_a_config_under_another_name(trained: Language, saved: Path) -> None:
    from spacy.util import load_model_from_config

    config = {
        "nlp": {"lang": "en", "pipeline": ["links"]},
        "components": {"links": {"source": str(saved), "component": LINKER}},
    }
    nlp = load_model_from_config(config, auto_fill=True)
    assert nlp.get_pipe_meta("links").factory == LINKER
    assert_same(list(nlp.pipe(captions(nlp))), list(trained.pipe(captions(trained))))


def test_renamed_it_speaks_under_its_new_name(saved: Path, tmp_path: Path) -> None:
    nlp = spacy.load(saved)
    expected = list(nlp.pipe(captions(nlp)))
    nlp.rename_pipe(LINKER, "links")
    assert_same(list(nlp.pipe(captions(nlp))), expected)
    nlp.to_disk(tmp_path)
    assert (tmp_path / "links" / "kb").is_dir()
    loaded = spacy.load(tmp_path)
    assert loaded.pipe_names == ["links"]
    assert_same(list(loaded.pipe(captions(loaded))), expected)
    assert set(loaded.update(examples(loaded)[:3])) == {"links"}


def test_two_linkers_are_two(saved: Path, models: Path, kb: Path, tmp_path: Path) -> None:
    """Their settings, mappers, demonstrations and losses are their own; the later one has the last word."""
    nlp = spacy.load(saved)
    nlp.add_pipe(LINKER, name="second", config=make_config(models, n_candidates=2, n_demonstrations=0))
    first: Any = nlp.get_pipe(LINKER)
    second: Any = nlp.get_pipe("second")
    loader = {"kb_loader": {"@misc": "spacy_gemel.KBFromDisk.v1", "path": str(kb)}}
    nlp.config["initialize"]["components"] = {LINKER: loader, "second": loader}
    with nlp.select_pipes(enable="second"):
        nlp.initialize(lambda: examples(nlp)[:5])
    assert (len(first.store), len(second.store)) == (18, 5)
    assert first.linking_model.language_model is second.linking_model.language_model  # frozen models are loaded once
    before = first.model.get_param("W").copy(), second.model.get_param("W").copy()
    losses = nlp.update(examples(nlp)[:3], exclude=[LINKER])
    assert set(losses) == {"second"}
    assert np.array_equal(first.model.get_param("W"), before[0])
    assert not np.array_equal(second.model.get_param("W"), before[1])
    assert set(nlp.update(examples(nlp)[:3])) == {LINKER, "second"}
    docs = list(nlp.pipe(captions(nlp)))
    # and the mention's own name, if the search does not find it
    assert {len(doc.ents[0]._.gemel_candidates) for doc in docs} <= {2, 3}
    with nlp.select_pipes(disable="second"):
        assert {len(doc.ents[0]._.gemel_candidates) for doc in nlp.pipe(captions(nlp))} <= {5, 6}
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    assert_same(list(loaded.pipe(captions(loaded))), docs)
    scores = loaded.evaluate([Example(eg.predicted, eg.reference) for eg in examples(loaded)[:3]], per_component=True)
    assert {LINKER, "second"} <= set(scores)


def test_behind_a_pipe_that_is_trained(saved: Path) -> None:
    """A NER learns from the docs that the linker learns from; each gets its own."""
    nlp = spacy.blank("en")
    nlp.add_pipe("ner")
    nlp.add_pipe(LINKER, source=spacy.load(saved))  # spaCy shares the pipe with where it came from
    before = nlp.get_pipe(LINKER).model.get_param("W").copy()  # type: ignore[attr-defined]
    with nlp.select_pipes(enable="ner"):
        nlp.initialize(lambda: examples(nlp))
    frozen = nlp.update(examples(nlp), exclude=[LINKER], annotates=["ner"])
    assert set(frozen) == {"ner"}
    losses = nlp.update(examples(nlp), annotates=["ner"])
    assert set(losses) == {"ner", LINKER}
    assert not np.array_equal(before, nlp.get_pipe(LINKER).model.get_param("W"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["linker", "entity_linker"])
def test_any_name_does(saved: Path, name: str) -> None:
    nlp = spacy.blank("en")
    source = spacy.load(saved)
    source.rename_pipe(LINKER, name)
    nlp.add_pipe(name, source=source)
    assert is_linked(nlp(captions(nlp)[0]))
