"""The pipe's settings: what they may be, and that a change of one is saved and is there again."""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from spacy.language import Language
from thinc.api import Config

from spacy_gemel.kb.knowledge_base import KnowledgeBase
from spacy_gemel.linking.decision import Decision
from spacy_gemel.linking.settings import LinkerSettings, changed_threshold, settings_table
from spacy_gemel.pipeline.gemel_linker import GemelLinker
from spacy_gemel.pipeline.loaded_pipeline import overridden, save_changed
from spacy_gemel.pipeline.serialization import settings_from_json, settings_to_json
from spacy_gemel.utils.messages import UnusedSettingWarning
from tests.mini_pipeline import CHANGED, examples, make_config, make_doc, make_pipeline, reseal

# What they may be

WRONG: list[tuple[str, Any, str]] = [
    ("threshold", 1.5, "threshold is a probability, from 0 to 1, not 1.5"),
    ("threshold", float("nan"), "threshold is a probability"),
    ("threshold", "0.5", "threshold is a probability, from 0 to 1, not '0.5'"),
    ("context", "sentences", 'context must be "doc", "sentence" or "window", not \'sentences\''),
    ("context", ["doc"], "context must be"),
    ("name_end", "", 'name_end must be "newline" or "eos"'),
    ("beam_size", 0, "beam_size must be at least 1, not 0"),
    ("beam_size", 2.5, r"beam_size must be a whole number, not 2\.5"),
    ("beam_size", True, "beam_size must be a whole number, not True"),
    ("n_candidates", 0, "n_candidates must be at least 1"),
    ("batch_tokens", None, "batch_tokens must be a whole number"),
    ("n_sents", -1, "n_sents must be 0 or more"),
    ("window", "64", "window must be a whole number, not '64'"),
    ("labels_discard", "ENTITY", r"labels_discard must be a list of labels, such as \[\"DATE\"\], not 'ENTITY'"),
    ("labels_discard", [1], "labels_discard must be a list of labels"),
    ("labels_discard", None, "labels_discard must be a list of labels"),
    ("image_root", 3, "image_root must be a folder's path, not 3"),
    ("overwrite", "no", "overwrite must be true or false, not 'no'"),
    ("search", "best", 'search must be "beam" or "exact", not'),
    ("exact_tokens", 0, "exact_tokens must be at least 1, not 0"),
    ("candidates", "all", 'candidates must be "names" or "aliases", not'),
    ("prior_weight", float("inf"), "prior_weight must be a number from 0 on"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_a_value_that_makes_no_sense_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"gemel_linker: {message}"):
        LinkerSettings(**{name: value})
    with pytest.raises(ValueError, match=message):
        LinkerSettings().replace(**{name: value})


def test_every_setting_is_checked_and_all_together() -> None:
    assert {name for name, _, _ in WRONG} < set(CHANGED) == set(vars(LinkerSettings()))
    with pytest.raises(ValueError, match=r"^gemel_linker: beam_size must be .*; prior_weight must be ") as raised:
        LinkerSettings(**dict.fromkeys(CHANGED, object()))
    assert all(f"{name} " in str(raised.value) for name in CHANGED)


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"there is no setting 'treshold', only beam_size, .*threshold, "):
        LinkerSettings().replace(treshold=0.9)


def test_settings_do_not_change() -> None:
    settings: Any = LinkerSettings()
    for name in ("threshold", "treshold"):
        with pytest.raises(AttributeError, match=rf"use linker\.configure\({name}=0\.5\)"):
            setattr(settings, name, 0.5)


def test_numbers_and_lists_of_any_kind() -> None:
    settings = LinkerSettings(beam_size=np.int64(4), threshold=1, labels_discard=(label for label in ("A", "B")))  # type: ignore[arg-type]
    assert (settings.beam_size, settings.threshold, settings.labels_discard) == (4, 1.0, ("A", "B"))
    assert (type(settings.beam_size), type(settings.threshold)) == (int, float)


