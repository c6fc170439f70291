"""NIL, the threshold, and ties, which are decided alike in every run and in every process."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from spacy.language import Language
from spacy.pipeline import EntityLinker

from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.pipeline.loaded_pipeline import overridden
from tests.entity_linker.world import (
    GOLDS,
    PLANET,
    add_linker,
    candidates,
    example_of,
    ids,
    make_nlp,
    make_world_kb,
    photo,
    training_data,
)
from tests.mini_pipeline import doc_of, linker


def decided(nlp: Language, threshold: float | None) -> list[str]:
    with overridden(linker(nlp), threshold=threshold):
        return ids(nlp(photo(nlp, like=PLANET)))


def test_nil_is_spacys_own() -> None:
    assert GemelLinker.NIL == EntityLinker.NIL == "NIL"


def test_thresholds(trained: Language) -> None:
    [found] = candidates(trained(photo(trained, like=PLANET)))
    best = found[0].probability
    assert 0.5 < best < 0.999
    for threshold, answer in (
        (None, PLANET),
        (0.0, PLANET),
        (best / 2, PLANET),
        (best, PLANET),  # at least so sure
        (best + 1e-6, "NIL"),
        (1.0, "NIL"),
    ):
        assert decided(trained, threshold) == [answer], threshold


def test_below_the_threshold_the_candidates_are_still_told(trained: Language) -> None:
    with overridden(linker(trained), threshold=1.0):
        doc = trained(photo(trained, like=PLANET))
    assert (ids(doc), candidates(doc)[0][0].kb_id) == (["NIL"], PLANET)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, 50])
def test_a_threshold_that_is_no_probability(models: Path, threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold is a probability, from 0 to 1"):
        add_linker(spacy.blank("en"), models, None, threshold=threshold)


@pytest.mark.parametrize("threshold", [None, 0.99, 1.0])
def test_an_only_candidate_is_certain(models: Path, tmp_path: Path, threshold: float | None) -> None:
    only = make_world_kb(tmp_path, models, [{"id": PLANET, "name": "Mercury (planet)"}])
    nlp = spacy.blank("en")
    add_linker(nlp, models, only, threshold=threshold)
    nlp.initialize(lambda: training_data(nlp)[:1])
    doc = nlp(doc_of(nlp, "Something else.", ("Something", "ENT", "")))
    assert (ids(doc), candidates(doc)[0][0].probability) == ([PLANET], pytest.approx(1))


def test_nil_among_others(trained: Language) -> None:
    """One mention below the threshold takes no other with it."""
    doc = doc_of(trained, "A photo of Mercury. Hermes.", ("Mercury", "ENT", ""), ("Hermes", "ENT", ""))
    sure = [found[0].probability for found in candidates(trained(doc))]
    linker(trained).configure(threshold=sum(sure) / 2)
    try:
        linked = ids(trained(doc))
    finally:
        linker(trained).configure(threshold=None)
    assert [kb_id == "NIL" for kb_id in linked] == [one < max(sure) for one in sure]
    assert linked.count("NIL") == 1


# Ties

TWINS: list[dict[str, Any]] = [
    {"id": "z-last-by-name", "name": "Mercury", "count": 3},
    {"id": "a-first-by-name", "name": "Mercury", "count": 3},
    {"id": "rare", "name": "Mercury", "count": 1},
    {"id": "planet", "name": "Mercury (planet)"},
    {"id": "double", "name": "Mercury (planet)"},
]
ORDER = ["z-last-by-name", "a-first-by-name", "rare"]


@pytest.fixture(scope="module")
def twins(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Language:
    kb = make_world_kb(tmp_path_factory.mktemp("twins"), models, TWINS)
    nlp = spacy.blank("en")
    add_linker(nlp, models, kb)
    nlp.initialize(lambda: [example_of(nlp, photo(nlp, "planet"))])
    return nlp


def test_entities_of_one_name_and_count_stand_as_in_the_file(twins: Language) -> None:
    [found] = candidates(twins(photo(twins)))
    assert [one.kb_id for one in found if one.name == "Mercury"] == ORDER
    assert [one.kb_id for one in found if one.name == "Mercury (planet)"] == ["planet", "double"]
    shares = {one.kb_id: one.probability for one in found}
    assert shares["z-last-by-name"] == shares["a-first-by-name"] == pytest.approx(3 * shares["rare"])


def test_ties_do_not_depend_on_chance_or_company(twins: Language) -> None:
    """spaCy's own linker shuffles its candidates before it takes the best of them."""
    answers = set()
    for seed in range(8):
        random.seed(seed)
        torch.manual_seed(seed)
        docs = [photo(twins, like=like) for like in random.sample([*GOLDS, "", ""], 5)] + [photo(twins)]
        *_, last = twins.pipe(docs, batch_size=random.randint(1, 6))
        answers.add(json.dumps([one.kb_id for one in candidates(last)[0]]))
    assert len(answers) == 1


def zero_model(models: Path, folder: Path) -> str:
    """A language model to which all tokens are equally likely: names of one length have one score."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(models / "language_model", folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.lm_head.weight.data.zero_()
    model.save_pretrained(folder)
    return str(folder)


def test_names_of_one_score_are_ranked_alike_in_every_process(models: Path, tmp_path: Path) -> None:
    rows = [{"id": f"Q{n}", "name": f"{letter}{letter}"} for n, letter in enumerate("QXZVKWJYGB")]
    kb = make_world_kb(tmp_path, models, rows)
    blind = {"@misc": "spacy_gemel.CausalLM.v1", "name": zero_model(models, tmp_path / "blind")}
    nlp = spacy.blank("en")
    add_linker(nlp, models, kb, language_model=blind, beam_size=10, n_candidates=10)
    nlp.initialize(lambda: [example_of(nlp, photo(nlp, "Q0"))])
    [found] = candidates(nlp(photo(nlp)))
    assert len({round(one.score, 4) for one in found}) < len(found)  # there are ties
    nlp.to_disk(tmp_path / "saved")
    code = """
import json, sys, spacy
nlp = spacy.load(sys.argv[1])
orders = []
for _ in range(2):
    doc = nlp.make_doc("A photo of Mercury.")
    doc.ents = [doc.char_span(11, 18, label="ENT")]
    orders.append([one.kb_id for one in nlp(doc).ents[0]._.gemel_candidates])
print(json.dumps(orders))
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "saved")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "11"},
    )
    assert json.loads(run.stdout.splitlines()[-1]) == [[one.kb_id for one in found]] * 2


def test_models_loaded_anew_decide_alike(models: Path, kb: Path) -> None:
    first, second = make_nlp(models, kb), make_nlp(models, kb)
    for kb_id in GOLDS:
        docs = [nlp(photo(nlp, like=kb_id)) for nlp in (first, second)]
        assert candidates(docs[0]) == candidates(docs[1])
