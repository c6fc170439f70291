"""What is saved comes back the same, in a folder and in bytes, and each part can be left out."""

import gc
import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import srsly
from spacy.language import Language

from spacy_gemel.linking.decision import Decision
from tests.mini_pipeline import LINKER, add_linker, assert_same, captions, linker, make_doc, make_pipeline, reseal
from tests.tiny import make_language_model

PARTS = ["vocab", "cfg", "model", "demonstrations", "decision", "kb", "added", "models"]
OWN = Decision({"score": 2.0, "tokens": 0.5}, nil=-1.0, scales={"score": 0.25, "tokens": 1.0})


def blank(models: Path, **changes: Any) -> Language:
    return add_linker(spacy.blank("en"), models, **changes)


def test_the_whole_pipeline(trained: Language, saved: Path, models: Path) -> None:
    expected = list(trained.pipe(captions(trained)))
    loaded = spacy.load(saved)
    unpacked = blank(models).from_bytes(trained.to_bytes())
    for nlp in (loaded, unpacked):
        assert_same(list(nlp.pipe(captions(nlp))), expected)


def test_bytes_do_not_depend_on_what_was_linked_between(trained: Language) -> None:
    before = trained.to_bytes()
    list(trained.pipe(captions(trained)))
    assert trained.to_bytes() == before


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_left_out_is_not_written(trained: Language, tmp_path: Path, part: str) -> None:
    pipe = linker(trained)
    pipe.to_disk(tmp_path / "whole")
    pipe.to_disk(tmp_path / "less", exclude=[part])
    whole, less = ({path.name for path in (tmp_path / name).iterdir()} for name in ("whole", "less"))
    assert whole >= set(PARTS) - {"models"}  # they are not bundled
    assert less == whole - {part}
    assert set(srsly.msgpack_loads(pipe.to_bytes(exclude=[part]))) == {*PARTS, "sums"} - {part}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("form", ["disk", "bytes"])
def test_a_part_that_is_left_out_keeps_its_own(
    trained: Language, models: Path, kb: Path, tmp_path: Path, part: str, form: str
) -> None:
    """Loaded over another pipe: what is excluded stays as that one had it, and all the rest comes."""
    own = shutil.copytree(kb, tmp_path / "own")
    other = make_pipeline(models, own)
    pipe, source = linker(other), linker(trained)
    weights, shown = pipe.model.get_param("W").copy(), list(pipe.store)
    pipe.use_decision(OWN)
    pipe.store.demonstrations.pop()
    shown = shown[:-1]
    if form == "disk":
        source.to_disk(tmp_path / "pipe", exclude=[part])
        pipe.from_disk(tmp_path / "pipe", exclude=[part])
    else:
        pipe.from_bytes(source.to_bytes(exclude=[part]), exclude=[part])
    assert np.array_equal(pipe.model.get_param("W"), weights if part == "model" else source.model.get_param("W"))
    assert len(pipe.store) == (len(shown) if part == "demonstrations" else len(source.store))
    assert (pipe.kb.path == own) == (part == "kb")
    assert pipe.decision == pipe.linking_model.decision == (OWN if part == "decision" else None)
    docs = list(other.pipe(captions(other)))
    if part not in ("model", "demonstrations", "decision"):
        assert_same(docs, list(trained.pipe(captions(trained))))


def test_a_fresh_pipe_without_what_it_needs_says_what_is_missing(
    trained: Language, models: Path, tmp_path: Path
) -> None:
    linker(trained).to_disk(tmp_path)
    for part in ("kb", "model"):
        nlp = blank(models)
        with pytest.raises(ValueError, match=LINKER):
            linker(nlp).from_disk(tmp_path, exclude=[part])
            nlp(captions(nlp)[0])


def test_a_pipeline_saved_without_its_linker(trained: Language, tmp_path: Path) -> None:
    trained.to_disk(tmp_path, exclude=[LINKER])
    assert not (tmp_path / LINKER).exists()
    with pytest.raises((OSError, ValueError)) as raised:
        spacy.load(tmp_path)
    assert LINKER in str(raised.value)
    nlp = spacy.load(tmp_path, exclude=[LINKER])
    assert nlp.pipe_names == []


def test_disabled_it_is_loaded_when_it_is_enabled(trained: Language, saved: Path) -> None:
    nlp = spacy.load(saved, disable=[LINKER])
    assert nlp(captions(nlp)[0]).ents[0].kb_id_ == ""
    nlp.enable_pipe(LINKER)
    assert_same(list(nlp.pipe(captions(nlp))), list(trained.pipe(captions(trained))))


def test_a_damaged_part_is_one_error_that_names_it(saved: Path, tmp_path: Path) -> None:
    for part in ("model", "demonstrations", "cfg", "added", "decision"):
        folder = tmp_path / part
        shutil.copytree(saved, folder)
        path = folder / LINKER / part
        path.unlink()
        path.write_bytes(b"\x00 not what it was")
        with pytest.raises(ValueError, match=part):
            spacy.load(folder)
        path.unlink()
        with pytest.raises((OSError, ValueError), match=part):
            spacy.load(folder)