def test_the_documented_table_is_the_settings() -> None:
    assert settings_table() in (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf8")


def said(name: str, do: Callable[[], object]) -> list[str]:
    """What the pipe of a name warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        do()
    return [
        str(warning.message)
        for warning in caught
        if issubclass(warning.category, UnusedSettingWarning) and f"{name}: " in str(warning.message)
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_sents": 3}, 'n_sents = 3 has no effect with context = "doc": set context = "sentence"'),
        ({"window": 2}, 'window = 2 has no effect with context = "doc": set context = "window"'),
        ({"context": "sentence", "window": 2}, 'window = 2 has no effect with context = "sentence"'),
        ({"n_candidates": 9}, "n_candidates = 9 names cannot be found by beam_size = 5 beams: there will be 5 at most"),
        ({"exact_tokens": 9}, 'exact_tokens = 9 has no effect with search = "beam": set search = "exact"'),
        ({"search": "exact", "constrained": False}, 'search = "exact" has no effect with constrained = false'),
        ({}, None),
        ({"search": "exact", "exact_tokens": 9}, None),
        ({"beam_size": 3}, None),  # whoever sets that has said so
        ({"context": "sentence", "n_sents": 3}, None),
        ({"context": "window", "window": 2}, None),
        ({"n_candidates": 9, "beam_size": 9}, None),
    ],
)
def test_what_has_no_effect_is_said(models: Path, kb: Path, changes: dict[str, Any], message: str | None) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("gemel_linker", "mine", config=make_config(models, **changes))
    pipe = nlp.get_pipe("mine")
    assert isinstance(pipe, GemelLinker)
    pipe.set_kb(lambda vocab: KnowledgeBase.open(kb))
    told = said("mine", lambda: nlp.initialize(lambda: examples(nlp)))
    assert len(told) == (message is not None)
    assert message is None or message in told[0]


# A change is saved


@pytest.fixture(scope="module")
def made(models: Path, kb: Path) -> Language:
    return make_pipeline(models, kb)


@pytest.fixture
def nlp(made: Language) -> Iterator[Language]:
    with overridden(pipe_of(made), **vars(pipe_of(made).settings)):
        yield made


def pipe_of(nlp: Language) -> GemelLinker:
    pipe = nlp.get_pipe("gemel_linker")
    assert isinstance(pipe, GemelLinker)
    return pipe


def from_disk(nlp: Language, tmp_path: Path) -> Language:
    nlp.to_disk(tmp_path / "saved")
    return spacy.load(tmp_path / "saved")


def from_bytes(nlp: Language, tmp_path: Path) -> Language:
    return spacy.blank("en", config=nlp.config).from_bytes(nlp.to_bytes())


def answer(nlp: Language) -> tuple[str, list[Any]]:
    [ent] = nlp(make_doc(nlp, "So far away there is a photo of Mercury, and more.", "Mercury")).ents
    return ent.kb_id_, [(found.kb_id, round(found.score, 3)) for found in ent._.gemel_candidates]


@pytest.mark.parametrize("again", [from_disk, from_bytes])
def test_what_was_set_is_there_again(
    nlp: Language, tmp_path: Path, again: Callable[[Language, Path], Language]
) -> None:
    pipe = pipe_of(nlp)
    before = answer(nlp)
    pipe.configure(**CHANGED)
    expected = answer(nlp)  # from the next doc on
    assert expected != before
    loaded = again(nlp, tmp_path)
    assert vars(pipe_of(loaded).settings) == CHANGED
    assert answer(loaded) == expected
    once_more = again(loaded, tmp_path)
    assert vars(pipe_of(once_more).settings) == CHANGED


def test_the_end_of_a_name_changes_at_once(nlp: Language, models: Path, kb: Path) -> None:
    pipe_of(nlp).configure(name_end="eos")
    other = make_pipeline(models, kb, name_end="eos")
    pipe_of(other).model.from_bytes(pipe_of(nlp).model.to_bytes())
    assert answer(nlp) == answer(other)


def test_what_the_config_says_anew_holds(nlp: Language, tmp_path: Path) -> None:
    pipe = pipe_of(nlp)
    pipe.configure(threshold=0.9, n_demonstrations=1)
    nlp.to_disk(tmp_path / "saved")
    loaded = spacy.load(tmp_path / "saved", config={"components.gemel_linker.threshold": 0.3})
    near = pytest.approx(0.3, rel=1e-12)  # srsly before 2.5 reads 0.3 as the number next to it
    assert (pipe_of(loaded).settings.threshold, pipe_of(loaded).settings.n_demonstrations) == (near, 1)
    loaded.to_disk(tmp_path / "again")
    assert pipe_of(spacy.load(tmp_path / "again")).settings.threshold == near
    config = Config().from_disk(tmp_path / "saved" / "config.cfg", interpolate=False)
    config["components"]["gemel_linker"]["n_demonstrations"] = 2  # by hand
    config.to_disk(tmp_path / "saved" / "config.cfg")
    assert pipe_of(spacy.load(tmp_path / "saved")).settings.n_demonstrations == 2


def test_a_fitted_pipeline_may_be_overridden_with_what_it_had(nlp: Language, tmp_path: Path) -> None:
    loaded = from_disk(nlp, tmp_path)
    save_changed(loaded, {"n_demonstrations": 1, "threshold": 0.6}, tmp_path / "fitted", Decision({"score": 2.0}))
    fitted = pipe_of(spacy.load(tmp_path / "fitted"))
    assert (fitted.settings.n_demonstrations, fitted.settings.threshold) == (1, 0.6)
    assert fitted.decision == Decision({"score": 2.0})
    plain = spacy.load(tmp_path / "fitted", config={"components.gemel_linker.threshold": None})
    assert pipe_of(plain).settings.threshold is None
    assert pipe_of(plain).decision == fitted.decision


def test_a_number_that_the_config_does_not_keep_to_the_last_digit(models: Path, kb: Path, tmp_path: Path) -> None:
    """spaCy writes configs with a JSON that rounds: 0.3 comes back as 0.30000000000000004."""
    nlp = make_pipeline(models, kb, threshold=0.3)
    pipe_of(nlp).threshold = 1 / 3
    assert pipe_of(from_disk(nlp, tmp_path)).threshold == 1 / 3


def test_a_pipe_of_before_keeps_its_config(nlp: Language, tmp_path: Path) -> None:
    """Earlier versions saved no settings but a temperature, which there is no longer."""
    nlp.to_disk(tmp_path / "saved")
    cfg = tmp_path / "saved" / "gemel_linker" / "cfg"
    state = json.loads(cfg.read_text())
    cfg.write_text(json.dumps({"format": state["format"], "temperature": 3.0, "found": state["found"]}))
    reseal(cfg.parent)
    loaded = spacy.load(tmp_path / "saved", config={"components.gemel_linker.threshold": 0.3})
    assert answer(loaded)[1] == answer(nlp)[1]
    assert pipe_of(loaded).settings.threshold == pytest.approx(0.3, rel=1e-12)


def test_every_setting_is_saved_and_one_that_was_not_yet_there_is_the_configs() -> None:
    settings, config = LinkerSettings(**CHANGED), LinkerSettings(prior_weight=0.25)
    saved = json.loads(json.dumps(settings_to_json(settings, config, {})))
    assert set(saved["settings"]) == set(CHANGED)
    assert settings_from_json(saved, config, "linker") == (settings, {})
    del saved["settings"]["prior_weight"]
    assert settings_from_json(saved, config, "linker") == (settings.replace(prior_weight=0.25), {})


def test_saved_settings_that_make_no_sense(nlp: Language, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "saved")
    cfg = tmp_path / "saved" / "gemel_linker" / "cfg"
    state = json.loads(cfg.read_text())
    state["settings"] |= {"of a later version": 1}
    cfg.write_text(json.dumps(state))
    reseal(cfg.parent)
    spacy.load(tmp_path / "saved")
    state["settings"] |= {"beam_size": 0}
    cfg.write_text(json.dumps(state))
    reseal(cfg.parent)
    with pytest.raises(ValueError, match=r"'cfg' of the saved pipe cannot be read .*beam_size must be at least 1"):
        spacy.load(tmp_path / "saved")


def test_attributes_as_of_spacys_entity_linker(nlp: Language) -> None:
    pipe: Any = pipe_of(nlp)
    for name in ("threshold", "labels_discard", "n_sents", "use_gold_ents", "overwrite"):
        setattr(pipe, name, CHANGED[name])
        assert getattr(pipe, name) == getattr(pipe.settings, name) == CHANGED[name]
    with pytest.raises(ValueError, match="threshold is a probability"):
        pipe.threshold = 1.5
    pipe.threshold, pipe.labels_discard = 1.0, ["ENT"]
    assert answer(nlp) == ("NIL", [])


def test_the_config_holds_over_what_a_pipe_in_use_was_changed_to(models: Path, kb: Path, tmp_path: Path) -> None:
    make_pipeline(models, kb, n_demonstrations=3).to_disk(tmp_path / "saved")
    cfg = tmp_path / "saved" / "gemel_linker" / "cfg"
    pipe = pipe_of(make_pipeline(models, kb, n_demonstrations=2))
    pipe.configure(n_demonstrations=1)
    pipe.from_disk(tmp_path / "saved" / "gemel_linker", exclude=["vocab"])
    assert pipe.settings.n_demonstrations == 2
    pipe.configure(n_demonstrations=1)
    state = json.loads(cfg.read_text())
    cfg.write_text(json.dumps({name: state[name] for name in ("format", "found")}))  # of before
    reseal(cfg.parent)
    pipe.from_disk(tmp_path / "saved" / "gemel_linker", exclude=["vocab"])
    assert pipe.settings.n_demonstrations == 2
    pipe.configure(n_demonstrations=1)
    pipe.from_disk(tmp_path / "saved" / "gemel_linker", exclude=["vocab", "cfg"])
    assert pipe.settings.n_demonstrations == 1


@pytest.mark.parametrize("changes", [{"beam_size": 0}, {"treshold": 0.1}])
def test_all_changes_or_none(nlp: Language, changes: dict[str, Any]) -> None:
    before = pipe_of(nlp).settings
    with pytest.raises(ValueError, match="gemel_linker: "):
        pipe_of(nlp).configure(n_demonstrations=1, **changes)
    assert pipe_of(nlp).settings is before
    with pytest.raises(AttributeError):
        pipe_of(nlp).settings = LinkerSettings()  # type: ignore[misc]


def test_a_change_without_effect_is_said(nlp: Language) -> None:
    pipe = pipe_of(nlp)
    [message] = said("gemel_linker", lambda: pipe.configure(n_sents=2))
    assert 'n_sents = 2 has no effect with context = "doc": set context = "sentence"' in message
    assert said("gemel_linker", lambda: pipe.configure(threshold=0.5)) == []  # of what changed, and nothing else
    assert said("gemel_linker", lambda: pipe.configure(context="sentence")) == []
    [message] = said("gemel_linker", lambda: pipe.configure(context="window"))  # which takes the effect away
    assert "n_sents = 2" in message


def test_what_has_no_effect_is_judged_by_what_holds_when_it_is_loaded(models: Path, kb: Path, tmp_path: Path) -> None:
    nlp = make_pipeline(models, kb, n_sents=1)  # in vain, with context = "doc"
    pipe_of(nlp).configure(context="sentence")
    nlp.to_disk(tmp_path / "saved")
    assert said("gemel_linker", lambda: spacy.load(tmp_path / "saved")) == []
    pipe_of(nlp).configure(context="window")
    nlp.to_disk(tmp_path / "saved")
    [message] = said("gemel_linker", lambda: spacy.load(tmp_path / "saved"))
    assert 'n_sents = 1 has no effect with context = "window"' in message


def test_a_threshold_that_other_settings_give_another_meaning_is_told() -> None:
    settings = LinkerSettings(threshold=0.9)
    message = changed_threshold(settings, settings.replace(n_candidates=1))
    assert message is not None
    assert "with n_candidates = 1 they share it differently; an only candidate has probability 1" in message
    for changes in ({"n_candidates": 1, "threshold": 0.5}, {"batch_tokens": 100}, {"threshold": None, "beam_size": 2}):
        assert changed_threshold(settings, settings.replace(**changes)) is None
    assert changed_threshold(LinkerSettings(), LinkerSettings(beam_size=2)) is None