def test_bytes_that_are_packed_otherwise(trained: Language) -> None:
    content = srsly.msgpack_loads(linker(trained).to_bytes())
    for value in (None, 7, "text", ["a"], {}):
        for part in ("cfg", "model", "kb"):
            with pytest.raises(ValueError, match=f"'{part}' of the saved pipe"):
                linker(trained).from_bytes(srsly.msgpack_dumps({**content, part: value}))


@pytest.mark.parametrize(
    "row",
    [["Q1", ["a"], 0, [], None], [7, "a", 0, [], None], ["Q1", "a", 2**63, [], None], ["Q1", "a", 0, "xyz", None]],
)
def test_added_entities_that_are_none(saved: Path, tmp_path: Path, row: list[object]) -> None:
    """With checksums that fit them, as who wrote them would give."""
    shutil.copytree(saved, tmp_path / "pipe")
    path = tmp_path / "pipe" / LINKER / "added"
    path.unlink()
    path.write_bytes(srsly.msgpack_dumps([row]))
    reseal(tmp_path / "pipe" / LINKER)
    with pytest.raises(ValueError, match="gemel_linker: 'added' of the saved pipe cannot be read"):
        spacy.load(tmp_path / "pipe")


@pytest.mark.parametrize(("exclude", "expected"), [("added", "own"), ("kb", "theirs"), ("vocab", "theirs")])
@pytest.mark.parametrize("form", ["disk", "bytes"])
def test_added_entities_are_a_part_of_their_own(
    trained: Language, models: Path, kb: Path, tmp_path: Path, exclude: str, expected: str, form: str
) -> None:
    theirs, own = linker(make_pipeline(models, kb)), linker(make_pipeline(models, kb))
    theirs.add_entity("theirs", "Mercury (theirs)")
    own.add_entity("own", "Mercury (own)")
    if form == "disk":
        theirs.to_disk(tmp_path, exclude=[exclude])
        own.from_disk(tmp_path, exclude=[exclude])
    else:
        own.from_bytes(theirs.to_bytes(exclude=[exclude]), exclude=[exclude])
    assert [entity.kb_id for entity in own.kb.added.entities] == [expected]


@pytest.mark.parametrize("form", ["disk", "bytes"])
@pytest.mark.parametrize("part", ["added", "kb", "demonstrations", "decision"])
def test_a_pipe_that_cannot_be_loaded_leaves_the_other_as_it_was(
    trained: Language, models: Path, kb: Path, tmp_path: Path, part: str, form: str
) -> None:
    nlp = make_pipeline(models, kb)
    pipe = linker(nlp)
    pipe.configure(n_demonstrations=1)
    pipe.use_decision(OWN)
    expected = list(nlp.pipe(captions(nlp)))
    state = pipe.to_bytes(exclude=["vocab"])  # words that are learned do no harm
    if form == "disk":
        linker(trained).to_disk(tmp_path / "pipe")
        path = tmp_path / "pipe" / part / "meta.json" if part == "kb" else tmp_path / "pipe" / part
        path.unlink()
        path.write_bytes(b"\x00 damaged")
        with pytest.raises(ValueError):
            pipe.from_disk(tmp_path / "pipe")
    else:
        content = srsly.msgpack_loads(linker(trained).to_bytes())
        content[part] = b"\x00 damaged"
        with pytest.raises(ValueError, match=part):
            pipe.from_bytes(srsly.msgpack_dumps(content))
    assert pipe.to_bytes(exclude=["vocab"]) == state
    assert_same(list(nlp.pipe(captions(nlp))), expected)


# The decision


@pytest.fixture
def decided(trained: Language) -> Iterator[Language]:
    """The trained pipeline with a decision."""
    linker(trained).use_decision(OWN)
    yield trained
    linker(trained).use_decision(None)


@pytest.mark.parametrize("form", ["disk", "bytes"])
def test_a_decision_comes_back_and_decides(decided: Language, models: Path, tmp_path: Path, form: str) -> None:
    expected = list(decided.pipe(captions(decided)))
    if form == "disk":
        decided.to_disk(tmp_path)
        nlp = spacy.load(tmp_path)
        assert json.loads((tmp_path / LINKER / "decision").read_text())["weights"] == OWN.weights
    else:
        nlp = blank(models).from_bytes(decided.to_bytes())
    assert linker(nlp).decision == OWN
    docs = list(nlp.pipe(captions(nlp)))
    assert_same(docs, expected)
    found, saved = ([c.probability for doc in row for c in doc.ents[0]._.gemel_candidates] for row in (docs, expected))
    assert found == pytest.approx(saved, abs=1e-4)
    assert linker(nlp).to_bytes(exclude=["vocab"]) == linker(decided).to_bytes(exclude=["vocab"])


@pytest.mark.parametrize("form", ["disk", "bytes"])
def test_a_pipe_saved_without_its_decision_has_none(trained: Language, models: Path, tmp_path: Path, form: str) -> None:
    """Nor leaves it the one of the pipe that it is loaded over."""
    expected = list(trained.pipe(captions(trained)))
    nlp = blank(models)
    linker(nlp).use_decision(OWN)
    if form == "disk":
        linker(trained).to_disk(tmp_path / "pipe", exclude=["decision"])
        linker(nlp).from_disk(tmp_path / "pipe")
    else:
        linker(nlp).from_bytes(linker(trained).to_bytes(exclude=["decision"]))
    assert linker(nlp).decision is None
    assert_same(list(nlp.pipe(captions(nlp))), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"features.length": None},
            r"decision weighs tokens, which no feature of \[components\.gemel_linker\.features\]",
        ),
        ({"prior_weight": 0.5}, r"prior_weight = 0\.5 has no place beside a fitted decision"),
    ],
)
def test_a_config_that_the_decision_does_not_go_with(
    decided: Language, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    decided.to_disk(tmp_path)
    with pytest.raises(ValueError, match=message):
        spacy.load(tmp_path, config={f"components.{LINKER}.{name}": value for name, value in changes.items()})


@pytest.mark.parametrize("form", ["disk", "bytes"])
def test_the_garbage_collector_stays_on(trained: Language, models: Path, tmp_path: Path, form: str) -> None:
    """srsly switches it off while it reads, and on only where that ends well."""
    nlp = blank(models)
    linker(trained).to_disk(tmp_path / "pipe")
    content = srsly.msgpack_loads(linker(trained).to_bytes())
    was_on = gc.isenabled()
    try:
        for part in ("demonstrations", "added", "model", "decision", None):
            gc.enable()
            if form == "disk":
                shutil.copytree(tmp_path / "pipe", tmp_path / str(part))
                if part is not None:
                    (tmp_path / part / part).write_bytes(b"\xc1 no msgpack")
                load = partial(linker(nlp).from_disk, tmp_path / str(part))
            else:
                packed = content if part is None else {**content, part: b"\xc1 no msgpack"}
                load = partial(linker(nlp).from_bytes, srsly.msgpack_dumps(packed))
            with nullcontext() if part is None else pytest.raises(ValueError, match=part):
                load()
            assert gc.isenabled()
        with pytest.raises(ValueError):
            linker(nlp).from_bytes(b"\xc1 no msgpack")
        assert gc.isenabled()
    finally:
        (gc.enable if was_on else gc.disable)()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"@architectures": "spacy_gemel.LinearMapper.v1", "prefix_length": 3}},
            r"trained with prefix_length = 2, and the config says 3: leave components\.gemel_linker\.model\.prefix_len",
        ),
        (
            {"vision_encoder": {"@misc": "spacy_gemel.OpenCLIP.v1", "name": "wide/vision_encoder", "projection": True}},
            r"image features of width 24; the configured encoder gives 16: leave components\.gemel_linker\.vision_enc",
        ),
        (
            {"language_model": {"@misc": "spacy_gemel.CausalLM.v1", "name": "wide/language_model"}},
            r"embeddings of width 32; the configured model has 64: leave components\.gemel_linker\.language_model",
        ),
    ],
    ids=["prefix_length", "vision_encoder", "language_model"],
)
@pytest.mark.parametrize("form", ["disk", "bytes", "bytes, mapper left out", "bytes, demonstrations left out"])
def test_an_override_that_the_mapper_does_not_fit_is_refused_when_it_is_loaded(
    trained: Language,
    saved: Path,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    message: str,
    form: str,
) -> None:
    """Not by the first doc with an image."""
    make_language_model(tmp_path / "wide" / "language_model", hidden_size=64)
    (tmp_path / "wide" / "vision_encoder").symlink_to(models / "vision_encoder")
    monkeypatch.chdir(tmp_path)
    if form == "disk":
        overrides = {
            f"components.{LINKER}.{block}.{name}": value
            for block, settings in changes.items()
            for name, value in settings.items()
        }
        with pytest.raises(ValueError, match=message):
            spacy.load(saved, config=overrides)
        return
    exclude = {"bytes": [], "bytes, mapper left out": ["model"]}.get(form, ["demonstrations"])
    if exclude == ["model"] and "vision_encoder" not in changes:
        pytest.skip("the demonstrations have no prefix")
    nlp = blank(models, **changes)
    with pytest.raises(ValueError, match=message):
        linker(nlp).from_bytes(linker(trained).to_bytes(), exclude=exclude)
    with pytest.raises(ValueError, match="not ready"):
        linker(nlp).kb  # noqa: B018
    assert linker(nlp).model.has_dim("nO") is None


def test_for_text_alone_the_vision_encoder_may_be_another(saved: Path, models: Path) -> None:
    """Neither mapper nor features are used: a small one saves the memory."""
    other = {"use_image": False, "vision_encoder.projection": True}
    nlp = spacy.load(saved, config={f"components.{LINKER}.{name}": value for name, value in other.items()})
    doc = nlp(make_doc(nlp, "A photo of Mercury.", "Mercury"))
    assert doc.ents[0].kb_id_
